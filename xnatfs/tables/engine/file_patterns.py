"""Which files of a resource a table reads: its shell patterns, filled in for a session.

Used by `known_paths` and `resource_reader`. Pure: no I/O, any thread.
"""

from __future__ import annotations

import fnmatch
import glob

from xnatfs.server.records import FileRecord
from xnatfs.tables.spec import Input, SessionInfo


def guessable(input: Input) -> bool:
    """Whether paths may be guessed: which is the newest of several files, or all, only a listing says."""
    return not input.several and input.prefer is None


def matches_best(input: Input, path: str, info: SessionInfo) -> bool:
    """Whether no file that an earlier pattern prefers can lie beside this one, unless it is of the same name
    in another folder.
    """
    patterns = filled_patterns(input, info)
    return fnmatch.fnmatchcase(path.rpartition("/")[2], patterns[0].rpartition("/")[2]) and any(
        fnmatch.fnmatchcase(path, pattern) for pattern in patterns
    )


def choose(input: Input, files: list[FileRecord], info: SessionInfo, problems: list[str]) -> list[FileRecord]:
    """The files to be read for an input, of those listed. If one of several had to be chosen, `problems` says
    so.
    """
    for pattern in filled_patterns(input, info):
        matching = [file for file in files if fnmatch.fnmatchcase(file.path, pattern)]
        if input.several or len(matching) < 2:
            if matching:
                return matching
            continue
        prefer = input.prefer
        # `prefer` gives a key that can be compared; its type does not say so
        best = matching[0] if prefer is None else max(matching, key=lambda file: prefer(file.path))  # type: ignore[arg-type, return-value]
        others = [file.path for file in matching if file is not best]
        problems.append(f"{len(matching)} files match; {best.path} was read, {', '.join(others[:3])} not")
        return [best]
    return []


def filled_patterns(input: Input, info: SessionInfo) -> list[str]:
    """The patterns of an input for a session, whose names stand for themselves."""
    escaped = SessionInfo(*(glob.escape(value) for value in (info.id, info.label, info.subject)))
    return [fill(pattern, escaped) for pattern in input.patterns]


def fill(shape: str, info: SessionInfo) -> str:
    """A path or pattern with the names of subject and session put in."""
    for placeholder, value in _placeholders(info):
        shape = shape.replace(placeholder, value)
    return shape


def shape_of(path: str, info: SessionInfo) -> str:
    """A path with the names of subject and session taken out, the longest first: `sub001_MR1` contains
    `sub001`.
    """
    for placeholder, value in sorted(_placeholders(info), key=lambda pair: -len(pair[1])):
        if value:
            path = path.replace(value, placeholder)
    return path


def _placeholders(info: SessionInfo) -> tuple[tuple[str, str], ...]:
    return ("{id}", info.id), ("{label}", info.label), ("{subject}", info.subject)
