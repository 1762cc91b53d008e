"""Runs several commands of bx in one process, because importing bx takes longer than most of its commands.

Run by `bx.py` with bx's own Python, never imported: `many.py CONFIG DEST`, and on standard input a JSON list
of `{"args": [...], "answers": [...]}`. Prints a JSON list: for each command the rows of its table, every
value as text, or the names of the files it left, or the error it ended with."""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def run(command: dict[str, Any], connection: Any, dest: Path) -> Any:
    answers = iter(command["answers"])
    setattr(builtins, "input", lambda *_: next(answers))  # noqa: B010 (mypy refuses the assignment)
    dest.mkdir()
    try:
        import_module("bx.parse").parse_args(command["args"][0], command["args"][1:], connection, str(dest))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    tables = list(dest.glob("bx_*.xlsx"))
    if len(tables) != 1:
        return sorted(path.name for path in dest.iterdir())
    rows = list(import_module("openpyxl").load_workbook(tables[0]).active.values)
    return [
        dict(zip(rows[0], ["" if value is None else str(value) for value in row], strict=True))
        for row in rows[1:]
    ]


def main() -> None:
    os.environ["BX_DUMP"] = "1"  # no prompts for what has a default
    connection = import_module("pyxnat").Interface(config=sys.argv[1])
    found = []
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        for number, command in enumerate(json.load(sys.stdin)):
            found.append(run(command, connection, Path(sys.argv[2]) / str(number)))
    connection.disconnect()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
