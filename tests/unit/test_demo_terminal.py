"""How `xnatfs demo` waits, runs commands and draws, without a demo."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest
from rich.console import Console

from xnatfs.cli.demo_picture import Slice, beside_the_tree
from xnatfs.cli.demo_terminal import Command, Ended, Terminal, program
from xnatfs.errors import UsageError


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    made = Terminal(str(tmp_path), threading.Event())
    made.console = Console(file=io.StringIO(), width=40)
    return made


def shown(terminal: Terminal) -> str:
    assert isinstance(terminal.console.file, io.StringIO)
    return terminal.console.file.getvalue()


@pytest.mark.parametrize(
    ("typed", "goes_on"), [("\n", True), ("next\n", True), ("q\n", False), (" Quit\n", False), ("", False)]
)
def test_enter_goes_on_and_q_ends_it(terminal: Terminal, typed: str, goes_on: bool) -> None:
    reading, writing = os.pipe()
    os.write(writing, typed.encode())
    os.close(writing)  # as Ctrl-D
    with os.fdopen(reading) as stream:
        assert terminal.pause("", stream) is goes_on


def test_ctrl_c_ends_a_pause(terminal: Terminal) -> None:
    reading, writing = os.pipe()
    threading.Timer(0.1, terminal._ended.set).start()
    with os.fdopen(reading) as stream, pytest.raises(Ended):
        terminal.pause("", stream)
    os.close(writing)


def test_without_a_person_nothing_waits(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert terminal.pause("")


def test_a_command_is_shown_with_what_it_prints_cut_to_size(terminal: Terminal) -> None:
    terminal.run(Command("seq 5; printf 'a\\tb\\033[31m\\n'; printf '%0200d\\n' 0", lines=7))
    lines = shown(terminal).splitlines()
    assert lines[1:7] == ["1", "2", "3", "4", "5", "a       b\\x1b[31m"]
    assert lines[7] == "0" * 77 + "..."
    terminal.run(Command("seq 5", lines=2))
    assert shown(terminal).splitlines()[-3:] == ["1", "2", "... 3 more lines"]


@pytest.mark.parametrize(("text", "refused"), [("false", False), ("true", True)])
def test_a_command_that_does_not_end_as_it_should_is_an_error(
    terminal: Terminal, text: str, refused: bool
) -> None:
    with pytest.raises(UsageError, match="failed on the mount"):
        terminal.run(Command(text, refused=refused))


def test_ctrl_c_ends_a_command_with_all_it_started(terminal: Terminal) -> None:
    threading.Timer(0.2, terminal._ended.set).start()
    with pytest.raises(Ended):
        terminal.run(Command("sleep 61 & sleep 62; wait"))


def test_programs_are_named_so_that_a_shell_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a venv"
    folder.mkdir()
    (folder / "xnatfs").write_text("#!/bin/sh\n")
    (folder / "xnatfs").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert program() == f"'{folder}/xnatfs'"
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    assert program() == "xnatfs"
    (folder / "xnatfs").unlink()
    assert program() == f"'{folder}/python' -m xnatfs"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A bright box, in the front of the left half, inside a folder of an image's own."""
    data = np.zeros((20, 20, 3), dtype=np.int16)
    data[2:8, 12:18, :] = 100
    path = tmp_path / "S/SCANS/1/NIFTI/i.nii.gz"
    path.parent.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), path)
    for number in range(9):
        (tmp_path / f"S/SCANS/other{number}").mkdir()
    return path


def test_a_slice_is_drawn_with_the_front_up(image: Path) -> None:
    console = Console(file=io.StringIO(), width=60, color_system=None)
    with console.capture() as captured:
        console.print(Slice(nibabel.load(image)))
    rows = captured.get().splitlines()
    bright = [
        (row, column) for row, line in enumerate(rows) for column, char in enumerate(line) if char == "@"
    ]
    assert bright and max(row for row, _ in bright) < len(rows) / 2
    assert max(column for _, column in bright) < len(rows[0]) / 2


@pytest.mark.parametrize(
    ("settings", "blocks"),
    [
        ({"color_system": "truecolor"}, True),
        ({"color_system": "256"}, True),
        ({"color_system": "standard"}, False),
        ({"color_system": "truecolor", "no_color": True}, False),
    ],
)
def test_half_blocks_are_for_terminals_with_shades_of_grey(
    image: Path, settings: dict[str, object], blocks: bool
) -> None:
    console = Console(file=io.StringIO(), width=60, force_terminal=True, **settings)  # type: ignore[arg-type]
    with console.capture() as captured:
        console.print(Slice(nibabel.load(image)))
    assert ("\u2580" in captured.get()) is blocks and ("@" in captured.get()) is not blocks


def test_the_picture_is_beside_the_way_to_it(image: Path, tmp_path: Path) -> None:
    grid, sentence = beside_the_tree(tmp_path, "S/", image)
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with console.capture() as captured:
        console.print(grid)
    text = captured.get()
    assert all(name in text for name in ("S/", "SCANS", "NIFTI", "i.nii.gz", "... 4 more")) and "@" in text
    assert sentence == "nibabel reads i.nii.gz: 20 x 20 x 3 voxels of 1 x 1 x 1 mm, int16"
