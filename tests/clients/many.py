"""Runs several commands of bx in one process, because importing bx takes longer than most of its commands.

Run by `bx.py` with bx's own Python, never imported: `many.py CONFIG DEST`, and on standard input a JSON list
of `{"args": [...], "answers": [...]}`. Prints a JSON list: for each command the rows of its table, every
value as text, or the names of the files it left, or the error it ended with.

bx asks for each scan of a project again in every command; the server does not change meanwhile, so the second
time it is answered from memory: most of the time of these tests was that."""

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


def remember_answers(connection: Any) -> None:
    """Let its HTTP session answer a GET it has answered before."""
    adapters = import_module("requests.adapters")
    answered: dict[tuple[str, str], Any] = {}

    class Remembering(adapters.HTTPAdapter):  # type: ignore[misc, name-defined]
        def send(self, request: Any, stream: bool = False, **others: Any) -> Any:
            key = (request.url, str(request.headers.get("Range")))
            if request.method != "GET":
                answered.clear()
            elif not stream and key in answered:
                return answered[key]
            response = super().send(request, stream=stream, **others)
            if request.method == "GET" and not stream and response.content is not None:
                answered[key] = response
            return response

    connection._http.mount("http://", Remembering())


def main() -> None:
    os.environ["BX_DUMP"] = "1"  # no prompts for what has a default
    connection = import_module("pyxnat").Interface(config=sys.argv[1])
    remember_answers(connection)
    found = []
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        for number, command in enumerate(json.load(sys.stdin)):
            found.append(run(command, connection, Path(sys.argv[2]) / str(number)))
    connection.disconnect()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
