"""What is known of the people of a BIDS dataset, in BIDS's words: age, sex, handedness, group and more, for
`participants.tsv` and `sessions.tsv`.

Used by `tree.bids_people`. What BIDS has no word for ("unknown", a negative age) is `n/a`; ages of 89 and
more are `89+`, as BIDS recommends. A column that nobody has a value for is left out.
Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xnatfs.server.detail_requests import DetailListing

_AGE = {"Description": "Age at the first session", "Units": "year"}
SESSION_AGE = {"Description": "Age at the session", "Units": "year"}
_SEX = {"male": ("male", "m"), "female": ("female", "f", "w"), "other": ("other", "o")}
_HANDS = {"right": ("right", "r"), "left": ("left", "l"), "ambidextrous": ("ambidextrous", "a")}
_OLDEST = 89
_NUMBER = re.compile(r"([>\u2265]=?)?\s*([0-9]+(?:\.[0-9]+)?)\s*(\+)?")


@dataclass
class ParticipantTable:
    """Columns of a table and their cells.

    Attributes:
        columns: what its JSON says of each, in order.
        of: the cells by column, of each accession id.
    """

    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    of: dict[str, dict[str, str]] = field(default_factory=dict)

    def cells(self, identity: str) -> list[str]:
        """The cells of one row; "" for nothing."""
        found = self.of.get(identity, {})
        return [found.get(name, "") for name in self.columns]


def age(text: str) -> str:
    """An age in years as BIDS has it; "" for what is none."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return ""
    years = float(match[2])
    if years >= _OLDEST:
        return f"{_OLDEST}+"
    return "" if match[1] or match[3] else match[2]


def sex(text: str) -> str:
    """A sex in a word that BIDS has."""
    return _word(text, _SEX)


def handedness(text: str) -> str:
    """A handedness in a word that BIDS has."""
    return _word(text, _HANDS)


def _word(text: str, words: Mapping[str, tuple[str, ...]]) -> str:
    lower = text.strip().lower()
    return next((word for word, spellings in words.items() if lower in spellings), "")


_STANDARD: Mapping[str, tuple[str, Callable[[str], str], dict[str, Any]]] = {
    "sex": (
        "gender",
        sex,
        {"Description": "Sex", "Levels": {word: f"{word.capitalize()}" for word in _SEX}},
    ),
    "handedness": (
        "handedness",
        handedness,
        {"Description": "Handedness", "Levels": {word: f"{word.capitalize()}" for word in _HANDS}},
    ),
    "group": ("group", str.strip, {"Description": "The group on the XNAT server"}),
    "education": ("education", str.strip, {"Description": "Education, as entered", "Units": "year"}),
    "height": ("height", str.strip, {"Description": "Height, in the unit it was entered in"}),
    "weight": ("weight", str.strip, {"Description": "Weight, in the unit it was entered in"}),
}


def participants(
    people: Iterable[tuple[str, str]], details: Mapping[str, DetailListing], ages: Mapping[str, str]
) -> ParticipantTable:
    """What is known of the participants.

    Args:
        people: accession id and project of each.
        details: by project.
        ages: at the first session, by accession id.
    """
    people = list(people)
    known = ParticipantTable(of={identity: {} for identity, _ in people})
    for identity, project in people:
        listing, cells = details[project], known.of[identity]
        cells["age"] = age(ages.get(identity, "")) or age(listing.value(identity, "age"))
        for name, (key, in_words, _) in _STANDARD.items():
            cells[name] = in_words(listing.value(identity, key))
    described = {"age": _AGE, **{name: about for name, (_, _, about) in _STANDARD.items()}}
    for name, about in described.items():
        values = sorted({cells[name] for cells in known.of.values()} - {""})
        if not values:
            continue
        levels = {"Levels": {value: f"The group {value}" for value in values}}
        known.columns[name] = about | (levels if name == "group" else {})
    _add_custom(known, people, details)
    return known


def _add_custom(
    known: ParticipantTable, people: Iterable[tuple[str, str]], details: Mapping[str, DetailListing]
) -> None:
    """Custom variables, under names that a column may have."""
    names: dict[str, str] = {}
    for variable in sorted({name for listing in details.values() for name in listing.custom_names()}):
        name = re.sub(r"[^A-Za-z0-9_]+", "_", variable).strip("_") or "variable"
        while name in (*_STANDARD, "age", "participant_id", "original_label", "accession_id", "project") or (
            name in names.values()
        ):
            name = f"custom_{name}"
        names[variable] = name
    used: set[str] = set()
    for identity, project in people:
        found = details[project].of.get(identity)
        for variable, value in found.custom.items() if found is not None else ():
            known.of[identity][names[variable]] = value
            used.add(variable)
    for variable, name in names.items():
        if variable in used:
            known.columns[name] = {"Description": f"The custom variable {variable} on the XNAT server"}
