"""Who keeps a mount busy; nothing is read of a process that could make the command wait."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import until
from xnatfs.daemon.holders import Holder, holders


def test_open_files_and_current_folders_are_found(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "inside-not").mkdir()
    (tmp_path / "in" / "file").write_text("x")
    with (tmp_path / "in" / "file").open() as file:
        begun = [
            subprocess.Popen(["sleep", "60"], stdin=file),
            subprocess.Popen(["sleep", "60"], cwd=tmp_path / "in"),
            subprocess.Popen(["sleep", "60"], cwd=tmp_path / "inside-not"),
        ]
    try:
        expected = {
            Holder(begun[0].pid, "sleep", "open files"),
            Holder(begun[1].pid, "sleep", "current folder"),
        }
        until(lambda: set(holders(str(tmp_path / "in"))) == expected)
    finally:
        for process in begun:
            process.kill()
            process.wait()


def test_no_memory_map_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """maps, cmdline and environ take the lock that a page fault in a stuck mount may hold."""
    opened: list[str] = []
    read_text = Path.read_text

    def noted(self: Path, *arguments: object, **more: object) -> str:
        opened.append(self.name)
        return read_text(self, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", noted)
    process = subprocess.Popen(["sleep", "60"], cwd=tmp_path)
    try:
        until(lambda: [one.pid for one in holders(os.path.realpath(tmp_path))] == [process.pid])
    finally:
        process.kill()
        process.wait()
    assert set(opened) == {"comm"}
