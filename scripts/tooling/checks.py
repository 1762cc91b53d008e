"""Comparisons that many rows share: each says what it found, or raises `WrongError`.

Each function makes a check, from what the row expects. One thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tooling.program import MOUNT, Attempt, Program, WrongError

Check = Callable[[Program, Attempt], str]


def amount(files: dict[str, bytes]) -> str:
    """So many files, so many bytes."""
    size = sum(map(len, files.values()))
    many = f"{len(files)} files" if len(files) != 1 else "1 file"
    return f"{many}, {size / 1e6:.1f} MB" if size >= 100_000 else f"{many}, {size:,} bytes"


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def equal(what: str, found: object, true: object) -> None:
    """WrongError if they differ."""
    if found != true:
        raise WrongError(f"{what}: {str(found)[:200]!r} instead of {str(true)[:200]!r}")


def same_files(found: dict[str, bytes], true: dict[str, bytes]) -> str:
    """Two sets of files are the same."""
    if not true:
        raise WrongError("there is nothing to compare with")
    if lacking := sorted(true.keys() - found.keys()):
        raise WrongError(f"{len(lacking)} of {len(true)} files are missing: {lacking[0]} ...")
    if more := sorted(found.keys() - true.keys()):
        raise WrongError(f"{len(more)} files too many: {more[0]} ...")
    if other := sorted(name for name, data in true.items() if found[name] != data):
        raise WrongError(f"{len(other)} of {len(true)} files have other bytes: {other[0]} ...")
    return f"{amount(true)}, every byte true"


def copied(source: str, target: str) -> Check:
    """A folder of the mount, given as `~/xnat/...`, is at `target` with all its files."""
    return lambda _, attempt: same_files(tree(attempt.work / target), tree(true_path(attempt, source)))


def one_file(source: str, target: str) -> Check:
    """The same for one file."""

    def check(_: Program, attempt: Attempt) -> str:
        true = true_path(attempt, source)
        return same_files({true.name: (attempt.work / target).read_bytes()}, {true.name: true.read_bytes()})

    return check


def unpacked(source: str, command: str, target: str) -> Check:
    """Once `command` has unpacked an archive or restored a backup, it is the folder `source`."""

    def check(program: Program, attempt: Attempt) -> str:
        attempt.run(command)
        return copied(source, target)(program, attempt)

    return check


def both(first: Check, second: Check) -> Check:
    """Two checks."""

    def check(program: Program, attempt: Attempt) -> str:
        return f"{first(program, attempt)}; {second(program, attempt)}"

    return check


def same_output(contains: str = "", what: str = "lines") -> Check:
    """It prints what it prints on the true files: something that has `contains` (an expression) in it."""

    def check(program: Program, attempt: Attempt) -> str:
        true = attempt.on_copy(program.command).output
        if not re.search(contains, true, re.MULTILINE) or not true.strip():
            raise WrongError(f"it does not print {contains!r} on the true files either: {true[:200]!r}")
        found, wanted = attempt.output.splitlines(), true.splitlines()
        for line, other in zip(found, wanted, strict=False):
            equal("it prints", line, other)
        equal("number of lines", len(found), len(wanted))
        return (
            f"{len(wanted):,} {what}, as on a local disk"
            if len(wanted) > 1
            else "the same as on a local disk"
        )

    return check


def prints(*lines: str) -> Check:
    """It prints these lines."""

    def check(_: Program, attempt: Attempt) -> str:
        found = [" ".join(line.split()) for line in attempt.output.strip().splitlines()]
        equal("it prints", found, list(lines))
        return f"prints `{' '.join(lines)}`, which is true"

    return check


def prints_nothing(says: str) -> Check:
    """It prints nothing, and that means what is said."""

    def check(_: Program, attempt: Attempt) -> str:
        equal("it prints", attempt.output, "")
        return says

    return check


def same_made(pattern: str) -> Check:
    """It makes what it makes of the true files: the files of this pattern are equal byte by byte."""

    def check(program: Program, attempt: Attempt) -> str:
        true = attempt.on_copy(program.command).work
        made = {path.name: path.read_bytes() for path in attempt.work.glob(pattern)}
        return "makes " + same_files(made, {path.name: path.read_bytes() for path in true.glob(pattern)})

    return check


def shows(*expressions: str) -> Check:
    """Its screen shows these."""

    def check(_: Program, attempt: Attempt) -> str:
        for expression in expressions:
            if not re.search(expression, attempt.output, re.MULTILINE):
                raise WrongError(f"its screen does not show {expression!r}: {attempt.output[-600:]!r}")
        return "its screen shows what is true"

    return check


def true_path(attempt: Attempt, path: str) -> Path:
    """Where the true files of a path of the mount are."""
    below = path.removeprefix(f"{MOUNT}/")
    assert below != path, path
    return attempt.copy / below
