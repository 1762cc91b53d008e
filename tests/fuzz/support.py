"""What the fuzz tests share: how long they go on, strategies for documents that are almost right, and the
bound on memory.

In the suite each test makes a few examples, the same at every run. `scripts/fuzz` sets

    XNATFS_FUZZ_EXAMPLES   examples of a test, other ones at every run
    XNATFS_FUZZ_DATABASE   where hypothesis keeps what it found
"""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

T = TypeVar("T")
MIB = 1 << 20
EXAMPLES = int(os.environ.get("XNATFS_FUZZ_EXAMPLES", "0"))
_DATABASE = os.environ.get("XNATFS_FUZZ_DATABASE", "")
_BASE = 24 * MIB  # what a parser may take of a small document: blocks of an image are 2 MiB each
_TIMES = 200  # bytes of memory for each byte of a document: a row of a table as Python objects

FUZZ = settings(
    max_examples=EXAMPLES or 25,
    derandomize=not EXAMPLES,
    database=DirectoryBasedExampleDatabase(_DATABASE) if _DATABASE else None,
    deadline=20_000
    if EXAMPLES
    else None,  # milliseconds: no endless loop; in the suite pytest's own limit does
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


def bounded(size: int, parse: Callable[[], T]) -> T:
    """What `parse` gives of a document of `size` bytes; AssertionError if it takes much more memory than
    that.
    """
    tracemalloc.start()
    try:
        found = parse()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= _BASE + _TIMES * size, f"{peak / MIB:.0f} MiB of memory for {size} bytes"
    return found


# --- texts and values ---------------------------------------------------------------------------------------

SURROGATES = st.text(
    st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010, exclude_categories=()), max_size=4
)
ODD_TEXTS = st.one_of(
    st.text(max_size=12),
    SURROGATES,
    st.sampled_from(
        (
            *(
                "",
                " ",
                ".",
                "..",
                "/",
                "../x",
                "a/../b",
                "/etc/passwd",
                "\0",
                "a\0b",
                "\x1b[2J",
                "\u202e",
                "\ufeff",
                "\x85",
                "\u2028",
            ),
            *(
                "%",
                "%2F",
                "%~",
                "%25",
                "CON",
                "x" * 256,
                "ä" * 200,
                "\U0001f9e0" * 70,
                "-",
                "--help",
                "~",
                "\r\n",
                "<html>",
                "NaN",
            ),
            *(
                "²",
                "٣",
                "\uff11\uff12",
                "1_000",
                " 7 ",
                "+5",
                "-5",
                "0x10",
                "1e400",
                "9" * 19,
                "9" * 400,
                "9" * 5000,
                "-" + "9" * 30,
                "inf",
                "nan",
            ),
        )
    ),
)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from((0, -1, 2**31, 2**63 - 1, 2**63, 10**400, -0.0, 1e308, float("nan"), float("inf"))),
)
JUNK: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    ODD_TEXTS,
    st.lists(st.none() | NUMBERS | ODD_TEXTS, max_size=3),
    st.dictionaries(ODD_TEXTS, st.none() | ODD_TEXTS, max_size=3),
    st.just([[]]),
    st.just({}),
)

# Stands for what `json.dumps` cannot write: thousands of brackets, and numbers of thousands of digits.
_DEEP = {
    "@deep-list@": "[" * 100_000 + "]" * 100_000,
    "@deep-dict@": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "@digits@": "1" * 5000,
}
_DEEPISH = {"@900@": "[" * 900 + "]" * 900, "@400@": '{"a":' * 400 + "1" + "}" * 400}


@st.composite
def changed(draw: st.DrawFn, documents: st.SearchStrategy[Any]) -> Any:
    """A JSON value with some of its parts replaced, dropped, renamed or doubled."""
    document = json.loads(json.dumps(draw(documents)))
    for _ in range(draw(st.integers(0, 3))):
        document = _change(draw, document)
    return document


def _change(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        what = draw(st.sampled_from(("into", "into", "into", "drop", "rename", "junk")))
        if what == "into":
            return {**value, key: _change(draw, value[key])}
        rest = {name: one for name, one in value.items() if name != key}
        return (
            rest
            if what == "drop"
            else {**rest, draw(ODD_TEXTS): value[key]}
            if what == "rename"
            else {**value, key: draw(JUNK)}
        )
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        what = draw(st.sampled_from(("into", "into", "into", "drop", "double", "junk")))
        if what == "into":
            return [*value[:at], _change(draw, value[at]), *value[at + 1 :]]
        middle = {"drop": [], "double": [value[at]] * 2, "junk": [draw(JUNK)]}[what]
        return [*value[:at], *middle, *value[at + 1 :]]
    return draw(st.one_of(JUNK, st.sampled_from((*_DEEP, *_DEEPISH))))


def as_json(value: Any) -> bytes:
    """JSON as a server might send it: NaN, lone surrogates, endless nesting and numbers included."""
    text = json.dumps(value)
    for name, meant in (_DEEP | _DEEPISH).items():
        text = text.replace(f'"{name}"', meant)
    return text.encode()


# --- bytes --------------------------------------------------------------------------------------------------

TOKENS = (
    *(
        b"",
        b"\0",
        b"\xff",
        b"\xfe\xff",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\n",
        b"\r",
        b"\t",
        b",",
        b'"',
        b"'",
        b"#",
        b" ",
        b"\x1c",
        b"\x85",
    ),
    *(
        b"nan",
        b"inf",
        b"-1",
        b"1e400",
        b"9" * 400,
        b"9" * 5000,
        b"0",
        b"\xc2\xb2",
        b"\xd9\xa3",
        b"<html>",
        b"<!DOCTYPE",
        b"[" * 3000,
    ),
    *(
        b"\x00" * 64,
        b"\xff" * 8,
        b"\xff\xff\xff\x7f",
        b"PK\x03\x04",
        b"PK\x01\x02",
        b"PK\x05\x06",
        b"PK\x07\x08",
        b"\x1f\x8b\x08",
    ),
    *(
        b"\xed\xa0\x80",
        b"\\ud800",
        b"# Measure",
        b"# ColHeaders StructName",
        b"# NRows 99999999999999999999",
        b"=cmd()",
    ),
)


@st.composite
def damaged(draw: st.DrawFn, documents: st.SearchStrategy[bytes], most: int = 3) -> bytes:
    """Bytes that are cut anywhere, have others flipped, put in, taken out or doubled, or are spliced with
    another document.
    """
    data = draw(documents)
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, len(data)))
        to = draw(st.integers(at, min(len(data), at + 64)) | st.integers(at, len(data)))
        what = draw(
            st.sampled_from(("cut", "behead", "remove", "double", "token", "over", "flip", "flip", "splice"))
        )
        if what == "cut":
            data = data[:at]
        elif what == "behead":
            data = data[at:]
        elif what == "remove":
            data = data[:at] + data[to:]
        elif what == "double":
            data = data[:to] + data[at:]
        elif what == "token":
            data = data[:at] + draw(st.sampled_from(TOKENS)) + data[at:]
        elif what == "over":
            token = draw(st.sampled_from(TOKENS) | st.binary(max_size=8))
            data = data[:at] + token + data[at + len(token) :]
        elif what == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
        elif what == "splice":
            other = draw(documents)
            data = data[:at] + other[draw(st.integers(0, len(other))) :]
    return data
