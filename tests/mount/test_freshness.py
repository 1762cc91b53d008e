"""What a reader sees of a change on the server, and when: within the documented minute by itself, at once
after a refresh.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.support import Mount, mount, run, xnatfs
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import Archive, Resource
from xnatfs.demo.server import DemoServer

FILES = "projects/P/subjects/s/S/RESOURCES/R"
WITHIN = 60.0  # README: "within a minute"


class Study:
    """A project with two sessions; `change` does everything that can happen to one."""

    def __init__(self) -> None:
        self.archive = Archive(site="T")
        self.make = Maker(self.archive, datetime(2024, 1, 8, 9, 15))
        self.make.user("demo")
        self.project = self.make.project("P", "P", members=["demo"])
        self.subject = self.make.subject(self.project, "s")
        self.session = self.make.experiment(self.subject, "S", date="2024-01-08")
        self.leaving = self.make.experiment(self.subject, "LEAVING", date="2024-01-09")
        self.resource: Resource = self.make.resource(self.session, "R")
        for name, data in (("kept", b"kept"), ("changed", b"old"), ("removed", b"gone soon")):
            self.resource.entries.append(self.make.entry(name, data))
        self.server = DemoServer(self.archive)

    def change(self) -> None:
        """A file changed (to another of equal size), one added, one removed; a session added, one removed."""
        self.resource.entries[1] = self.make.entry("changed", b"new")
        del self.resource.entries[2]
        self.resource.entries.append(self.make.entry("added", b"added"))
        self.make.experiment(self.subject, "ADDED")
        del self.archive.experiments[self.leaving.id]
        self.archive.touch(self.session)


@pytest.fixture
def study() -> Iterator[Study]:
    made = Study()
    with made.server:
        yield made


def seen(mounted: Mount) -> dict[str, object]:
    """All there is to see: names by listing, names by look-up, and contents."""
    top = mounted.point / FILES
    names = sorted(os.listdir(top))
    return {
        "files": names,
        "contents": {name: (top / name).read_bytes() for name in names if (top / name).exists()},
        "sessions": sorted(os.listdir(mounted.point / "projects/P/subjects/s")),
        "looked up": [
            (top / "removed").exists(),
            (top / "added").exists(),
            (mounted.point / "projects/P/subjects/s/LEAVING").exists(),
        ],
    }


BEFORE = {
    "files": ["changed", "kept", "removed"],
    "contents": {"changed": b"old", "kept": b"kept", "removed": b"gone soon"},
    "sessions": ["LEAVING", "S"],
    "looked up": [True, False, True],
}
AFTER = {
    "files": ["added", "changed", "kept"],
    "contents": {"added": b"added", "changed": b"new", "kept": b"kept"},
    "sessions": ["ADDED", "S"],
    "looked up": [False, True, False],
}


@pytest.mark.timeout(150)
def test_every_change_shows_within_a_minute_by_itself(study: Study, tmp_path: Path) -> None:
    with mount(study.server.url, tmp_path) as mounted:
        assert seen(mounted) == BEFORE
        study.server.call(study.change)
        began = time.monotonic()
        while (now := seen(mounted)) != AFTER:
            assert time.monotonic() - began < WITHIN + 10, now  # the machine may be busy
            time.sleep(1)


def test_after_a_refresh_what_is_new_or_changed_shows_at_once(study: Study, tmp_path: Path) -> None:
    with mount(study.server.url, tmp_path) as mounted:
        assert seen(mounted) == BEFORE
        study.server.call(study.change)
        xnatfs("refresh", str(mounted.point / FILES), env=mounted.env, check=True)
        found = seen(mounted)
        assert {name: found[name] for name in ("files", "contents", "sessions")} == {
            name: AFTER[name] for name in ("files", "contents", "sessions")
        }


def test_rsync_transfers_only_what_changed_and_nothing_after_a_remount_with_the_cache_cleared(
    study: Study, tmp_path: Path
) -> None:
    target = tmp_path / "copy"

    def rsync(mounted: Mount) -> list[str]:
        said = run(
            "rsync", "-a", "--delete", "--out-format=%i %n", f"{mounted.point}/projects/P/", f"{target}/"
        )
        assert said.returncode == 0, said.stderr
        # Folders' own times and counts are no transfer.
        return [
            line.split()[-1].rsplit("/", 1)[-1]
            for line in said.stdout.splitlines()
            if line.startswith((">f", "*deleting"))
        ]

    with mount(study.server.url, tmp_path) as mounted:
        assert sorted(rsync(mounted)) == ["changed", "kept", "removed"]
        assert rsync(mounted) == []
        study.server.call(study.change)
        xnatfs("refresh", str(mounted.point), env=mounted.env, check=True)
        moved = rsync(mounted)
        assert "kept" not in moved and {"changed", "added", "removed"} <= set(moved)
        assert (target / "subjects/s/S/RESOURCES/R/changed").read_bytes() == b"new"
    xnatfs("cache", "clear", "--yes", env=mounted.env, check=True)
    with mount(study.server.url, tmp_path) as mounted:
        assert rsync(mounted) == []
    shutil.rmtree(tmp_path / "cache")
    with mount(study.server.url, tmp_path) as mounted:
        assert rsync(mounted) == []
