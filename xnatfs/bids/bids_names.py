"""Names that another program gives files, such as `acq-hires_run-1_T1w`, as what they consist of; checked
against what BIDS has.

Used by the readers of other programs' mapping files: `xnat_map`, `dcm2bids`, `reproin`, `bidskit`.
Threading: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from xnatfs.bids.file_names import legal
from xnatfs.bids.mapping import Intent, Rule
from xnatfs.bids.schema import ENTITIES, INDICES, KINDS, VALUES

_ENDING = re.compile(r"\.(nii(\.gz)?|json)\Z", re.IGNORECASE)
# Where a suffix is at home that two datatypes have.
_AT_HOME = {"sbref": ("func", "dwi")}


class BidsName(NamedTuple):
    """A name without subject and session."""

    datatype: str
    suffix: str
    entities: dict[str, str]


def read_name(name: str, datatype: str = "", entities: Mapping[str, str] | None = None) -> BidsName:
    """What a name consists of; subject and session in it are left out.

    Args:
        name: entities and a suffix.
        datatype: the folder; "" for the one the suffix belongs to.
        entities: more of them.

    Raises:
        ValueError: BIDS has no such name; a sentence.
    """
    *parts, suffix = _ENDING.sub("", name.strip()).strip("_").split("_")
    found = {**(entities or {}), **read_entities("_".join(parts))}
    if not suffix or "-" in suffix:
        raise ValueError(f"{name[:100]!r} has no suffix")
    datatype = datatype or datatype_of(suffix, found)
    if datatype not in KINDS:
        raise ValueError(f"{datatype[:100]!r} is not a datatype of MR images ({', '.join(KINDS)})")
    if suffix not in KINDS[datatype]:
        raise ValueError(f"{datatype} has no suffix {suffix[:100]!r}")
    for entity in found:
        if entity not in KINDS[datatype][suffix].may:
            raise ValueError(f"{datatype}/{suffix} has no entity {entity!r}")
    return BidsName(datatype, suffix, found)


def read_entities(text: str) -> dict[str, str]:
    """Entities joined with `_`; those of subject and session are left out.

    Raises:
        ValueError: BIDS has no such entity or value; a sentence.
    """
    found: dict[str, str] = {}
    for part in filter(None, text.split("_")):
        name, dash, value = part.partition("-")
        if name in ("sub", "ses") and dash:
            continue
        if name not in ENTITIES or not legal(value):
            raise ValueError(f"{part[:100]!r} is not an entity and its value")
        value = legal(value)
        if name in INDICES and not re.fullmatch("[0-9]{1,9}", value):
            raise ValueError(f"{part[:100]!r}: {name} must be a number")
        if name in VALUES and value not in VALUES[name]:
            raise ValueError(f"{part[:100]!r}: {name} must be one of {', '.join(VALUES[name])}")
        found[name] = value
    return found


def datatype_of(suffix: str, entities: Mapping[str, str]) -> str:
    """The folder that a suffix belongs to.

    Raises:
        ValueError: none; a sentence.
    """
    if suffix in _AT_HOME:
        with_task, without = _AT_HOME[suffix]
        return with_task if "task" in entities else without
    for datatype, suffixes in KINDS.items():
        if suffix in suffixes:
            return datatype
    raise ValueError(f"BIDS has no MR images with the suffix {suffix[:100]!r}")


def rule_of(
    name: BidsName,
    *,
    sidecar: Mapping[str, Any] | None = None,
    intent: Intent | None = None,
    called: str = "",
    repeats: str = "",
) -> Rule:
    """The rule that puts an image under a name."""
    return Rule(
        datatype=name.datatype,
        suffix=name.suffix,
        entities=name.entities,
        sidecar=sidecar or {},
        intent=intent or Intent(),
        name=called,
        repeats=repeats,
    )
