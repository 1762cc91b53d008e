"""`rsync -a --delete` beside an XNAT whose database is dead: it says 404 to what exists, and a copy must not
lose a file by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import mount, run, until, xnatfs
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer

HEALED = {"database_down": False, "pool_exhausted": False, "failing_query": "", "fail_next": 0}


@pytest.fixture
def server() -> Iterator[DemoServer]:
    with DemoServer(build("scale", sessions=30, scans=3, files=5, file_size=2000)) as made:
        yield made


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def mirror(source: Path, copy: Path) -> int:
    """Make the copy what the mount shows; the exit code."""
    return run("rsync", "-a", "--delete", f"{source}/", f"{copy}/").returncode


@pytest.mark.parametrize(
    "trouble",
    [
        {"database_down": True},
        {"pool_exhausted": True, "pool_wait_s": 0.1},
        {"failing_query": "."},
        {"fail_next": -1, "fail_status": 404},  # Tomcat without its web application
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_rsync_deletes_nothing_while_the_database_is_dead(
    server: DemoServer, tmp_path: Path, trouble: dict[str, object], kept: bool
) -> None:
    copy = tmp_path / "copy"
    with mount(server.url, tmp_path) as mounted:
        source = mounted.point / "projects" / "SCALE"
        assert mirror(source, copy) == 0
        before = files(copy)
        assert len(before) == 30 * 3 * 5
        if not kept:  # then nothing is left to be shown, once it is forgotten, too
            for path in (tmp_path / "cache").rglob("listings*"):
                path.unlink()
        server.switches.update(trouble)
        xnatfs("refresh", str(mounted.point), env=mounted.env, check=True)
        mirror(source, copy)  # it may say that something could not be read
        assert files(copy) == before
        server.switches.update(HEALED)
        until(lambda: mirror(source, copy) == 0, 90)
        assert files(copy) == before
