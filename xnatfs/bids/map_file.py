"""A `bids.toml` as a map: read, checked, and one plain sentence for each mistake. The format is described in
docs/bids.md.

Used by `default_rules`, `tree.bids_view` and `core`.
Threading: immutable values; no I/O but `user_map`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from xnatfs.bids.file_names import legal
from xnatfs.bids.lab_maps import ORDER, LabFile, lab_map
from xnatfs.bids.mapping import LAST, RUNS, TEMPLATE, BidsMap, Intent, MapSource, Rule
from xnatfs.bids.patterns import NO_PATTERN, Bounded, Pattern, Searching, pattern
from xnatfs.bids.schema import CONTEXTS, ENTITIES, INDICES, KINDS, VALUES
from xnatfs.config import config_home
from xnatfs.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "bids.toml"
RESOURCE = "XNATFS"  # of a project, with a file NAME
_TOP = {
    *("images", "sidecars", "skip_quality", "only", "runs", "repeats", "labels", "rule"),
    *("mappings", "reproin"),
}
_TEXTS = ("type", "description", "any", "file")
_WORDS = ("words", "also", "without")
_FIELD_MAP = ("intended_for", "closest", "b0_field")
_OF_IMAGES = ("entities", "sidecar", *_FIELD_MAP, "aslcontext", "repeats")
_RULE = {*_TEXTS, *_WORDS, "frames", "to", "skip", *_OF_IMAGES}
_OWN = frozenset({"task", "type", "description"})  # what every rule may use in braces


def parse(text: str, where: str) -> BidsMap:
    """A `bids.toml`.

    Args:
        text: its content.
        where: its name, for messages.

    Raises:
        UsageError: it is no TOML, or says something nobody understands.
    """
    try:
        tables = tomllib.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # TOMLDecodeError is a ValueError; so is a number of 5,000 digits
        raise UsageError(f"{where}: {str(error)[:300]}") from None
    _known(tables, _TOP, where, f"a {NAME}")
    rules = tables.get("rule", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise UsageError(f"{where}: write rules as [[rule]], one block each")
    named = tables.get("labels", {})
    if not isinstance(named, dict):
        raise UsageError(f"{where}: labels must be a section, [labels]")
    _known(named, {"subject", "session"}, where, "[labels]")
    runs = tables.get("runs")
    if runs not in (None, "needed", "always"):
        raise UsageError(f'{where}: runs must be "needed" or "always"')
    for flag in ("only", "reproin"):
        if not isinstance(tables.get(flag, False), bool):
            raise UsageError(f"{where}: {flag} must be true or false")
    mappings = _texts(tables, "mappings", where, empty=True) if "mappings" in tables else None
    for name in mappings or ():
        if name not in ORDER:
            raise UsageError(f"{where}: mappings may have {', '.join(ORDER)}, not {name!r}")
    return BidsMap(
        tuple(_rule(rule, f"{where}: rule {number}") for number, rule in enumerate(rules, 1)),
        _texts(tables, "images", where),
        _texts(tables, "sidecars", where),
        _texts(tables, "skip_quality", where, empty=True) if "skip_quality" in tables else None,
        None if runs is None else runs == "always",
        _label(named, "subject", where),
        _label(named, "session", where),
        tables.get("only", False),
        (MapSource(where, text),),
        _repeats(tables, where),
        mappings,
        tables.get("reproin"),
    )


def user_file() -> Path:
    """Where a user's own `bids.toml` lies."""
    return config_home() / NAME


def user_map(chosen: Path | None = None) -> BidsMap | None:
    """The map a user names for a mount, over the user's own; None where there is neither.

    Raises:
        UsageError: a file cannot be read or understood.
    """
    first = None if chosen is None else _read(chosen)
    personal = _read(user_file()) if user_file().exists() else None
    return first.over(personal) if first is not None and personal is not None else first or personal


def _read(path: Path) -> BidsMap:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
        ) from None
    return _of_lab(text, path) if path.suffix.lower() == ".json" else parse(text, str(path))


def _of_lab(text: str, path: Path) -> BidsMap:
    """A mapping file of another program."""
    found = lab_map([LabFile(MapSource(str(path), text, path.name))], None)
    if found.map is None:
        raise UsageError("; ".join(found.problems))
    return replace(found.map, mappings=())  # the one named is the one used


def _rule(table: Mapping[str, Any], where: str) -> Rule:
    _known(table, _RULE, where, "a rule")
    if ("to" in table) == ("skip" in table):
        raise UsageError(f'{where}: it needs either `to = "anat/T1w"` or `skip = "why"`')
    patterns = {
        name: tuple(_pattern(text, f"{where}: {name}") for text in _texts(table, name, where))
        for name in _TEXTS
        if name in table
    }
    words = {name: _texts(table, name, where) for name in _WORDS if name in table}
    frames = _frames(table["frames"], where) if "frames" in table else None
    if not set(patterns) | set(words) and frames is None:
        raise UsageError(f'{where}: it has no condition; `any = "*"` matches everything')
    if "skip" in table:
        if not isinstance(table["skip"], str) or not table["skip"].strip():
            raise UsageError(f"{where}: skip must give the reason, in a few words")
        unused = set(table) & set(_OF_IMAGES)
        if unused:
            raise UsageError(f"{where}: with `skip` there is no {sorted(unused)[0]}")
        return Rule(patterns, words, frames, skip=" ".join(table["skip"].split()))
    datatype, suffix = _to(table["to"], where)
    groups = {group for some in patterns.values() for each in some for group in each.groups}
    return Rule(
        patterns,
        words,
        frames,
        datatype,
        suffix,
        "",
        _entities(table.get("entities", {}), datatype, suffix, groups, where),
        _sidecar(table.get("sidecar", {}), where),
        _intent(table, where),
        _context(table, datatype, suffix, where),
        repeats=_repeats(table, where),
    )


def _to(value: Any, where: str) -> tuple[str, str]:
    datatype, slash, suffix = value.partition("/") if isinstance(value, str) else ("", "", "")
    if not slash or datatype not in KINDS:
        raise UsageError(
            f'{where}: to must be a datatype and a suffix, such as "anat/T1w"; '
            f"datatypes are {', '.join(KINDS)}"
        )
    if suffix not in KINDS[datatype]:
        raise UsageError(f"{where}: {datatype} has no suffix {suffix!r}, but {', '.join(KINDS[datatype])}")
    return datatype, suffix


def _entities(table: Any, datatype: str, suffix: str, groups: set[str], where: str) -> dict[str, str]:
    if not isinstance(table, dict):
        raise UsageError(f'{where}: entities must be a table, such as {{ task = "rest" }}')
    kind = KINDS[datatype][suffix]
    entities: dict[str, str] = {}
    for name, value in table.items():
        if name not in ENTITIES or name not in kind.may:
            allowed = ", ".join(entity for entity in ENTITIES if entity in kind.may)
            raise UsageError(f"{where}: {datatype}/{suffix} has no entity {name!r}, but {allowed}")
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(text, str):
            raise UsageError(f"{where}: entities.{name} must be a text")
        for used in TEMPLATE.findall(text):
            if used not in groups | _OWN:
                raise UsageError(
                    f"{where}: entities.{name} uses {{{used}}}, which no pattern of the rule has as a "
                    f"group (?P<{used}>...)"
                )
        plain = TEMPLATE.sub("", text)
        if plain and not legal(plain):
            raise UsageError(f"{where}: entities.{name} needs letters or digits")
        if name in INDICES and plain and not plain.isdecimal():
            raise UsageError(f"{where}: entities.{name} must be a number")
        if name in VALUES and plain == text and text not in VALUES[name]:
            raise UsageError(f"{where}: entities.{name} must be one of {', '.join(VALUES[name])}")
        entities[name] = text
    missing = sorted(kind.must - set(entities) - {"echo"})  # the echo may be in the file's name
    if missing:
        raise UsageError(f"{where}: {datatype}/{suffix} needs the entity {missing[0]!r}")
    return entities


def _sidecar(fields: Any, where: str) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise UsageError(f"{where}: sidecar must be a table of fields, such as {{ RepetitionTime = 2.0 }}")
    for name, value in fields.items():
        many = value if isinstance(value, list) else [value]
        if not all(isinstance(item, (str, int, float, bool)) for item in many):
            raise UsageError(
                f"{where}: sidecar.{name} must be a text, a number, true or false, or a list of these"
            )
    return dict(fields)


def _intent(table: Mapping[str, Any], where: str) -> Intent:
    wanted = _texts(table, "intended_for", where)
    for target in wanted:
        datatype, _, suffix = target.partition("/")
        if datatype not in KINDS or (suffix and suffix not in KINDS[datatype]):
            raise UsageError(
                f'{where}: intended_for needs datatypes, such as "func" or "func/bold", not {target!r}'
            )
    closest, b0_field = table.get("closest", False), table.get("b0_field", "")
    if not isinstance(closest, bool):
        raise UsageError(f"{where}: closest must be true or false")
    if not isinstance(b0_field, str) or (
        "b0_field" in table and not re.fullmatch(r"\w+", b0_field, re.ASCII)
    ):
        raise UsageError(f"{where}: b0_field must be a name of letters, digits and _")
    if closest and not wanted:
        raise UsageError(f"{where}: closest needs an intended_for")
    return Intent(wanted, (), closest, b0_field)


def _repeats(table: Mapping[str, Any], where: str) -> str:
    repeats = table.get("repeats", "")
    if "repeats" in table and repeats not in (RUNS, LAST):
        raise UsageError(f'{where}: repeats must be "{RUNS}" or "{LAST}"')
    return str(repeats)


def _context(table: Mapping[str, Any], datatype: str, suffix: str, where: str) -> tuple[str, ...]:
    volumes = _texts(table, "aslcontext", where)
    for volume in volumes:
        if volume not in CONTEXTS:
            raise UsageError(f"{where}: aslcontext must consist of {', '.join(CONTEXTS)}, not {volume!r}")
    if volumes and (datatype, suffix) != ("perf", "asl"):
        raise UsageError(f"{where}: aslcontext is for perf/asl only")
    return volumes


def _frames(value: Any, where: str) -> tuple[int, float]:
    text = str(value) if isinstance(value, str) or (isinstance(value, int) and value < 10**9) else ""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:(-)\s*([0-9]{1,9})?)?\s*", text)
    if not match:
        raise UsageError(f'{where}: frames must be a number or a range, such as 1, "2-" or "100-240"')
    low = int(match[1])
    high = float(match[3]) if match[3] else float("inf") if match[2] else low
    if high < low:
        raise UsageError(f"{where}: frames must run from the smaller number to the larger")
    return low, high


def _label(table: Mapping[str, Any], name: str, where: str) -> Searching | None:
    if name not in table:
        return None
    try:
        compiled = Bounded(table[name])
    except (TypeError, *NO_PATTERN):
        compiled = None
    if compiled is None or compiled.groups != 1:
        raise UsageError(
            f"{where}: labels.{name} must be a regular expression with one group, which becomes the "
            f"label, such as 'S(\\d+)$'"
        )
    return compiled


def _pattern(text: str, what: str) -> Pattern:
    try:
        return pattern(text)
    except NO_PATTERN as error:
        raise UsageError(f"{what}: {text[:300]!r} is not a regular expression: {error}") from None


def _known(table: Mapping[str, Any], known: set[str], where: str, what: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise UsageError(f"{where}: {unknown[0]!r} is not a key of {what}; it has {', '.join(sorted(known))}")


def _texts(table: Mapping[str, Any], name: str, where: str, *, empty: bool = False) -> tuple[str, ...]:
    value = table.get(name)
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) else value
    if (
        not isinstance(texts, list)
        or not (texts or empty)
        or not all(isinstance(text, str) and (text or empty) for text in texts)
    ):
        raise UsageError(f"{where}: {name} must be a text or a list of texts")
    return tuple(texts)
