"""ReproIn: what a scan is called at the scanner says what it is, `func_task-rest_acq-mb8_run-1__free text`.

The convention of ReproNim and heudiconv: a datatype, a suffix where it is not the usual one, entities, and
after `__` whatever one likes. A prefix such as `PU:` and Philips' `WIP ` do not count; a session in the name
is left to XNAT's. Of two scans with one name the last is meant. `run+` counts.

Used by `lab_maps`.
Threading: immutable values; pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xnatfs.bids.bids_names import read_name, rule_of
from xnatfs.bids.file_names import legal
from xnatfs.bids.mapping import COUNTED, LAST, Decider, Fields, Nowhere, Rule
from xnatfs.server.records import ScanRecord

_PREFIX = re.compile(r"\A\s*(?:[A-Z]+:|WIP[ _]+)*\s*", re.IGNORECASE)
_HEAD = re.compile(r"(anat|func|dwi|fmap)(?:-([A-Za-z0-9]+))?(?=_|\Z)")
_USUAL = {"func": "bold", "dwi": "dwi"}
_SCOUT = frozenset({"scout", "localizer"})
_NO_IMAGE = Nowhere("a localizer")
_PHASE = re.compile(r"_ph\.nii", re.IGNORECASE)


@dataclass(frozen=True)
class ReproIn(Decider):
    """The names of scans as rules. `chosen`: a scan that has no such name has no place."""

    chosen: bool

    def find(
        self, scan: ScanRecord, file: str | None, fields: Fields | None = None
    ) -> tuple[Rule, Mapping[str, str]] | Nowhere | None:
        """See `mapping.Decider`."""
        found = read_reproin(scan.series_description or scan.type, file)
        if found is None:
            return Nowhere("its name is not one of ReproIn's") if self.chosen else None
        return found if isinstance(found, Nowhere) else (found, {})


def all_named(scans: Iterable[ScanRecord]) -> bool:
    """Whether all scans have names of ReproIn, and at least one that is no localizer."""
    found = [read_reproin(scan.series_description or scan.type, None) for scan in scans]
    named = [one for one in found if isinstance(one, Rule)]
    return bool(named) and len(named) + found.count(_NO_IMAGE) == len(found)


def read_reproin(name: str, file: str | None) -> Rule | Nowhere | None:
    """The rule that a name is, for an image with this file name; why it has no place; None: it is no such
    name.
    """
    text = _PREFIX.sub("", name).split("__", 1)[0].strip(" _")
    head = _HEAD.match(text)
    if head is None:
        return None
    datatype, suffix = head[1], head[2] or _USUAL.get(head[1], "")
    if suffix in _SCOUT:
        return _NO_IMAGE
    parts, counts = [], False
    for part in filter(None, text[head.end() :].split("_")):
        if part == "run+":
            counts = True
        elif part == "run=":
            return Nowhere("run= in its name means the run of another scan; write the number")
        elif part.lower() == "sbref":  # which the scanner appends
            suffix = "sbref"
        elif re.fullmatch(r"magnitude|phase|ses([-+=].*)?", part):
            continue
        elif re.fullmatch(r"[a-z]+-.*", part) and legal(part.partition("-")[2]):
            parts.append(part)
        else:
            return None
    if datatype == "fmap" and not suffix:
        direction = any(part.startswith("dir-") for part in parts)
        phase = file is not None and _PHASE.search(file)
        suffix = "epi" if direction else "phasediff" if phase else "magnitude1"
    if not suffix:
        return None
    try:
        return rule_of(read_name("_".join([*parts, suffix]), datatype), repeats=COUNTED if counts else LAST)
    except ValueError as error:
        return Nowhere(f"its name is one of ReproIn's, but {error}")
