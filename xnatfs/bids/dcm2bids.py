"""dcm2bids' configuration: descriptions, each with criteria on the sidecars that dcm2niix writes.

What a listing says is enough for most: the series description and its number, and the echo that a file's name
has. Where a description might fit, but asks for another field, the sidecars decide; without one the scan has
no place, and the reason names the field. One that fits no description, or several, has none either, as with
dcm2bids. `post_op`, which runs commands, is not read. Both versions of the format are (`datatype` and
`dataType`).

Used by `lab_maps`.
Threading: immutable values; pure functions.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xnatfs.bids.bids_names import BidsName, read_entities, read_name, rule_of
from xnatfs.bids.image_files import picture
from xnatfs.bids.mapping import LAST, RUNS, Decider, Fields, Intent, Nowhere, Rule
from xnatfs.bids.patterns import NO_PATTERN, Bounded, Searching
from xnatfs.server.records import FileRecord, Owner, ScanRecord

_MAX_TEXT_CHARS = 400  # of a scan's, that a pattern is compared with
_NUMBER = re.compile(r"([0-9]{1,9})(?:-.*)?", re.DOTALL)
_COMPARISONS: Mapping[str, Callable[[float, Sequence[float]], bool]] = {
    "lt": lambda value, limits: value < limits[0],
    "le": lambda value, limits: value <= limits[0],
    "gt": lambda value, limits: value > limits[0],
    "ge": lambda value, limits: value >= limits[0],
    "btw": lambda value, limits: limits[0] < value < limits[-1],
    "btwe": lambda value, limits: limits[0] <= value <= limits[-1],
}
# Names of version 2, and those of version 3.
_NEW_NAMES = {
    "dataType": "datatype",
    "modalityLabel": "suffix",
    "customLabels": "custom_entities",
    "customEntities": "custom_entities",
    "sidecarChanges": "sidecar_changes",
    "searchMethod": "search_method",
    "caseSensitive": "case_sensitive",
    "dupMethod": "dup_method",
    "intendedFor": "IntendedFor",
}
# What auto_extract_entities looks for.
_AUTOMATIC = {
    "SeriesDescription": r"task-(?P<task>[a-zA-Z0-9]+)",
    "PhaseEncodingDirection": r"(?P<dir>[ij]-?)",
}
_DIRECTIONS = {"j-": "AP", "j": "PA", "i-": "LR", "i": "RL"}
_NO_FIELD = "SidecarFilename"  # what the file was called by dcm2bids' own call of dcm2niix
_UNWRITTEN = frozenset({"IntendedFor"})  # of sidecar_changes: not a field as it stands

_Test = Callable[[Any], bool]
_Facts = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class _Description:
    """One description: for each field of the sidecar what it must be, and the rule if all are."""

    tests: Mapping[str, _Test]
    name: BidsName | None
    wanted: Sequence[str]  # entities to be extracted
    problem: str  # why there is no name
    title: str
    sidecar: Mapping[str, Any]
    intent: Intent

    def fits(self, facts: _Facts, known: bool) -> bool | str:
        """Whether it fits; or the field on which that depends.

        Args:
            facts: fields of the sidecar.
            known: there are no others.
        """
        unknown = ""
        for key, test in self.tests.items():
            if key not in facts and (key == _NO_FIELD or not known):
                unknown = unknown or key or "a field without a name"
            elif not any(test(value) for value in facts.get(key, ("",))):
                return False
        return unknown or True


@dataclass(frozen=True)
class Dcm2Bids(Decider):
    """A configuration.

    Attributes:
        extractors: fields of the sidecar, and where entities are in them.
        whole: what fits no description has no place.
    """

    descriptions: Sequence[_Description]
    extractors: Sequence[tuple[str, Searching]]
    whole: bool = True

    def find(
        self, scan: ScanRecord, file: str | None, fields: Fields | None = None
    ) -> tuple[Rule, Mapping[str, str]] | Nowhere | None:
        """See `mapping.Decider`."""
        facts = _facts(scan, file) if fields is None else {key: (value,) for key, value in fields.items()}
        fits = [(one, one.fits(facts, fields is not None)) for one in self.descriptions]
        possible = [one for one, fit in fits if fit]
        if not possible:
            return Nowhere("no description of the dcm2bids configuration fits") if self.whole else None
        if file is None:
            rules = [self._rule(one, facts) for one in possible]
            return next((rule for rule in rules if not isinstance(rule, Nowhere)), rules[0])
        missing = next((fit for _, fit in fits if isinstance(fit, str)), "")
        if missing:
            return Nowhere(f"the dcm2bids configuration decides by {missing}, which is not known of it")
        if len(possible) > 1:
            titles = ", ".join(one.title for one in possible[:5])
            return Nowhere(f"several descriptions of the dcm2bids configuration fit: {titles}")
        return self._rule(possible[0], facts)

    def asks(self, scan: ScanRecord) -> bool:
        """See `mapping.Decider`."""
        facts = _facts(scan, None)
        return any(
            isinstance(one.fits(facts, known=False), str) and _NO_FIELD not in one.tests
            for one in self.descriptions
        )

    def _rule(self, chosen: _Description, facts: _Facts) -> tuple[Rule, Mapping[str, str]] | Nowhere:
        if chosen.name is None:
            return Nowhere(f"the dcm2bids configuration: {chosen.problem}")
        extracted: dict[str, str] = {}
        for key, pattern in self.extractors:
            values = [
                value for one in facts.get(key, ()) for value in (one if isinstance(one, list) else [one])
            ]
            match = next(filter(None, (pattern.search(str(value)) for value in values)), None)
            if match is not None:
                extracted |= {name: value for name, value in match.groupdict().items() if value}
        entities = dict(chosen.name.entities)
        try:
            for entity in chosen.wanted:
                if entity in extracted:
                    value = extracted[entity]
                    value = _DIRECTIONS.get(value, value) if entity == "dir" else value
                    entities |= read_entities(f"{entity}-{value}")
            name = read_name(chosen.name.suffix, chosen.name.datatype, entities)
        except ValueError as error:
            return Nowhere(f"the dcm2bids configuration: {error}")
        return rule_of(name, sidecar=chosen.sidecar, intent=chosen.intent, called=chosen.title), {}


def read_dcm2bids(document: Mapping[str, Any]) -> tuple[Dcm2Bids, str]:
    """A configuration from a JSON document, and what becomes of repeated names.

    Raises:
        ValueError: it is none; a sentence.
    """
    top = _renamed(document)
    descriptions = top.get("descriptions")
    if not isinstance(descriptions, list) or not all(isinstance(one, dict) for one in descriptions):
        raise ValueError("its descriptions are not a list of objects")
    expressions, case = top.get("search_method") == "re", top.get("case_sensitive", True) is not False
    tables = [_renamed(one) for one in descriptions]
    titles = [_title(table, place) for place, table in enumerate(tables)]
    read = [_description(table, titles, place, expressions, case) for place, table in enumerate(tables)]
    if not read:
        raise ValueError("it has no descriptions")
    extractors = top.get("extractors", {})
    if not isinstance(extractors, dict):
        raise ValueError("its extractors are not an object")
    found = [
        (str(key), _expression(text, f"extractor {str(key)[:100]}"))
        for key, texts in extractors.items()
        for text in (texts if isinstance(texts, list) else [texts])
    ]
    if top.get("auto_extract_entities") is True:
        found += [(key, _expression(text, "")) for key, text in _AUTOMATIC.items()]
        read = [_with_automatic(one) for one in read]
    return Dcm2Bids(read, found), LAST if top.get("dup_method") == "dup" else RUNS


def _with_automatic(one: _Description) -> _Description:
    """A description with the entities that are extracted unasked."""
    if one.name is not None and one.name.datatype == "func":
        return replace(one, wanted=(*one.wanted, "task"))
    if one.name is not None and (one.name.datatype, one.name.suffix) == ("fmap", "epi"):
        asked = {**one.tests, "PhaseEncodingDirection": lambda value: True}  # so the sidecar is
        return replace(one, wanted=(*one.wanted, "dir"), tests=asked)
    return one


def _renamed(table: Mapping[str, Any]) -> dict[str, Any]:
    return {_NEW_NAMES.get(str(key), str(key)): value for key, value in table.items()}


def _title(table: Mapping[str, Any], place: int) -> str:
    called = table.get("id")
    return called if isinstance(called, str) and called else f"number {place + 1}"


def _meant(value: Any, titles: Sequence[str]) -> tuple[str, ...]:
    """The descriptions that IntendedFor names: by id, or in version 2 by number, from 0."""
    named: list[str] = []
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, int) and 0 <= one < len(titles):
            named.append(titles[one])
        elif isinstance(one, str):
            named.append(one)
    return tuple(named)


def _description(
    table: Mapping[str, Any], titles: Sequence[str], place: int, expressions: bool, case: bool
) -> _Description:
    title = titles[place]
    criteria = table.get("criteria")
    if not isinstance(criteria, dict) or not criteria:
        raise ValueError(f"description {title} has no criteria")
    where = f"description {title}"
    tests = {str(key): _test(value, where, expressions, case) for key, value in criteria.items()}
    changes = table.get("sidecar_changes", {})
    if not isinstance(changes, dict):
        raise ValueError(f"{where}: its sidecar_changes are not an object")
    intent = Intent(names=_meant(changes.get("IntendedFor", table.get("IntendedFor", [])), titles))
    sidecar = {str(key): value for key, value in changes.items() if key not in _UNWRITTEN}
    custom = table.get("custom_entities", "")
    parts = "_".join(map(str, custom)) if isinstance(custom, list) else str(custom or "")
    wanted = [part for part in parts.split("_") if part and "-" not in part]
    fixed = "_".join(part for part in parts.split("_") if "-" in part)
    name, problem = None, ""
    try:
        name = read_name(
            str(table.get("suffix", "")).lstrip("_"), str(table.get("datatype", "")), read_entities(fixed)
        )
    except ValueError as error:
        problem = f"{where}: {error}"
    return _Description(tests, name, wanted, problem, title, sidecar, intent)


def _test(criterion: Any, where: str, expressions: bool, case: bool) -> _Test:
    """What a value must be for a criterion."""
    if isinstance(criterion, dict):
        ((word, inner),) = criterion.items() if len(criterion) == 1 else (("", None),)
        if word == "any" and isinstance(inner, list):
            tests = [_test(one, where, expressions, case) for one in inner]
            return lambda value: any(test(value) for test in tests)
        if word in _COMPARISONS:
            limits, compare = _limits(inner, where), _COMPARISONS[word]
            return lambda value: (number := _number(value)) is not None and compare(number, limits)
        raise ValueError(f"{where} has a criterion that is neither `any` nor a comparison")
    if isinstance(criterion, list):
        parts = [_plain_test(one, where, expressions, case) for one in criterion]
        return lambda value: (
            isinstance(value, list)
            and len(value) == len(parts)
            and all(test(part) for test, part in zip(parts, value, strict=True))
        )
    plain = _plain_test(criterion, where, expressions, case)
    return lambda value: not isinstance(value, list) and plain(value)


def _plain_test(criterion: Any, where: str, expressions: bool, case: bool) -> _Test:
    if expressions:
        pattern = _expression(criterion, where)
        return lambda value: (match := pattern.search(str(value))) is not None and match.start() == 0
    shell = re.compile(fnmatch.translate(str(criterion) if case else str(criterion).lower()))

    def fits(value: Any) -> bool:
        text = str(value)[:_MAX_TEXT_CHARS]
        return shell.match(text if case else text.lower()) is not None

    return fits


def _expression(text: Any, where: str) -> Searching:
    try:
        return Bounded(text)
    except (TypeError, *NO_PATTERN) as error:
        raise ValueError(f"{where}: {str(text)[:100]!r} is not a regular expression: {error}") from None


def _limits(value: Any, where: str) -> list[float]:
    limits = [_number(one) for one in (value if isinstance(value, list) else [value])]
    known = [limit for limit in limits if limit is not None]
    if not known or len(known) < len(limits):
        raise ValueError(f"{where}: a comparison needs numbers")
    return known


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _facts(scan: ScanRecord, file: str | None) -> _Facts:
    """Fields of the sidecar that are known without it. dcm2niix writes some of them in two ways."""
    description = scan.series_description
    facts: dict[str, Sequence[Any]] = {
        "SeriesDescription": tuple(dict.fromkeys((description, description.replace(" ", "_"))))
    }
    number = _NUMBER.fullmatch(scan.id)
    if number is not None:
        facts["SeriesNumber"] = (str(int(number[1])),)
    if file is not None:
        shown = picture(FileRecord(Owner("scan", scan.session_id, scan.id), 0, "", file, 0, ""))
        if shown is not None and shown.echo:
            facts["EchoNumber"] = (str(shown.echo),)
    return facts
