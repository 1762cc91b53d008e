"""What is known of a project's subjects and sessions beyond their labels: listed once, kept by the stamps
that move.

Used by the tables, the BIDS view and the attributes of folders. Each listing is compared with the project's
plain ones, which are had anyway: no row may be missing (`server.detail_requests`). Where a group of columns
is blank from top to bottom one object is looked at singly. One request a project for its subjects and one for
its sessions; nothing is asked until a stamp moves. 1.8's custom fields cost a request an object that has any.
Threading: any thread; no lock is held over I/O.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import NamedTuple

from xnatfs.concurrency.refreshable import Refreshable
from xnatfs.concurrency.single_flight import SharedCall, SingleFlight, WorkerPool
from xnatfs.errors import Failure
from xnatfs.listing.ages import Age, age_at
from xnatfs.listing.environment import ListingEnvironment
from xnatfs.listing.projects import ProjectListings
from xnatfs.listing.snapshot import ProjectSnapshot
from xnatfs.listing.stored_details import StoredDetails
from xnatfs.server.detail_requests import (
    DEMOGRAPHICS,
    SCANNERS,
    DetailListing,
    DetailRequests,
    Details,
    column_name,
)
from xnatfs.server.form_requests import is_refusal
from xnatfs.server.records import ExperimentRecord, parse_stamp

log = logging.getLogger(__name__)

SUBJECTS, SESSIONS = "subjects", "sessions"
_NOW_AND_THEN_S = 300.0  # what nobody asked for is asked for at most so often


class _Key(NamedTuple):
    """Which kind, of which project."""

    kind: str
    project: str

    def __str__(self) -> str:
        return f"the {self.kind} of {self.project}"


class DetailListings:
    """The details of one server's projects."""

    def __init__(
        self, environment: ListingEnvironment, projects: ProjectListings, requests: DetailRequests
    ) -> None:
        self._environment = environment
        self._projects = projects
        self._requests = requests
        self.privacy = requests.privacy
        self._stored = StoredDetails(environment.stored)
        self._composers = WorkerPool("details", 4)  # these wait for others
        self._calls = SingleFlight(self._composers)
        self._begun: dict[_Key, float] = {}  # when `known` last asked, as the clock says
        self._values: Refreshable[_Key, DetailListing] = environment.refreshable(
            "what is known of",
            lambda key: self._stored.details(*key),
            calls=self._calls,
            again_after=environment.limits.ttl,
        )

    def subjects(self, project: str) -> DetailListing:
        """The subjects of a project.

        Raises:
            Failure: NO_ENTRY if the user cannot see the project; what keeps the server from answering if
                nothing is held yet.
        """
        return self._get(SUBJECTS, project)

    def sessions(self, project: str) -> DetailListing:
        """Its experiments that are no image assessors.

        Raises:
            Failure: see `subjects`.
        """
        return self._get(SESSIONS, project)

    def age(self, project: str, experiment: ExperimentRecord, subjects: DetailListing) -> Age:
        """The age at a session; nothing where demographics are not shown.

        Args:
            subjects: the details of the project's subjects.

        Raises:
            Failure: see `subjects`.
        """
        if not self.privacy.demographics:
            return Age("", "")
        own = experiment.age
        if own is None:  # their listing did not tell
            own = self.sessions(project).value(experiment.id, "age")
        dob, yob = (subjects.value(experiment.subject_id, name) for name in ("dob", "yob"))
        return age_at(own, dob, yob, experiment.date)

    def own_fields(self, xsi_type: str, project: str, stamps: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """The own fields of experiments or assessors of one type; of one that cannot be read there are none.

        Args:
            stamps: by accession id, what moves when they change.

        Raises:
            Failure: what keeps the server from answering.
        """
        stored = self._stored
        kept = stored.fields(xsi_type, project)
        known = {one: found for one, found in kept.items() if found[0] and stamps.get(one) == found[0]}
        missing = [one for one in stamps if one not in known]
        calls = [
            self._environment.calls.start(
                (self._values.epoch, "own fields", one), partial(self._requests.own_fields, one)
            )
            for one in missing
        ]
        for one, call in zip(missing, calls, strict=True):
            try:
                known[one] = stamps[one], call.wait(self._environment.limits.listing_deadline)
            except Failure as failure:
                if failure.away or not is_refusal(failure):
                    raise
                self._environment.diagnostics.odd(f"{one}: its own fields cannot be read, and are left out")
        if missing:
            stored.put_fields(xsi_type, project, known)
        return {one: fields for one, (_, fields) in known.items()}

    def known(self, kind: str, project: str, identity: str) -> Details | None:
        """What is in memory of one object, if its own stamp says that it is the newest; else None, and all of
        them are asked for in the background, now and then.
        """
        key, now = _Key(kind, project), self._environment.clock.now()
        snapshot, held = self._projects.fresh(project), self._values.held(key)
        if snapshot is None:
            return None
        stamp = _objects(kind, snapshot).get(identity, "")
        if held is not None and stamp and held.value.stamps.get(identity) == stamp:
            return held.value.of.get(identity)
        if now - self._begun.get(key, -_NOW_AND_THEN_S) >= _NOW_AND_THEN_S:
            self._begun[key] = now
            whole = self._stamp(kind, snapshot)
            self._values.begin(key, partial(self._renew, kind, project, snapshot), stamp=whole)
        return None

    def refresh(self) -> None:
        """Ask the server at the next look."""
        self._begun.clear()
        self._values.refresh()

    def close(self) -> None:
        """Start nothing more."""
        self._composers.close()

    def _get(self, kind: str, project: str) -> DetailListing:
        snapshot = self._projects.get(project)
        stamp = self._stamp(kind, snapshot)
        fresh = self._values.fresh(_Key(kind, project), self._environment.lasts(stamp), stamp)
        if fresh is not None:
            return fresh
        return self._values.get(
            _Key(kind, project), partial(self._renew, kind, project, snapshot), stamp=stamp
        )

    def _stamp(self, kind: str, snapshot: ProjectSnapshot) -> str:
        """The same as long as nothing changed, and what is asked for and kept is the same."""

        def made() -> str:
            objects = _objects(kind, snapshot)
            if not objects or not all(objects.values()):
                return ""
            text = repr((self.privacy, sorted(objects.items())))
            return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:20]

        return snapshot.memo.get(("stamp of details", kind), made)

    def _renew(self, kind: str, project: str, snapshot: ProjectSnapshot) -> DetailListing:
        epoch, stamp = self._values.epoch, self._stamp(kind, snapshot)
        objects = _objects(kind, snapshot)
        kept = self._values.recall(_Key(kind, project), stamp)
        if kept is not None and kept.age < self._environment.lasts(stamp):
            kept.value.stamps = dict(objects)
            self._tell(kept.value)
            self._values.put(_Key(kind, project), kept.value, epoch=epoch, stamp=stamp, age=kept.age)
            return kept.value
        listing = self._listed(kind, project, snapshot, objects) if objects else DetailListing()
        if objects and self.privacy.demographics:
            self._add_custom_fields(kind, project, objects, listing)
        listing.stamps = dict(objects)
        self._tell(listing)
        self._values.put(_Key(kind, project), listing, epoch=epoch, stamp=stamp)
        self._stored.put_details(kind, project, stamp, listing)
        return listing

    def _tell(self, listing: DetailListing) -> None:
        for sentence in listing.odd:
            self._environment.diagnostics.odd(sentence)

    def _listed(
        self, kind: str, project: str, snapshot: ProjectSnapshot, objects: Mapping[str, str]
    ) -> DetailListing:
        if kind == SUBJECTS:
            listing = self._requests.subjects(project, objects)
            self._doubt(project, kind, listing, DEMOGRAPHICS, objects, self._requests.subject_fields)
            return listing
        imaging = {one.id: one.changed for one in snapshot.experiments.values() if one.may_have_scans}
        listing = self._requests.sessions(project, objects, imaging)
        self._doubt(project, kind, listing, SCANNERS, imaging, self._requests.own_fields)
        return listing

    def _doubt(
        self,
        project: str,
        kind: str,
        listing: DetailListing,
        columns: Collection[str],
        objects: Mapping[str, str],
        look: Callable[[str], Mapping[str, str]],
    ) -> None:
        """Where all of some columns are blank, look at one object: a server may not know them, and answer."""
        names = [name for name in map(column_name, columns) if name in listing.columns]
        if not names or not objects or any(listing.value(one, name) for one in objects for name in names):
            return
        witness = _newest_first(objects)[0]
        try:
            item = look(witness)
        except Failure as failure:
            if failure.away or not is_refusal(failure):
                raise
            log.info("%s bears no witness: %s", witness, failure)
            return
        told = {key.lower().rpartition("/")[2] for key, value in item.items() if value}
        if told & {name.lower() for name in names}:
            listing.columns = [name for name in listing.columns if name not in names]
            listing.odd.append(
                f"project {project}: its server leaves {', '.join(names[:3])} ... blank where it lists its "
                f"{kind}; {witness} has some by itself"
            )

    # --- custom fields of 1.8 -------------------------------------------------------------------------------

    def _add_custom_fields(
        self, kind: str, project: str, objects: Mapping[str, str], listing: DetailListing
    ) -> None:
        patience = self._environment.limits.listing_deadline
        known = {
            one: found
            for one, found in self._stored.fields(kind, project).items()
            if found[0] and objects.get(one) == found[0]
        }
        order = _newest_first(objects)
        if listing.with_fields is not None:
            wanted = [one for one in order if one in listing.with_fields]
        else:
            # Nothing tells who has any: the one that changed last is asked, and if it has some, everybody. To
            # ask everybody would be a request a subject where most labs have none; so it is doubt, and said.
            if order[0] not in known:
                fields = self._begin_fields(kind, project, order[0], probe=True).wait(patience)
                if fields is None:
                    return
                known[order[0]] = objects[order[0]], fields
            wanted = order if any(fields for _, fields in known.values()) else []
            if not wanted and len(known) < len(order):
                listing.odd.append(
                    f"project {project}: its server does not list which {kind} have custom fields; "
                    f"{len(known)} of {len(order)} asked, none found: those of the others would be missing"
                )
        calls = [(one, self._begin_fields(kind, project, one)) for one in wanted if one not in known]
        for one, call in calls:
            fields = call.wait(patience)
            if fields is None:
                listing.odd.append(f"{one}: its custom fields cannot be read, and are left out")
            else:
                known[one] = objects[one], fields
        self._stored.put_fields(kind, project, known)
        for one, (_, fields) in known.items():
            if fields and one in listing.of:
                variables = listing.of[one].custom
                more = {
                    name if name not in variables else f"custom_fields.{name}": value
                    for name, value in fields.items()
                }
                listing.of[one] = listing.of[one]._replace(custom={**variables, **more})

    def _begin_fields(
        self, kind: str, project: str, identity: str, *, probe: bool = False
    ) -> SharedCall[dict[str, str] | None]:
        level = "subjects" if kind == SUBJECTS else "experiments"
        return self._environment.calls.start(
            (self._values.epoch, "custom fields", project, identity),
            partial(self._requests.custom_fields, project, level, identity, probe=probe),
        )


def _objects(kind: str, snapshot: ProjectSnapshot) -> dict[str, str]:
    """The objects that a listing has to have, with their stamps. Not the subjects that no listing of the
    project has: a session may be shared without its subject (xnat-rest.md 12).
    """

    def made() -> dict[str, str]:
        if kind == SESSIONS:
            return {one.id: one.changed for one in snapshot.experiments.values()}
        every = {one.id: one.changed for one in snapshot.subjects.values()}
        listed = {one: changed for one, changed in every.items() if changed}
        return listed or every

    return snapshot.memo.get(("stamps of details", kind), made)


def _newest_first(objects: Mapping[str, str]) -> list[str]:
    return sorted(objects, key=lambda one: (-(parse_stamp(objects[one]) or 0.0), one))
