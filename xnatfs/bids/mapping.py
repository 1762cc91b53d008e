"""The map from scans to BIDS names: ordered rules; the first that fits a scan and its file decides.

Used by `dataset` and `tree.bids_view`; read by `map_file`. A lab's map stands on the usual rules
(`default_rules.py`): its rules are asked first.
Threading: immutable values; no I/O.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from xnatfs.bids.file_names import legal
from xnatfs.bids.patterns import Pattern, Searching, any_word, task_of
from xnatfs.bids.schema import INDICES, VALUES
from xnatfs.server.records import ScanRecord

RUNS, LAST = "runs", "last"
COUNTED = "counted"  # runs, even of one image
TEMPLATE = re.compile(r"\{(\w*)\}")


Fields = Mapping[str, Any]  # of a sidecar


class BidsPlace(NamedTuple):
    """Where an image goes."""

    datatype: str
    suffix: str
    entities: Mapping[str, str]
    rule: Rule


class Nowhere(NamedTuple):
    """Why an image goes nowhere."""

    reason: str


class MapSource(NamedTuple):
    """What a map was read from: where that was, in words, its text, and the name to show it under."""

    where: str
    text: str
    file: str = "bids.toml"

    @property
    def digest(self) -> str:
        """Of the text."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()


class Intent(NamedTuple):
    """Which images of its session a field map is for.

    Attributes:
        kinds: datatypes, or datatype/suffix.
        names: names of rules, or file names without subject and session.
        closest: of several field maps of one kind each image belongs to the one closest in time.
        b0_field: the B0FieldIdentifier; "" for none.
    """

    kinds: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    closest: bool = False
    b0_field: str = ""


@dataclass(frozen=True)
class Rule:
    """Conditions, all of which have to hold, and where an image goes then (without a `datatype`: nowhere,
    because of `skip`).

    Attributes:
        name: what other rules call it by.
        repeats: what becomes of several images of one name: `RUNS`, `COUNTED` or `LAST`; "": what the map
            says.
    """

    patterns: Mapping[str, tuple[Pattern, ...]] = field(default_factory=dict)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    frames: tuple[int, float] | None = None
    datatype: str = ""
    suffix: str = ""
    skip: str = ""
    entities: Mapping[str, str] = field(default_factory=dict)
    sidecar: Mapping[str, Any] = field(default_factory=dict)
    intent: Intent = field(default_factory=Intent)
    aslcontext: tuple[str, ...] = ()
    name: str = ""
    repeats: str = ""

    def fits(self, scan: ScanRecord, file: str | None) -> dict[str, str] | None:
        """What the groups of its patterns matched, if all but `frames` holds; `file` None asks whether any
        file could fit.
        """
        groups: dict[str, str] = {}
        both = (scan.type, scan.series_description)
        for name, texts in (
            ("type", both[:1]),
            ("description", both[1:]),
            ("any", both),
            ("file", () if file is None else (file,)),
        ):
            patterns = self.patterns.get(name)
            if not patterns or (name == "file" and file is None):
                continue
            match = next(
                (
                    captured
                    for text in texts
                    for pattern in patterns
                    if (captured := pattern.find(text)) is not None
                ),
                None,
            )
            if match is None:
                return None
            groups |= match
        for name in ("words", "also"):
            if name in self.words and not any_word(self.words[name], both):
                return None
        if "without" in self.words and any_word(self.words["without"], both):
            return None
        return groups

    def frames_fit(self, scan: ScanRecord) -> bool:
        """Whether the number of frames is what the rule wants."""
        if self.frames is None:
            return True
        count = frames_of(scan)
        return count is not None and self.frames[0] <= count <= self.frames[1]


class Decider:
    """Rules that were written for another program, and decide by themselves."""

    def find(
        self, scan: ScanRecord, file: str | None, fields: Fields | None = None
    ) -> tuple[Rule, Mapping[str, str]] | Nowhere | None:
        """The rule for an image of a scan, with what its patterns matched; why it has no place; or None, if
        this says nothing of it.

        Args:
            file: the image's own name; None asks whether any file could have a place.
            fields: its sidecar, if that is known.
        """
        raise NotImplementedError

    def asks(self, scan: ScanRecord) -> bool:
        """Whether the sidecars of a scan decide, which nobody has read yet."""
        return False


@dataclass(frozen=True)
class BidsMap:
    """A whole map.

    Attributes:
        only: nothing is asked below it.
        repeats: `RUNS` or `LAST`: what becomes of several images of one name.
        mappings: which mappings of the lab's own are looked for; None: it does not say.
        reproin: whether scans are named as ReproIn says; None: where all of a project's are.
        sources: what it was read from.
    """

    rules: tuple[Rule | Decider, ...] = ()
    images: tuple[str, ...] = ()
    sidecars: tuple[str, ...] = ()
    skip_quality: tuple[str, ...] | None = None
    number_always: bool | None = None
    subject: Searching | None = None
    session: Searching | None = None
    only: bool = False
    sources: tuple[MapSource, ...] = ()
    repeats: str = ""
    mappings: tuple[str, ...] | None = None
    reproin: bool | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Changes when another map would be made."""
        return hashlib.sha256(
            repr([(source.where, source.digest) for source in self.sources]).encode()
        ).hexdigest()[:16]

    def over(self, below: BidsMap) -> BidsMap:
        """This map, and where it says nothing, another."""
        if self.only:
            return self
        return BidsMap(
            self.rules + below.rules,
            self.images + below.images,
            self.sidecars + below.sidecars,
            below.skip_quality if self.skip_quality is None else self.skip_quality,
            below.number_always if self.number_always is None else self.number_always,
            self.subject or below.subject,
            self.session or below.session,
            below.only,
            self.sources + below.sources,
            self.repeats or below.repeats,
            below.mappings if self.mappings is None else self.mappings,
            below.reproin if self.reproin is None else self.reproin,
        )

    def place(self, scan: ScanRecord, file: str, fields: Fields | None = None) -> BidsPlace | Nowhere:
        """Where an image of a scan goes; `fields` are those of its sidecar, if that is known."""
        missed: Rule | None = None
        for rule in self.rules:
            if not isinstance(rule, Rule):
                decided = rule.find(scan, file, fields)
                if decided is None:
                    continue
                return decided if isinstance(decided, Nowhere) else placed(decided[0], scan, decided[1])
            groups = rule.fits(scan, file)
            if groups is None:
                continue
            if not rule.frames_fit(scan):
                missed = missed or rule
                continue
            if rule.skip:
                return Nowhere(rule.skip)
            return placed(rule, scan, groups)
        if missed is not None and missed.frames is not None:
            low, high = missed.frames
            wanted = (
                f"{low} or more"
                if high == float("inf")
                else str(low)
                if low == high
                else f"{low} to {high:.0f}"
            )
            had = (
                f"it has {scan.frames}"
                if frames_of(scan) is not None
                else "the server does not say how many it has"
            )
            return Nowhere(f"{missed.datatype}/{missed.suffix} needs {wanted} frames, {had}")
        return Nowhere("no rule matches its type and description")

    def may_place(self, scan: ScanRecord) -> bool:
        """Whether a file of the scan could go anywhere."""
        if scan.quality in (self.skip_quality or ()):
            return False
        for rule in self.rules:
            if not isinstance(rule, Rule):
                decided = rule.find(scan, None)
                if decided is None:
                    continue
                return not isinstance(decided, Nowhere)
            if rule.fits(scan, None) is not None and rule.frames_fit(scan):
                if not rule.skip:
                    return True
                if "file" not in rule.patterns:
                    return False
        return False

    @cached_property
    def has_deciders(self) -> bool:
        """Whether some of it was written for another program."""
        return any(not isinstance(rule, Rule) for rule in self.rules)

    def asks(self, scan: ScanRecord) -> bool:
        """Whether the sidecars of a scan decide where its images go."""
        for rule in self.rules:
            if not isinstance(rule, Rule):
                return rule.asks(scan)
            if rule.fits(scan, None) is not None and "file" not in rule.patterns:
                return False
        return False

    def choose(self, labels: Sequence[str]) -> str | None:
        """The resource with a scan's images among its resources."""
        return next(
            (label for wanted in self.images for label in labels if label.lower() == wanted.lower()), None
        )


def frames_of(scan: ScanRecord) -> int | None:
    """The number of frames, where the server gives one."""
    return int(scan.frames) if re.fullmatch("[0-9]{1,9}", scan.frames) else None


def placed(rule: Rule, scan: ScanRecord, groups: Mapping[str, str]) -> BidsPlace | Nowhere:
    """Where a rule that fits puts a scan; `groups` are what its patterns matched."""
    texts = {
        "type": scan.type,
        "description": scan.series_description,
        "task": task_of(scan.type, scan.series_description),
        **groups,
    }
    entities: dict[str, str] = {}
    for name, template in rule.entities.items():
        value = legal(TEMPLATE.sub(lambda match: texts.get(match[1], ""), template))
        if name in INDICES and value and not re.fullmatch("[0-9]{1,9}", value):
            return Nowhere(f"{name}-{value}: {name} must be a number")
        if name in VALUES and value and value not in VALUES[name]:
            return Nowhere(f"{name}-{value}: {name} must be one of {', '.join(VALUES[name])}")
        if value:
            entities[name] = value
    return BidsPlace(rule.datatype, rule.suffix, entities, rule)
