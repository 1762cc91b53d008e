"""The mapping files in XNAT's configuration service, of each project and of the site: asked for once, held,
asked for again when they are old.

Used by the BIDS view. One request a project and one a server where there is none. No stamp moves with a
configuration, so its age is all there is.
Threading: any thread; no lock is held over I/O.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from xnatfs.concurrency.refreshable import Kept, Refreshable
from xnatfs.errors import Cause, Failure
from xnatfs.listing.environment import ListingEnvironment
from xnatfs.server.configuration_requests import ConfigurationRequests
from xnatfs.server.witness_requests import WitnessRequests

_KIND = "configuration"
SITE = "the site"  # no project has a blank in its id


class ConfigurationListings:
    """The mapping files of one server's projects."""

    def __init__(self, environment: ListingEnvironment) -> None:
        self._environment = environment
        self._requests = ConfigurationRequests(environment.listings)
        self._witness = WitnessRequests(environment.listings)
        self._values: Refreshable[str, dict[str, str]] = environment.refreshable(
            "the configuration of", self._kept, again_after=environment.limits.ttl
        )

    def of(self, project: str) -> dict[str, str]:
        """The files of a project, or of the `SITE`, by tool.

        Raises:
            Failure: what keeps the server from answering, if nothing is known.
        """
        fresh = self._values.fresh(project, self._environment.lasts(""))
        return self._values.get(project, partial(self._renew, project)) if fresh is None else fresh

    def refresh(self) -> None:
        """Ask the server at the next look."""
        self._values.refresh()

    def _renew(self, project: str) -> dict[str, str]:
        epoch = self._values.epoch
        found = self._requests.texts("" if project == SITE else project)
        before = self._values.latest(project)
        if before is not None and before.value.keys() - found.keys():
            self._confirm(project)
        self._values.put(project, found, epoch=epoch)
        if before is None or before.value != found:
            self._environment.stored.keep(_KIND, project, "", found)
        return found

    def _confirm(self, project: str) -> None:
        """That a file is gone: a status alone proves no absence (xnat-rest.md 13)."""
        projects = self._witness.project_ids()
        if project not in (SITE, *projects):
            raise Failure(Cause.UNPROVEN, f"the configuration of {project}")

    def _kept(self, project: str) -> Kept[dict[str, str]] | None:
        return self._environment.stored.read(_KIND, project, _texts)


def _texts(body: Any) -> dict[str, str]:
    return {str(tool): str(text) for tool, text in body.items()}
