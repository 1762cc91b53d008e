"""The attributes `user.xnat.*` of subjects and sessions that say what is known of them: sex, age, scanner ...

Used by `project_folders` and `session_folders`. Answered from memory: what nobody has listed yet is asked for
in the background, and is there at the next look.
Threading: any thread; no state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from xnatfs.listing.ages import age_at
from xnatfs.listing.details import SESSIONS, SUBJECTS
from xnatfs.server.detail_requests import Details
from xnatfs.server.records import ExperimentRecord
from xnatfs.tables.engine.people_tables import SESSION_NAMES, SUBJECT_NAMES
from xnatfs.tree.node import Branch, Node
from xnatfs.tree.resource import Sources

# The kernel takes names of 255 bytes, and 64 KiB of names or of a value: a folder with more could not be
# copied.
_LONGEST_NAME = 200
_MOST_BYTES = 16 * 1024


class PersonFolder(Branch):
    """A folder with attributes that may become known later."""

    __slots__ = ("_more",)

    def __init__(
        self,
        inode: int,
        entries: Callable[[], Mapping[str, Node]],
        more: Callable[[], Mapping[str, str]],
        *,
        mtime: float | None = None,
        alias: Callable[[str], Node | None] | None = None,
        xattrs: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(inode, entries, mtime=mtime, alias=alias, xattrs=xattrs)
        self._more = more

    def xattrs(self) -> dict[str, str]:
        return {**self._more(), **super().xattrs()}


def of_subject(sources: Sources, project: str, identity: str) -> dict[str, str]:
    """What is known of a subject."""
    return _named(sources.listing_service.details.known(SUBJECTS, project, identity), SUBJECT_NAMES)


def of_session(sources: Sources, project: str, experiment: ExperimentRecord) -> dict[str, str]:
    """What is known of a session, the age at it among it."""
    details = sources.listing_service.details
    session = details.known(SESSIONS, project, experiment.id)
    found = _named(session, SESSION_NAMES)
    subject = details.known(SUBJECTS, project, experiment.subject_id)
    if details.privacy.demographics and session is not None and subject is not None:
        own = experiment.age if experiment.age is not None else session.values.get("age", "")
        dob, yob = (subject.values.get(name, "") for name in ("dob", "yob"))
        found["age"] = age_at(own, dob, yob, experiment.date).years
    return {name: value for name, value in found.items() if value}


def _named(found: Details | None, names: Mapping[str, str]) -> dict[str, str]:
    if found is None:
        return {}
    values = {name: found.values.get(key, "") for key, name in names.items()}
    room = _MOST_BYTES
    for name, value in found.custom.items():
        length = len(name.encode(errors="replace"))
        size = length + len(value.encode(errors="replace"))
        if name.isprintable() and length <= _LONGEST_NAME and size <= room:
            values[f"custom.{name}"] = value
            room -= size
    return {name: value for name, value in values.items() if value}
