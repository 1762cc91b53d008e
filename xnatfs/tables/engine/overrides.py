"""How a site names its pipelines' resources and files: `tables.toml` over the defaults of the table modules.

Used by everything in `tables.engine` and by the command `table`. Labels differ from lab to lab, and so do
folders; a table's definition only says bx's. Read from the project's resource `XNATFS`, then from the user's
configuration, which wins.

    [labels]                                    # wherever a table reads the resource on the left, read one of
                                                # those on the right
    FREESURFER6 = ["FS6", "fs:fsData/DATA"]     # TYPE/LABEL: the resource LABEL of an assessor of that type

    [tables."ashs/volumes"]                     # one table, or a pipeline's all: [tables.ashs]
    resources = ["ashs_out"]
    files.left = "*left*nogray*.txt"            # by the role the table gives the file; shell patterns, * also
                                                # crosses /
    with = ["age", "sex"]                       # columns of the tables subjects and sessions to add; at the
                                                # top of the file: to every table

Threading: immutable values; no I/O but `user_file`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from xnatfs.config import config_home
from xnatfs.errors import UsageError
from xnatfs.tables.spec import Input, Table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "tables.toml"
RESOURCE = "XNATFS"  # of a project, with a file NAME


class Wanted(NamedTuple):
    """A resource that would do: its label, and for an assessor's the assessor's xsiType ("" for any
    place).
    """

    label: str
    xsi_type: str = ""

    def __str__(self) -> str:
        return f"{self.xsi_type}/{self.label}" if self.xsi_type else self.label


@dataclass(frozen=True)
class Spec:
    """A table as this site has it."""

    table: Table
    wanted: tuple[Wanted, ...]
    inputs: tuple[Input, ...]

    @property
    def fingerprint(self) -> str:
        """Changes when other files would be chosen or parsed in another way."""
        definition = [self.table.key, *map(str, self.wanted)]
        definition += [
            repr((input.role, input.patterns, input.version, input.required, input.several))
            for input in self.inputs
        ]
        return hashlib.sha256("\n".join(definition).encode("utf-8", "backslashreplace")).hexdigest()[:16]


@dataclass(frozen=True)
class Site:
    """The overrides: labels by bx's label; resources, file patterns and columns to add by table key or
    pipeline ("": every table).
    """

    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    resources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    added: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def columns(self, table: Table) -> tuple[str, ...]:
        """The columns about subject and session to add to a table."""
        for key in (table.key, table.pipeline, ""):
            if key in self.added:
                return self.added[key]
        return ()

    def spec(self, table: Table) -> Spec:
        """A table with what the site says of it."""
        labels: Iterable[str] = self.resources.get(table.key) or self.resources.get(table.pipeline) or ()
        if not labels:
            labels = [other for label in table.resources for other in self.labels.get(label, (label,))]
        patterns = {**self.files.get(table.pipeline, {}), **self.files.get(table.key, {})}
        inputs = tuple(
            replace(input, pattern=patterns[input.role]) if input.role in patterns else input
            for input in table.inputs
        )
        return Spec(table, tuple(dict.fromkeys(map(_wanted, labels))), inputs)

    def over(self, below: Site) -> Site:
        """These overrides on top of others."""
        files = {
            key: {**below.files.get(key, {}), **self.files.get(key, {})}
            for key in (*below.files, *self.files)
        }
        return Site(
            {**below.labels, **self.labels},
            {**below.resources, **self.resources},
            files,
            {**below.added, **self.added},
        )


def parse(text: str, where: str, tables: Mapping[str, Table]) -> Site:
    """A `tables.toml`.

    Args:
        text: its content.
        where: its path, for messages.
        tables: all there are, to find misspelt names.

    Raises:
        UsageError: it is no TOML, or has sections, names or values that mean nothing here.
    """
    try:
        tables_file = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError is a ValueError; so is a number of 5,000 digits
        raise UsageError(f"{where}: {str(error)[:300]}") from None
    unknown = set(tables_file) - {"labels", "tables", "with"}
    if unknown:
        raise UsageError(
            f"{where}: {sorted(unknown)[0]!r} is not a section of {NAME}; it has [labels] and [tables.NAME]"
        )
    added = {"": _texts(tables_file["with"], f"{where}: with")} if tables_file.get("with") else {}
    labels = {
        label: _texts(value, f"{where}: labels.{label}")
        for label, value in _section(tables_file, "labels", where).items()
    }
    used = {label for table in tables.values() for label in table.resources}
    for label in labels:
        if label not in used:
            raise UsageError(
                f"{where}: no table reads a resource {label!r}; `xnatfs table --list` shows what is read"
            )
    resources: dict[str, tuple[str, ...]] = {}
    files: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, value in _section(tables_file, "tables", where).items():
        meant = [table for table in tables.values() if name in (table.key, table.pipeline)]
        if not meant:
            raise UsageError(
                f"{where}: there is no table or pipeline {name!r}; `xnatfs table --list` shows them"
            )
        if not isinstance(value, dict) or set(value) - {"resources", "files", "with"}:
            meant_key = (
                next((f"{name}/{key}" for key in value if f"{name}/{key}" in tables), "")
                if isinstance(value, dict)
                else ""
            )
            hint = f'; the table is written [tables."{meant_key}"]' if meant_key else ""
            raise UsageError(f"{where}: [tables.{name}] has `resources`, `files` and `with` only{hint}")
        if "with" in value:
            added[name] = _texts(value["with"], f"{where}: tables.{name}.with") if value["with"] else ()
        if "resources" in value:
            resources[name] = _texts(value["resources"], f"{where}: tables.{name}.resources")
        roles = {input.role for table in meant for input in table.inputs}
        for role, patterns in _section(value, "files", where, f"tables.{name}.").items():
            if role not in roles:
                raise UsageError(f"{where}: {name} has no file {role!r}, but {', '.join(sorted(roles))}")
            files.setdefault(name, {})[role] = _texts(patterns, f"{where}: tables.{name}.files.{role}")
    return Site(labels, resources, files, added)


def user_file() -> Path:
    """Where a user's own `tables.toml` lies (`XNATFS_CONFIG_DIR`, else the platform's place)."""
    return config_home() / NAME


def user_site(tables: Mapping[str, Table]) -> Site:
    """The user's overrides; none where there is no file.

    Raises:
        UsageError: the file cannot be read or understood.
    """
    path = user_file()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Site()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    return parse(text, str(path), tables)


def _wanted(text: str) -> Wanted:
    xsi_type, slash, label = text.rpartition("/")
    return Wanted(label, xsi_type) if slash and ":" in xsi_type else Wanted(text)


def _section(tables_file: Mapping[str, Any], name: str, where: str, above: str = "") -> Mapping[str, Any]:
    section = tables_file.get(name, {})
    if not isinstance(section, dict):
        raise UsageError(f"{where}: {above}{name} must be a section, [{above}{name}]")
    return section


def _texts(value: Any, what: str) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise UsageError(f"{what} must be a text or a list of texts")
    return tuple(texts)
