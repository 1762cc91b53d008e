"""What goes wrong while a scan of a BIDS view is fetched and converted: an error with the reason, no half
image, nothing left behind, and the next look is right.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import as_new, composed, read
from tests.vfs.conftest import LIMITS, Compose, Shelf
from xnatfs.convert import conversion, converted_scans
from xnatfs.convert.converter import Converter, find_converter
from xnatfs.core import Core
from xnatfs.demo.data.dicom_cases import datasets, stored, volume
from xnatfs.demo.faults import Switches
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Failure

FOLDER = "/views/P/bids/sub-s/ses-MR/anat"
IMAGE = f"{FOLDER}/sub-s_ses-MR_T1w.nii.gz"


@pytest.fixture(scope="module")
def _server() -> Iterator[DemoServer]:
    shelf = Shelf("s", "s_MR")
    shelf.dicom("1", "T1w", stored(datasets(volume())))
    with shelf.server as server:
        yield server


@pytest.fixture
def server(_server: DemoServer) -> DemoServer:
    as_new(_server)
    return _server


@pytest.fixture(scope="module")
def right(_server: DemoServer, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The image as it has to be."""
    with composed(_server.url, tmp_path_factory.mktemp("right"), limits=LIMITS) as core:
        return read(core.vfs, IMAGE)


@pytest.fixture
def mounted(server: DemoServer, compose: Compose) -> Core:
    core = compose(server)
    core.vfs.entries(FOLDER)  # the listings are not what fails here
    return core


def kept(core: Core) -> list[Path]:
    return list((core.cache.directory / "converted").iterdir())


def fails(core: Core) -> Failure:
    with pytest.raises(Failure) as raised:
        read(core.vfs, IMAGE)
    assert kept(core) == [], "nothing is left behind"
    assert [name for name, _ in core.vfs.entries(FOLDER)] == [
        f"sub-s_ses-MR_T1w{end}" for end in (".nii.gz", ".json")
    ], "what is not the files' fault changes no name"
    assert str(raised.value) in core.diagnostics.recent()[-1].text
    return raised.value


@pytest.mark.parametrize(
    "switches",
    [
        {"truncate_after_bytes": 5000, "truncate_next": 1},
        {"cut_after_bytes": 5000, "cut_next": 1},
        {"zip_stop_after": 3},
        {"zip_omit": ["000[25].dcm"]},
        {"damage_next": 1},
    ],
    ids=lambda switches: next(iter(switches)),
)
def test_a_zip_that_is_short_or_damaged_is_made_good(
    mounted: Core, server: DemoServer, right: bytes, switches: dict[str, object]
) -> None:
    """Catches: a series that is converted without the slices a zip lacked, or with a damaged one."""
    server.switches.update(switches)
    assert read(mounted.vfs, IMAGE) == right
    assert server.switches.fired


@pytest.mark.parametrize(
    ("switches", "number", "reason"),
    [
        ({"fail_next": -1, "fail_status": 500}, errno.EIO, "error"),
        ({"truncate_after_bytes": 1000}, errno.EIO, "too early"),
        ({"wrong_digest": "0003", "match": "never"}, errno.EIO, "digest"),
    ],
)
def test_what_cannot_be_had_is_an_error_that_passes(
    server: DemoServer,
    compose: Compose,
    right: bytes,
    switches: dict[str, object],
    number: int,
    reason: str,
) -> None:
    if "wrong_digest" in switches:  # of the listing
        server.switches.update(switches)
    core = compose(server)
    core.vfs.entries(FOLDER)
    server.switches.update(switches)
    problem = fails(core)
    assert problem.errno == number and reason in str(problem)
    server.switches.update({name: getattr(Switches(), name) for name in switches})
    core.refresh()
    assert read(core.vfs, IMAGE) == right


def test_a_disk_that_is_full_midway_is_an_error_that_passes(
    mounted: Core, right: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(image: Path, target: Path) -> None:
        target.write_bytes(right[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(conversion, "pack_image", full)
        assert fails(mounted).errno == errno.ENOSPC
    assert read(mounted.vfs, IMAGE) == right


def lying(folder: Path, then: str, limit_s: float = 60.0) -> Converter:
    script = folder / "dcm2niix"
    script.write_text(f"#!/bin/sh\n{then}\n")
    script.chmod(0o755)
    return Converter(script, "1", "0", limit_s)


@pytest.mark.parametrize(
    ("then", "limit_s", "reason"),
    [("kill -SEGV $$", 60, "SIGSEGV"), ("/bin/sleep 100", 0.3, "was not done after 0.3 s")],
)
def test_a_converter_that_crashes_or_hangs_is_a_refusal_until_a_refresh(
    mounted: Core,
    right: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    then: str,
    limit_s: float,
    reason: str,
) -> None:
    found = lying(tmp_path, then, limit_s)
    with monkeypatch.context() as patched:
        patched.setattr(Converter, "run", lambda self, *rest: _run(found, *rest))
        with pytest.raises(Failure, match=reason) as raised:
            read(mounted.vfs, IMAGE)
        assert raised.value.errno == errno.EIO
        (folder,) = kept(mounted)
        assert [path.name for path in folder.iterdir()] == ["made.json"], "no half image"
        assert reason in read(mounted.vfs, "/views/P/bids/unmapped.tsv").decode()
    mounted.refresh()
    assert read(mounted.vfs, IMAGE) == right


_run: Callable[..., list[Path]] = Converter.run


def test_a_converter_that_is_gone_is_an_error_that_passes(
    mounted: Core, right: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = find_converter()
    with monkeypatch.context() as patched:
        missing = Converter(tmp_path / "nothing", real.version, real.digest)
        patched.setattr(converted_scans, "find_converter", lambda: missing)
        assert fails(mounted).errno == errno.ENOTSUP
    assert read(mounted.vfs, IMAGE) == right


def test_two_mounts_on_one_cache_make_it_once_or_twice_and_right(
    server: DemoServer, tmp_path: Path, right: bytes
) -> None:
    """Catches: a mount that removes what another is filling, or shows half of it."""
    found: list[bytes] = []
    with (
        composed(server.url, tmp_path, limits=LIMITS) as one,
        composed(server.url, tmp_path, limits=LIMITS) as other,
    ):
        threads = [
            threading.Thread(target=lambda core=core: found.append(read(core.vfs, IMAGE)))  # type: ignore[misc]
            for core in (one, other, one, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == 4 * [right]
        assert len(kept(one)) == 1
