"""Whether a project, or a resource of its own, is really gone: another form than the one it lacks in says.

Used by `listing.projects`, `listing.summaries` and the tables. A 404 proves nothing, nor does an empty
listing (xnat-rest.md 13): both come while a query inside the server fails.
Threading: any thread; no state.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from xnatfs.errors import Cause, Failure
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.records import Owner, ResourceRecord
from xnatfs.server.resources import Resources
from xnatfs.server.witness_requests import WitnessRequests

log = logging.getLogger(__name__)


class ProjectProof:
    """Asks one server, at once and each time."""

    def __init__(self, listings: ListingRequests, resources: Resources) -> None:
        self._listings = listings
        self._resources = resources

    def own_resources(self, identity: str, expected: Iterable[int], *, witness: bool) -> list[ResourceRecord]:
        """The resources of the project itself. Their listing can come back right and empty while a query
        inside it fails (xnat-rest.md 13), so what it lacks of the `expected` ones (their numbers) has to be
        lacking in the list of projects, too.

        Args:
            witness: whether anything else tells of them; if not, an empty listing is compared with the one of
                their files.

        Raises:
            Failure: UNPROVEN if it is not; what keeps the server from answering.
        """
        owner = Owner("project", identity)
        found = self._resources.of(owner)
        if not found and not witness and self._resources.files_of(owner).files:
            raise Failure(Cause.UNPROVEN, f"the resources of project {identity}", "but it has files")
        lacking = set(expected) - {one.id for one in found}
        if lacking:
            now = {one.id: one for one in self._listings.projects()}.get(identity)
            if now is not None and now.resources is not None:
                lacking &= {number for number, _, _ in now.resources}
            else:  # the list of projects does not tell, perhaps because of the same query
                lacking = {one for one in lacking if self._answers_for(identity, one)}
        if lacking:
            raise Failure(
                Cause.UNPROVEN, f"the resources of project {identity}", f"{len(lacking)} are not listed"
            )
        return found

    def _answers_for(self, identity: str, number: int) -> bool:
        """Whether the server still knows a resource of a project: of an unknown number it says 404, of one it
        cannot read just now 500.

        Raises:
            Failure: what keeps the server from answering.
        """
        try:
            self._resources.files_of_resource(ResourceRecord(Owner("project", identity), "", number))
        except Failure as failure:
            if failure.status != 404:
                raise
            return False
        return True

    def check(self, identity: str) -> None:
        """Return if the server answers about a project, asked now: what it refuses otherwise is then its own
        failure.

        Raises:
            Failure: UNPROVEN, or what keeps the server from answering.
        """
        if not WitnessRequests(self._listings).first_experiment(identity):
            raise Failure(Cause.UNPROVEN, f"project {identity}", "it no longer has any experiment")

    def gone(self, identity: str) -> bool:
        """Whether a list of projects that came back right, asked for now, is without this one."""
        try:
            return identity not in {one.id for one in self._listings.projects()}
        except Failure as failure:
            log.info("cannot determine whether project %s was removed: %s", identity, failure)
            return False
