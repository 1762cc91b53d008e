"""Reads the first sheet of a workbook as texts.

Used by `lcmodel`. Plain functions, any thread.

ECMA-376 part 1, 18.3 and 18.4: a zip of XML files. Numbers keep the text they are stored with, which a
library that turns them into floats does not promise; that, and one dependency less, is why this is not
openpyxl. Dates stay serial numbers: no table here has one.
"""

from __future__ import annotations

import lzma
import re
import struct
import zipfile
import zlib
from typing import BinaryIO
from xml.etree import ElementTree

from xnatfs.tables.spec import ParseError

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_STRICT = "{http://purl.oclc.org/ooxml/spreadsheetml/main}"
_CELL = re.compile(r"([A-Z]{1,3})(\d{1,7})")
_MAX_MEMBER_BYTES = 64 * 2**20  # of one member, unpacked
_MAX_CELLS = 2**21  # with the empty ones between: a cell ZZZ1 makes its whole row 18,278 wide
# What zipfile, its decompressors and expat raise for what they do not understand; an encoding that expat does
# not know is a LookupError.
_DAMAGE = (
    *(
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        EOFError,
        OSError,
        ElementTree.ParseError,
    ),
    *(NotImplementedError, RuntimeError, OverflowError, ValueError, LookupError),
)


def first_sheet(stream: BinaryIO) -> list[list[str]]:
    """The rows of the first sheet, all as long as the longest; empty rows are left out.

    Raises:
        ParseError: it is not a workbook, or damaged.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            names = archive.namelist()
            sheets = sorted(
                (name for name in names if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", name)), key=_count
            )
            if not sheets:
                raise ParseError("it is not a workbook: it has no sheet")
            shared = _shared(archive) if "xl/sharedStrings.xml" in names else []
            return _rows(_root(archive, sheets[0]), shared)
    except ParseError:
        raise
    except _DAMAGE as error:
        raise ParseError(f"it is not a workbook, or damaged ({str(error)[:80]})") from None


def _count(name: str) -> tuple[int, str]:
    return len(name), name


def _root(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    with archive.open(name) as member:
        data = member.read(_MAX_MEMBER_BYTES + 1)
    if len(data) > _MAX_MEMBER_BYTES:
        raise ParseError("it is not a workbook of the kind a pipeline writes")
    parser = ElementTree.XMLParser(target=_NoEntities())
    return ElementTree.fromstring(data.replace(_STRICT[1:-1].encode(), _MAIN[1:-1].encode()), parser)


class _NoEntities(ElementTree.TreeBuilder):
    """Refuses entities of a document's own, which can make gigabytes of a line: where they are declared, in
    whatever encoding.
    """

    def doctype(self, *_: str | None) -> None:
        """Called for a DOCTYPE, which has the declarations in it."""
        raise ParseError("it is not a workbook of the kind a pipeline writes")


def _text(element: ElementTree.Element) -> str:
    """The text of a string item: of its runs, without the phonetic ones."""
    direct = element.find(f"{_MAIN}t")
    parts = [direct] if direct is not None else element.findall(f"{_MAIN}r/{_MAIN}t")
    return "".join(part.text or "" for part in parts)


def _shared(archive: zipfile.ZipFile) -> list[str]:
    return [_text(item) for item in _root(archive, "xl/sharedStrings.xml").findall(f"{_MAIN}si")]


def _rows(root: ElementTree.Element, shared: list[str]) -> list[list[str]]:
    rows: list[dict[int, str]] = []
    for row in root.iterfind(f"{_MAIN}sheetData/{_MAIN}row"):
        cells: dict[int, str] = {}
        at = -1
        for cell in row.iterfind(f"{_MAIN}c"):
            at = _column(cell.get("r", ""), at + 1)
            if value := _value(cell, shared):
                cells[at] = value
        if cells:
            rows.append(cells)
    width = max((max(cells) for cells in rows), default=-1) + 1
    if width * len(rows) > _MAX_CELLS:
        raise ParseError(f"it has {len(rows):,} rows and {width:,} columns, which no pipeline writes")
    return [[cells.get(at, "") for at in range(width)] for cells in rows]


def _column(reference: str, following: int) -> int:
    """The column of a cell `AB12`, from 0; the following one where the cell does not say."""
    match = _CELL.fullmatch(reference)
    if not match:
        return following
    at = 0
    for letter in match[1]:
        at = at * 26 + ord(letter) - ord("A") + 1
    return at - 1


def _value(cell: ElementTree.Element, shared: list[str]) -> str:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        inline = cell.find(f"{_MAIN}is")
        return _text(inline) if inline is not None else ""
    element = cell.find(f"{_MAIN}v")
    text = (element.text or "") if element is not None else ""
    if kind == "s":
        if not (text.isascii() and text.isdecimal()) or len(text) > 9 or int(text) >= len(shared):
            raise ParseError("it is a damaged workbook: a text is missing")
        return shared[int(text)]
    if kind == "b":
        return "true" if text == "1" else "false"
    return "" if kind == "e" else text  # an error such as #N/A is a missing value
