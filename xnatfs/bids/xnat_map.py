"""XNAT's BIDS maps: lists that say what series are called, kept in the configuration of a project or a site.

The converters in XNAT's containers read them, in two forms: descriptions with names (`series_description`, or
`xnat_field`, and `bidsname`), which must be the same but for case; and regular expressions (`pattern`, with
`suffix` and `modality`), which are asked afterwards. An entry without a name, and a series that is not in the
map, are not converted. Where a scan has no description its type is looked up.

Used by `lab_maps`.
Threading: immutable values; pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xnatfs.bids.bids_names import read_name, rule_of
from xnatfs.bids.mapping import Decider, Fields, Nowhere, Rule
from xnatfs.bids.patterns import NO_PATTERN, Bounded, Searching
from xnatfs.server.records import ScanRecord

_DESCRIPTIONS = ("series_description", "xnat_field")


@dataclass(frozen=True)
class XnatMap(Decider):
    """A map, or several put together.

    Attributes:
        exact: by description in lower case.
        patterns: what is asked afterwards, in order.
        whole: a series that is not in it has no place.
    """

    exact: Mapping[str, Rule | Nowhere]
    patterns: Sequence[tuple[Searching, Rule | Nowhere]]
    whole: bool = True

    def find(
        self, scan: ScanRecord, file: str | None, fields: Fields | None = None
    ) -> tuple[Rule, Mapping[str, str]] | Nowhere | None:
        """See `mapping.Decider`."""
        text = scan.series_description or scan.type
        found = self.exact.get(text.strip().lower()) or next(
            (entry for pattern, entry in self.patterns if pattern.search(text)), None
        )
        if found is None:
            return Nowhere("XNAT's BIDS map does not have its series description") if self.whole else None
        return found if isinstance(found, Nowhere) else (found, {})


def read_xnat_map(documents: Iterable[Any]) -> XnatMap:
    """A map from JSON documents; a later one wins.

    Raises:
        ValueError: one is not a BIDS map; a sentence.
    """
    exact: dict[str, Rule | Nowhere] = {}
    patterns: list[tuple[Searching, Rule | Nowhere]] = []
    for document in documents:
        entries = document["mappings"] if isinstance(document, dict) else document
        if not isinstance(entries, list) or not entries:
            raise ValueError("it is not a list of series")
        theirs: list[tuple[Searching, Rule | Nowhere]] = []
        for number, entry in enumerate(entries, 1):
            if not isinstance(entry, dict):
                raise ValueError(f"entry {number} is not an object")
            described = next((entry[name] for name in _DESCRIPTIONS if name in entry), None)
            if isinstance(described, str) and "pattern" not in entry:
                exact[described.strip().lower()] = _entry(entry, "bidsname", "", number)
            elif isinstance(entry.get("pattern"), str):
                found = _entry(entry, "suffix", entry.get("modality"), number)
                theirs.append((_compiled(entry["pattern"], number), found))
            else:
                raise ValueError(f"entry {number} has neither a series_description nor a pattern")
        patterns = theirs + patterns
    return XnatMap(exact, patterns)


def _entry(entry: Mapping[str, Any], key: str, datatype: Any, number: int) -> Rule | Nowhere:
    name = entry.get(key)
    if name is None or name == "":
        return Nowhere("XNAT's BIDS map leaves it out")
    if not isinstance(name, str) or not isinstance(datatype, str | None):
        raise ValueError(f"entry {number}: {key} is not a text")
    try:
        return rule_of(read_name(name, datatype or ""))
    except ValueError as error:
        return Nowhere(f"XNAT's BIDS map names it {name[:100]!r}, but {error}")


def _compiled(text: str, number: int) -> Searching:
    try:
        return Bounded(text)
    except NO_PATTERN as error:
        raise ValueError(f"entry {number}: {text[:100]!r} is not a regular expression: {error}") from None
