"""What xnatfs prints and logs: nothing in a name, a version or an error of a server reaches the terminal as a
command.
"""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatfs.cli import _Printable, doctor, main, status, table
from xnatfs.cli.format import say
from xnatfs.errors import Cause, Failure
from xnatfs.made_table import Made
from xnatfs.tables.spec import Column, Rows
from xnatfs.text import printable, printable_lines

EVIL = "\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202egpj.exe\ud800\x00\u2028"
REPORT: dict[str, Any] = {
    **{
        "mountpoint": "/mnt",
        "server": "https://h",
        "user": f"me{EVIL}",
        "pid": 1,
        "offline": False,
        "started": "now",
        "requests": 1,
    },
    **{
        "server_version": f"1.8{EVIL}",
        "errors": {"NO_ENTRY": 1},
        "last_error": {"when": 0.0, "text": EVIL},
        "oddities": 1,
    },
    "contents": {"cached files": 0, "cached bytes": 0, "cap": 1, "transfers": 0, "open files": 0},
    "allow_other": True,
}


def harmless(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


@given(st.text())
def test_what_is_printable_stays_and_nothing_else_gets_through(text: str) -> None:
    assert printable(text).isprintable()
    assert text.isprintable() <= (printable(text) == text)
    assert harmless(printable_lines(text))
    printable(text).encode()


def test_status_shows_a_servers_words_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    say(status._text(REPORT))
    shown = capsys.readouterr().out
    assert harmless(shown) and "\\x1b]0;owned" in shown
    assert len(shown.splitlines()) == len(
        status._text(
            dict(REPORT, user="me", server_version="", last_error={"when": 0, "text": ""})
        ).splitlines()
    )


def test_an_error_is_one_harmless_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise Failure(Cause.GONE, f"/data/{EVIL}", EVIL)

    monkeypatch.setattr("xnatfs.cli.cli.main", broken)
    with pytest.raises(SystemExit):
        main([])
    shown = capsys.readouterr().err
    assert harmless(shown) and len(shown.splitlines()) == 1


def test_doctor_prints_harmlessly(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    monkeypatch.setattr(doctor, "_machine", lambda: [])
    monkeypatch.setattr(doctor, "_server", lambda *_: [("ok", "server", f"an XNAT {EVIL}")])
    shown = CliRunner().invoke(doctor.command, []).output
    assert harmless(shown) and len(shown.splitlines()) == 1 and "owned" in shown


def test_a_log_has_one_harmless_line_a_message() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Printable("%(levelname)s %(message)s"))
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.warning("%s redirects to %s", EVIL, EVIL)
    try:
        raise ValueError(EVIL)
    except ValueError:
        logger.exception("broke: %s", EVIL)
    shown = stream.getvalue()
    assert harmless(shown)
    assert len([line for line in shown.splitlines() if "owned" in line]) >= 3
    assert shown.startswith("WARNING \\x1b") and "\nERROR broke: \\x1b" in shown


@pytest.mark.parametrize("terminal", [True, False])
def test_a_table_on_a_terminal_is_harmless_and_in_a_file_verbatim(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    cell = "\x1b]0;owned\x07é"
    made = Made("t", Rows((Column("a"),), [(cell,)]), Rows((Column("b"),)), {})
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    table._write(made, None, False)
    shown = stream.buffer.getvalue().decode()  # type: ignore[attr-defined]  # it is a BytesIO
    assert shown == ("a\n\\x1b]0;owned\\x07é\n" if terminal else f"a\n{cell}\n")


def test_the_files_of_the_control_room_are_harmless(tmp_path: Path) -> None:
    from xnatfs.diagnostics import Diagnostics
    from xnatfs.tree import status_files

    class Sources:
        diagnostics = Diagnostics()

    Sources.diagnostics.odd(EVIL)
    Sources.diagnostics.failed(Failure(Cause.GONE, EVIL, EVIL))
    for made in (
        status_files._errors(Sources),
        status_files._oddities(Sources),
        status_files._json({"a": EVIL}),
    ):  # type: ignore[arg-type]
        assert harmless(made.decode()) and b"owned" in made


def test_a_reason_in_a_problems_list_is_harmless() -> None:
    from types import SimpleNamespace

    from xnatfs.tables.engine.build import BuiltTable

    session = SimpleNamespace(
        experiment=SimpleNamespace(id="E", subject_label="s", label="l", date=""),
        problems=[EVIL],
    )
    # all that it looks at
    (row,) = BuiltTable.problems(SimpleNamespace(sessions=[session])).held  # type: ignore[arg-type]
    assert harmless(row[-1]) and "owned" in row[-1]
