"""A lab's own mapping as a map: what it has written for the program that converts its scans.

Used by `tree.bids_maps`, which finds the files; what a file is shows in its shape. What such a mapping does
not name has no place in the dataset, as with the program it was written for; unless it is the site's alone,
which may not have been written for this project. Code in it is never run.
Threading: pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from xnatfs.bids.bidskit import Translator, read_translator
from xnatfs.bids.dcm2bids import Dcm2Bids, read_dcm2bids
from xnatfs.bids.mapping import LAST, RUNS, BidsMap, MapSource
from xnatfs.bids.reproin import ReproIn, all_named
from xnatfs.bids.xnat_map import XnatMap, read_xnat_map
from xnatfs.server.records import ScanRecord

DCM2BIDS, BIDS_MAP, REPROIN, BIDSKIT = "dcm2bids", "bidsmap", "reproin", "bidskit"
ORDER = (DCM2BIDS, BIDS_MAP, REPROIN, BIDSKIT)


class LabFile(NamedTuple):
    """A mapping file of a lab.

    Attributes:
        source: where it was, its text, and its name.
        site: it is for all projects of the server.
    """

    source: MapSource
    site: bool = False


class _Document(NamedTuple):
    file: LabFile
    kind: str
    content: Any


class LabMap(NamedTuple):
    """The mapping that is used, if any, and a sentence for each file that cannot be."""

    map: BidsMap | None
    problems: list[str]


def lab_map(
    files: Sequence[LabFile],
    scans: Iterable[ScanRecord] | None,
    wanted: Sequence[str] = ORDER,
    reproin: bool | None = None,
) -> LabMap:
    """The first mapping of `ORDER` that there is.

    Args:
        files: the project's own before the site's.
        scans: all scans of the project; None if they are not known.
        wanted: which mappings are looked for.
        reproin: the names of scans say what they are; None: if all of them do.
    """
    problems: list[str] = []
    documents: list[_Document] = []
    for file in files:
        try:
            content = json.loads(file.source.text.removeprefix("\ufeff"))
            documents.append(_Document(file, _kind_of(content), content))
        except (ValueError, RecursionError) as error:
            problems.append(f"{file.source.where} is not used: {_sentence(error)}")
    for kind in ORDER:
        if kind not in wanted:
            continue
        if kind == REPROIN:
            if reproin or (reproin is None and scans is not None and all_named(scans)):
                return LabMap(_reproin(bool(reproin)), problems)
            continue
        while theirs := [document for document in documents if document.kind == kind]:
            used = _used(theirs)
            try:
                return LabMap(_read(kind, used), problems)
            except _Unreadable as error:
                where = error.document.file.source.where
                problems.append(f"{where} is not used: {error}")
                documents.remove(error.document)
    return LabMap(None, problems)


class _Unreadable(Exception):
    def __init__(self, document: _Document, error: Exception) -> None:
        super().__init__(_sentence(error))
        self.document = document


def _used(documents: Sequence[_Document]) -> list[_Document]:
    """Of the project's own the first; of BIDS maps the site's below it."""
    own = [document for document in documents if not document.file.site][:1]
    site = [document for document in documents if document.file.site][:1]
    return [*site, *own] if documents[0].kind == BIDS_MAP else (own or site)


def _read(kind: str, documents: Sequence[_Document]) -> BidsMap:
    decider: XnatMap | Dcm2Bids | Translator
    repeats = RUNS
    for document in documents:  # one by one, to know which is wrong
        try:
            if kind == DCM2BIDS:
                decider, repeats = read_dcm2bids(document.content)
            elif kind == BIDSKIT:
                decider = read_translator(document.content)
            else:
                decider = read_xnat_map([document.content])
        except (ValueError, RecursionError) as error:
            raise _Unreadable(document, error) from None
    if kind == BIDS_MAP:
        decider = read_xnat_map([document.content for document in documents])
    if not isinstance(decider, Translator) and all(document.file.site for document in documents):
        decider = replace(decider, whole=False)
    sources = tuple(document.file.source for document in reversed(documents))
    return BidsMap((decider,), sources=sources, repeats=repeats)


def _reproin(chosen: bool) -> BidsMap:
    why = "by choice" if chosen else "all scans of the project have them"
    return BidsMap((ReproIn(chosen),), sources=(MapSource(f"ReproIn's names ({why})", "", ""),), repeats=LAST)


def _kind_of(content: Any) -> str:
    if isinstance(content, list):
        return BIDS_MAP
    if isinstance(content, dict) and content:
        if "descriptions" in content:
            return DCM2BIDS
        if isinstance(content.get("mappings"), list):
            return BIDS_MAP
        if all(isinstance(entry, list) for entry in content.values()):
            return BIDSKIT
    raise ValueError(
        "it is neither a dcm2bids configuration, nor a BIDS map of XNAT's, nor bidskit's translator"
    )


def _sentence(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON ({error.msg}, line {error.lineno})"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:300]
