"""`projects/PROJECT/README.txt` of a project in which the user can read nothing: why, and whom to ask.

Used by `project_folders`, which shows it there and nowhere else: every other file in `projects/` is the
server's.
Threading: any thread; no state.
"""

from __future__ import annotations

import textwrap

from xnatfs.config import Settings
from xnatfs.listing.project_access import ProjectAccess
from xnatfs.listing.snapshot import ProjectSnapshot
from xnatfs.server.records import ProjectRecord
from xnatfs.text import printable

_WIDTH = 100
_SOON = (
    "What can be read later shows here within a minute, or at once after `xnatfs refresh`; this file is then "
    "gone."
)


def has_nothing(snapshot: ProjectSnapshot) -> bool:
    """Whether the listings prove that a project has no file this user can see: no session, no resource of its
    own, and none of any subject.
    """
    return (
        not snapshot.experiments
        and not snapshot.own_resources
        and not snapshot.resources
        and snapshot.subjects.keys() <= snapshot.complete_subjects
    )


def why_empty(
    settings: Settings,
    user: str,
    project: ProjectRecord,
    access: ProjectAccess | None,
    snapshot: ProjectSnapshot | None,
) -> bytes:
    """The text.

    Args:
        access: what the user is in the project, where the server says so.
        snapshot: what it holds; None if the server refuses to list that.
    """
    shown = printable(project.id)
    if snapshot is None:
        first = (
            f"You can see that the project {shown} exists, but not what is in it: the server refuses to list \
its subjects and sessions (403)."
        )
        reason = "Its data is for its members."
    else:
        count = len(snapshot.subjects)
        subjects = f"{count or 'no'} subject{'' if count == 1 else 's'}"
        first = f"The server lists nothing to read in the project {shown}: {subjects}, no sessions, no files."
        reason = (
            "Either nothing has been archived in it yet (what is still in the prearchive does not show), or "
            "its sessions are of types that your role may not read: XNAT leaves those out without saying so."
        )
    page = f"{settings.server}/data/projects/{shown}"
    asked = f"Its page, {page}, shows who owns it; on a protected project, it has a link to request access."
    parts = [first, _role(user, access), reason, f"{asked}{_investigator(access)}", _SOON]
    paragraphs = [textwrap.fill(part, _WIDTH, break_on_hyphens=False) for part in parts if part]
    return ("\n\n".join(paragraphs) + "\n").encode("utf-8", "backslashreplace")


def _role(user: str, access: ProjectAccess | None) -> str:
    if access is None:
        return ""
    said = f"You are logged in as {printable(user)}"
    if access.role:
        said += f", who is in the group {printable(access.role)} of this project"
    else:
        said += ", who is in no group of this project"
    if access.accessibility:
        said += f". The project is {printable(access.accessibility)}"
    return f"{said}."


def _investigator(access: ProjectAccess | None) -> str:
    if access is None or not access.investigator:
        return ""
    return f" Its principal investigator is {printable(access.investigator)}."
