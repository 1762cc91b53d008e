"""What the user is in each project, and whom to ask: said by the table of accessible projects only.

Used by the tree where a project has nothing to read, to say why. One request for all projects, when the first
such project is looked at; it is optional, so nothing waits long for it and no failure of it is anybody's.
Threading: any thread; values are replaced, never changed.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from xnatfs.errors import Cause, Failure
from xnatfs.listing.environment import ListingEnvironment
from xnatfs.server import claims
from xnatfs.server.resultset import pick

log = logging.getLogger(__name__)

_HOLDS_S = 600.0
_FAILED_HOLDS_S = 60.0
_LONGEST_WAIT_S = 2.0


class ProjectAccess(NamedTuple):
    """A project for this user; each "" where the server does not say.

    `role`: the user's group, such as Members. `accessibility`: public, protected or private. `investigator`:
    its principal investigator.
    """

    role: str = ""
    accessibility: str = ""
    investigator: str = ""


class ProjectAccessTable:
    """The table of one server, for one user."""

    def __init__(self, environment: ListingEnvironment) -> None:
        self._environment = environment
        self._held: tuple[dict[str, ProjectAccess], float] = ({}, 0.0)  # and until when, as the clock says

    def of(self, project: str) -> ProjectAccess | None:
        """What is said of a project; None if nothing is, or the server does not answer soon.

        Raises:
            Failure: INTERRUPTED.
        """
        environment = self._environment
        table, until = self._held
        if environment.clock.now() >= until:
            try:
                call = environment.calls.start("the access to projects", self._load)
                table = call.wait(_LONGEST_WAIT_S, environment.policy(held=True))
            except Failure as failure:
                if failure.cause is Cause.INTERRUPTED:
                    raise
                log.info("cannot determine what the user is in each project: %s", failure)
                self._hold(table, _FAILED_HOLDS_S)
        return table.get(project)

    def forget(self) -> None:
        """Ask again at the next look."""
        self._hold({}, 0.0)

    def _hold(self, table: dict[str, ProjectAccess], seconds: float) -> None:
        self._held = table, self._environment.clock.now() + seconds

    def _load(self) -> dict[str, ProjectAccess]:
        rows = self._environment.listings.table("/data/projects", claims.PROJECTS, accessible="true")
        table = {}
        for row in rows:
            role = next((pick(row, name) for name in row if name.lower().startswith("user_role")), "")
            table[pick(row, "id")] = ProjectAccess(
                role, pick(row, "project_access").lower(), pick(row, "pi").strip(" ,")
            )
        self._hold(table, _HOLDS_S)
        return table
