"""bidskit's `Protocol_Translator.json`: series descriptions with a folder, a name, and what a field map is
for.

A folder or name that begins with EXCLUDE leaves the series out; so does a series that is not in the file. A
field map may have no suffix: which image it is then stands in the names of its files.

Used by `lab_maps`.
Threading: immutable values; pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xnatfs.bids.bids_names import read_name, rule_of
from xnatfs.bids.mapping import Decider, Fields, Intent, Nowhere, Rule
from xnatfs.bids.patterns import pattern
from xnatfs.bids.schema import KINDS
from xnatfs.server.records import ScanRecord

_PHASE = pattern(r"re:_ph\.nii")


@dataclass(frozen=True)
class Translator(Decider):
    """A translator, by series description."""

    entries: Mapping[str, Sequence[Rule] | Nowhere]

    def find(
        self, scan: ScanRecord, file: str | None, fields: Fields | None = None
    ) -> tuple[Rule, Mapping[str, str]] | Nowhere | None:
        """See `mapping.Decider`."""
        found = self.entries.get(_plain(scan.series_description))
        if found is None:
            return Nowhere("bidskit's translator does not have its series description")
        if isinstance(found, Nowhere):
            return found
        return next((rule, {}) for rule in found if rule.fits(scan, file) is not None)


def read_translator(document: Any) -> Translator:
    """A translator from a JSON document.

    Raises:
        ValueError: it is none; a sentence.
    """
    entries: dict[str, Sequence[Rule] | Nowhere] = {}
    for description, entry in document.items():
        if (
            not isinstance(entry, list)
            or len(entry) < 2
            or not all(isinstance(one, str) for one in entry[:2])
        ):
            raise ValueError(f"{description[:100]!r} has no list of a folder and a name")
        folder, name = entry[:2]
        if folder.startswith("EXCLUDE") or name.startswith("EXCLUDE"):
            entries[_plain(description)] = Nowhere("bidskit's translator excludes it")
            continue
        meant = entry[2] if len(entry) > 2 else []
        meant = [meant] if isinstance(meant, str) else meant
        if not isinstance(meant, list) or not all(isinstance(one, str) for one in meant):
            raise ValueError(f"{description[:100]!r}: what it is for is not a list of names")
        intent = Intent(names=tuple(one for one in meant if not re.match("UNASSIGN|EXCLUDE", one)))
        try:
            entries[_plain(description)] = _rules(folder, name, intent)
        except ValueError as error:
            entries[_plain(description)] = Nowhere(
                f"bidskit's translator names it {folder[:100]}/{name[:100]}, but {error}"
            )
    return Translator(entries)


def _rules(folder: str, name: str, intent: Intent) -> list[Rule]:
    if folder != "fmap" or name.rpartition("_")[2] in KINDS["fmap"]:
        return [rule_of(read_name(name, folder), intent=intent)]
    phase = rule_of(read_name(f"{name}_phasediff", folder), intent=intent)
    return [
        replace(phase, patterns={"file": (_PHASE,)}),
        rule_of(read_name(f"{name}_magnitude1", folder), intent=intent),
    ]


def _plain(description: str) -> str:
    """As in the names of dcm2niix, which has `_` for what a file name should not have."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", description).strip("_").lower()
