"""How labels, ids and catalog paths are spelt as file names: one documented, reversible spelling
(docs/layout.md, "Names").

Used by the sections. Pure functions.

- A name that can be a file name stays as it is.
- `/`, NUL, control characters (C0, DEL, C1) and lone surrogates become `%XX`, their UTF-8 bytes in hex; `.`
  becomes `%2E`.
- A `%` becomes `%25` only where it could be taken for the start of such a spelling (before two hex digits, or
  before `~`).
- A label that the tree has for itself at that place (a session called `RESOURCES`), or that every desktop and
  shell probes for (`.git`, `.hidden`, ...: see `PROBED`), has its first character spelt `%XX`. Names of files
  are left as they are.
- Of several things with one name, the first (oldest id) keeps it; the others get `%~` and their id appended.
- A name over 255 bytes is cut and gets `%~` and 12 hex digits of its SHA-256; the xattr `user.xnat.name` has
it whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from xnatfs.server.records import ScanRecord, natural

MAX_NAME_BYTES = 255
_T = TypeVar("_T")
_SPELT = re.compile(r"[/\x00-\x1f\x7f-\x9f\ud800-\udfff]|%(?=[0-9A-Fa-f]{2}|~)")


# What desktops, shells and version control look for in every folder: above the resources `vfs` answers them
# without asking anybody.
PROBED = re.compile(
    r"""\.Trash.* | \.hidden | \._.* | \.~lock\..*\# | [Dd]esktop\.ini | autorun\.inf | \.directory
        | \.DS_Store | Thumbs\.db | \.xdg-volume-info | \.localized | \.Spotlight-V100 | \.fseventsd
        | \.git | \.svn | \.hg | \.bzr | \.envrc | \.comments""",
    re.VERBOSE,
)


def spell_label(label: str, reserved: frozenset[str] = frozenset()) -> str:
    """The file name of a label or id: `spell`, and away from the names that are taken at that place."""
    spelt = spell(label)
    if spelt in reserved or PROBED.fullmatch(spelt):
        return _cut(_percent(spelt[0]) + spelt[1:], label)
    return spelt


def spell(name: str) -> str:
    """The file name of a path component. `name` must not be empty."""
    if name in (".", ".."):
        return "%2E" * len(name)
    spelt = _SPELT.sub(lambda match: _percent(match[0]), name)
    return _cut(spelt, name)


def unspell(spelt: str) -> str:
    """The name behind a file name, without what `%~` appended. (A cut name cannot be restored from
    itself.)
    """
    head = spelt.split("%~", 1)[0]
    return re.sub(r"(?:%[0-9A-Fa-f]{2})+", lambda match: _unpercent(match[0]), head)


def scan_folder(scan: ScanRecord) -> str:
    """`<ID>-<TYPE>`, every non-word character of the type as `_`, as in XNAT's own zips
    (`RestFileUtils.java`); `<ID>` without a type.
    """
    kind = re.sub(r"\W", "_", scan.type, flags=re.ASCII)
    return f"{scan.id}-{kind}" if kind else scan.id


def distinct(
    things: Iterable[_T],
    name_of: Callable[[_T], str],
    id_of: Callable[[_T], Hashable],
    reserved: frozenset[str] = frozenset(),
) -> dict[str, _T]:
    """Things by file name, in the order given; equal names are told apart by their ids, the lowest id keeps
    the plain name.
    """
    groups: dict[str, list[_T]] = {}
    for thing in things:
        groups.setdefault(spell_label(name_of(thing) or str(id_of(thing)), reserved), []).append(thing)
    named: dict[str, _T] = {}
    for name, group in groups.items():
        if len(group) == 1:
            named[name] = group[0]
            continue
        for index, thing in enumerate(sorted(group, key=lambda thing: natural(str(id_of(thing))))):
            named[
                name if index == 0 else _cut(f"{name}%~{spell(str(id_of(thing)))}", f"{name}{id_of(thing)}")
            ] = thing
    return named


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def _unpercent(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return text  # nothing that `spell` has made


def _cut(spelt: str, name: str) -> str:
    raw = spelt.encode("utf-8")
    if len(raw) <= MAX_NAME_BYTES:
        return spelt
    tail = "%~" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    beginning = raw[: MAX_NAME_BYTES - len(tail)].decode("utf-8", "ignore")
    # A spelling must not be cut in two.
    return re.sub(r"%[0-9A-Fa-f]?$", "", beginning) + tail
