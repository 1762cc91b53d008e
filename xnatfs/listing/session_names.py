"""Sessions by accession id or label, wherever this user can read them: for the lists of the user's.

Used by `tree.lists`. The server's search over all projects (`/data/experiments`) knows primary labels only,
may show what cannot be read and lack what can (xnat-rest.md 12): what it says is believed where the listing
of a project has the session; whatever is left open is looked for in the listings of the projects this user
sees. A project that may not be read holds nothing up.
Threading: any thread; no state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from xnatfs.concurrency.single_flight import SharedCall
from xnatfs.errors import Cause, Failure
from xnatfs.listing.environment import ListingEnvironment
from xnatfs.listing.projects import ProjectListings
from xnatfs.server.records import ExperimentRecord

log = logging.getLogger(__name__)

_LOOKED_THROUGH = 50  # projects at most, one request each, for names that are in no primary project


class Found(NamedTuple):
    """A session: the project it is shown in, and the names that led to it."""

    id: str
    project: str
    names: frozenset[str]


@dataclass
class NameSearch:
    """What was found; `closed` are projects that may not be looked into, `skipped` how many were not looked
    through, being too many.

    `doubtful` if a project that is listed answered as if it were not there: it may have gone just now, but so
    answers a server without its database (xnat-rest.md 13).
    """

    found: list[Found] = field(default_factory=list)
    closed: dict[str, str] = field(default_factory=dict)  # -> why
    skipped: int = 0
    doubtful: bool = False


class SessionNames:
    """Looks names up on one server.

    Args:
        environment: what listings are made with.
        projects: as the tree shows them.
    """

    def __init__(self, environment: ListingEnvironment, projects: ProjectListings) -> None:
        self._environment = environment
        self._listings = environment.listings
        self._projects = projects

    def find(self, names: tuple[str, ...], shown: Collection[str]) -> NameSearch:
        """The experiments with these accession ids or labels in the projects `shown`; asked now.

        Raises:
            Failure: what keeps the server from answering.
        """
        search = NameSearch()
        if not names:
            return search
        matches = self._wait(self._start(("names", names), lambda: self._listings.find_experiments(names)))
        wanted = {name: frozenset({name}) for name in names}  # what to look for -> the names it stands for
        met: set[str] = set()
        for project in dict.fromkeys(one[2] for one in matches):
            there = self._read(search, project, partial(self._shown_in, project)) if project in shown else {}
            for identity, label, home in matches:
                if home != project:
                    continue
                asked = frozenset({identity, label}).intersection(names)
                if identity in there:
                    search.found.append(Found(identity, project, asked))
                    met |= asked
                else:  # perhaps shared into a project of this user's, under another label
                    wanted[identity] = wanted.get(identity, frozenset()) | asked
        open_names = {one: asked for one, asked in wanted.items() if not asked <= met}
        if open_names:
            self._look_through(search, open_names, [one for one in shown if one not in search.closed])
        return search

    def _look_through(
        self, search: NameSearch, wanted: Mapping[str, frozenset[str]], projects: list[str]
    ) -> None:
        if len(projects) > _LOOKED_THROUGH:
            search.skipped = len(projects)
            return
        known = {one.id for one in search.found}
        calls: dict[str, SharedCall[list[ExperimentRecord]]] = {}
        for project in projects:
            if self._projects.fresh(project) is None:
                calls[project] = self._start(
                    ("experiments", project), partial(self._listings.experiments, project)
                )
        for project in projects:
            for one in self._read(
                search, project, partial(self._listed, project, calls.get(project))
            ).values():
                asked = wanted.get(one.id, frozenset()) | wanted.get(one.label, frozenset())
                if asked and one.id not in known:
                    known.add(one.id)
                    search.found.append(Found(one.id, project, asked))

    def _shown_in(self, project: str) -> Mapping[str, ExperimentRecord]:
        return self._projects.get(project).experiments

    def _listed(
        self, project: str, call: SharedCall[list[ExperimentRecord]] | None
    ) -> Mapping[str, ExperimentRecord]:
        return self._shown_in(project) if call is None else {one.id: one for one in self._wait(call)}

    def _wait(self, call: SharedCall[Any]) -> Any:
        return call.wait(self._environment.limits.listing_deadline, self._environment.policy(held=False))

    def _start(self, key: Hashable, work: Callable[[], Any]) -> SharedCall[Any]:
        return self._environment.calls.start((self._projects.snapshots.epoch, key), work)

    @staticmethod
    def _read(
        search: NameSearch, project: str, read: Callable[[], Mapping[str, ExperimentRecord]]
    ) -> Mapping[str, ExperimentRecord]:
        try:
            return read()
        except Failure as failure:
            if failure.cause not in (Cause.NO_ENTRY, Cause.NOT_ALLOWED, Cause.UNPROVEN):
                raise
            log.info("project %s is not searched: %s", project, failure)
            search.closed[project] = failure.cause.sentence
            search.doubtful = search.doubtful or failure.cause is Cause.UNPROVEN
            return {}
