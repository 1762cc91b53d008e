"""Snapshots as texts and back: what is kept over a remount, in the store of `cache.listing_store`.

Used by `listing.service`. JSON, not pickle: what is read back from a disk must never run. A body in another
form than this version writes is as good as none.
Threading: any thread; values in, values out.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import astuple, replace
from typing import Any, TypeVar

from xnatfs.cache.listing_store import ListingStore
from xnatfs.concurrency.refreshable import Kept
from xnatfs.listing.snapshot import FileIndex, ProjectSnapshot, ProjectSummary, SessionSnapshot
from xnatfs.server.records import (
    AssessorRecord,
    ExperimentRecord,
    FileRecord,
    Owner,
    ProjectRecord,
    ReconstructionRecord,
    ResourceRecord,
    ScanRecord,
    SubjectRecord,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

_PROVEN_FOR_S = 86400.0  # a server may be updated
_FORM = 5  # of the bodies below; another number is not read


class StoredListings:
    """Typed access to a `ListingStore`.

    Args:
        ages: whether sessions' ages are kept; what was stored otherwise is not read.
    """

    def __init__(self, store: ListingStore, *, ages: bool = True) -> None:
        self._store = store
        self._form = _FORM if ages else -_FORM
        self._forms: list[Any] | None = None  # as last put

    # --- projects -------------------------------------------------------------------------------------------

    def projects(self) -> Kept[dict[str, ProjectRecord]] | None:
        """The list of projects."""
        return self.read("projects", "", lambda body: {row[0]: _project_record(row) for row in body})

    def put_projects(self, projects: dict[str, ProjectRecord]) -> None:
        """Keep the list of projects."""
        self.keep("projects", "", "", _rows(projects.values()))

    def project(self, identity: str) -> Kept[ProjectSnapshot] | None:
        """A project's snapshot."""
        return self.read("project", identity, _project)

    def put_project(self, snapshot: ProjectSnapshot) -> None:
        """Keep a project's snapshot."""
        body = {
            "project": astuple(snapshot.project),
            "subjects": _rows(snapshot.subjects.values()),
            "experiments": _rows(snapshot.experiments.values()),
            "scans": _rows(one for group in snapshot.scans.values() for one in group),
            "speaks_for": sorted(snapshot.speaks_for),
            "scans_known": sorted(snapshot.scans_known),
            "assessors": _rows(one for group in snapshot.assessors.values() for one in group),
            "reconstructions": _rows(one for group in snapshot.reconstructions.values() for one in group),
            "resources": _rows(one for group in list(snapshot.resources.values()) for one in group),
            "complete": sorted(snapshot.complete),
            "complete_subjects": sorted(snapshot.complete_subjects),
            "own": _rows(snapshot.own_resources),
        }
        self.keep("project", snapshot.project.id, "", body)

    # --- sessions and subjects ------------------------------------------------------------------------------

    def session(self, project: str, identity: str) -> Kept[SessionSnapshot] | None:
        """A session that was listed singly."""
        return self.read("session", f"{project}\n{identity}", _session)

    def put_session(self, project: str, session: SessionSnapshot) -> None:
        """Keep a session that was listed singly."""
        body = {
            "experiment": astuple(session.experiment),
            "scans": _rows(session.scans),
            "assessors": _rows(session.assessors),
            "reconstructions": _rows(session.reconstructions),
            "resources": _rows(one for group in session.resources.values() for one in group),
        }
        self.keep("session", f"{project}\n{session.experiment.id}", session.experiment.version, body)

    def subject(self, identity: str) -> Kept[list[ResourceRecord]] | None:
        """The resources of a subject that was listed singly."""
        return self.read("subject", identity, lambda body: [_resource(row) for row in body])

    def put_subject(self, identity: str, stamp: str, resources: list[ResourceRecord]) -> None:
        """Keep the resources of a subject."""
        self.keep("subject", identity, stamp, _rows(resources))

    # --- outlines -------------------------------------------------------------------------------------------

    def summary(self, project: str) -> Kept[ProjectSummary] | None:
        """A project's outline."""
        return self.read("outline", project, _summary)

    def put_outline(self, summary: ProjectSummary) -> None:
        """Keep a project's outline."""
        body = {
            "project": summary.project,
            "experiments": _rows(summary.experiments.values()),
            "resources": _rows(summary.resources),
            "own": {one: _rows(found) for one, found in summary.own.items()},
            "known": sorted(summary.known),
            "every": {one: _rows(found) for one, found in list(summary.every.items())},
        }
        self.keep("outline", summary.project, "", body)

    # --- files ----------------------------------------------------------------------------------------------

    def files(self, key: Hashable) -> Kept[FileIndex] | None:
        """The files under a key of `listing.service`."""
        return self.read("files", json.dumps(key), _files)

    def put_files(self, key: Hashable, stamp: str, snapshot: FileIndex) -> None:
        """Keep a file listing. One row a resource, not a file: owner and label are said once."""
        groups: list[list[Any]] = []
        for number, files in snapshot.by_resource.items():
            last: tuple[Owner, str] | None = None
            for file in files:
                head = (file.owner, file.resource_label)
                if head != last:
                    groups.append([number, *head, []])
                    last = head
                groups[-1][-1].append((file.path, file.size, file.digest))
        self.keep("files", json.dumps(key), stamp, {"groups": groups, "odd": snapshot.odd})

    # --- what the server takes ------------------------------------------------------------------------------

    def forms(self) -> tuple[dict[str, float], set[str]]:
        """The forms the server refused, with the time of the refusal in epoch seconds, and those it proved to
        be right in.
        """
        kept = self.read(
            "forms",
            "",
            lambda body: ({str(one): float(at) for one, at in body[0]}, {str(one) for one in body[1]}),
        )
        return kept.value if kept and kept.age < _PROVEN_FOR_S else ({}, set())

    def put_forms(self, refused: dict[str, float], proven: list[str]) -> None:
        """Keep what was found out about the server; called at every renewal, and mostly nothing new."""
        forms = [list(refused.items()), proven]
        if forms == self._forms:
            return
        self._forms = forms
        self.keep("forms", "", "", forms)

    def drop(self, kind: str, key: Hashable) -> None:
        """Forget a project ("project"), its summary ("outline"), a session of a project ("session", by both
        ids), or a listing of files ("files").
        """
        if isinstance(key, tuple) and kind == "session":
            key = "\n".join(map(str, key))
        self._store.drop(kind, json.dumps(key) if kind == "files" else str(key))

    def flush(self) -> None:
        """Wait until all is written."""
        self._store.flush()

    def close(self) -> None:
        """Write what waits, and end."""
        self._store.close()

    # --- helpers --------------------------------------------------------------------------------------------

    def read(self, kind: str, key: str, build: Callable[[Any], T]) -> Kept[T] | None:
        """What was kept of a kind under a key, as `build` makes it of the JSON."""
        row = self._store.get(kind, key)
        if row is None:
            return None
        try:
            form, body = json.loads(row.body)
            if form != self._form:
                return None
            return Kept(build(body), row.stamp, max(0.0, time.time() - row.made))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            log.warning("a stored listing (%s) is malformed: %s", kind, error)
            return None

    def keep(self, kind: str, key: str, stamp: str, body: Any) -> None:
        """Keep something that JSON can hold."""
        self._store.put(kind, key, stamp, json.dumps([self._form, body]))


def _rows(records: Iterable[Any]) -> list[Any]:
    """Records as lists of their fields, in the order the classes declare them. `astuple` would copy deeply:
    20 us each, this 1.
    """
    return [[getattr(one, name) for name in one.__dataclass_fields__] for one in records]


def _resource(row: list[Any]) -> ResourceRecord:
    return ResourceRecord(Owner(*row[0]), *row[1:])


def _by_owner(rows: list[list[Any]]) -> dict[Owner, list[ResourceRecord]]:
    found: dict[Owner, list[ResourceRecord]] = {}
    for row in rows:
        one = _resource(row)
        found.setdefault(one.owner, []).append(one)
    return found


def _project_record(row: list[Any]) -> ProjectRecord:
    record = ProjectRecord(*row)
    return (
        record
        if record.resources is None
        else replace(record, resources=tuple((one[0], one[1], one[2]) for one in record.resources))
    )


def _project(body: Any) -> ProjectSnapshot:
    snapshot = ProjectSnapshot(_project_record(body["project"]))
    snapshot.subjects = {row[0]: SubjectRecord(*row) for row in body["subjects"]}
    snapshot.experiments = {row[0]: ExperimentRecord(*row) for row in body["experiments"]}
    for row in body["scans"]:
        snapshot.scans.setdefault(row[0], []).append(ScanRecord(*row))
    snapshot.speaks_for = set(body["speaks_for"])
    snapshot.scans_known = set(body["scans_known"])
    for row in body["assessors"]:
        assessor = AssessorRecord(*row)
        snapshot.assessors.setdefault(assessor.session_id, []).append(assessor)
    for row in body["reconstructions"]:
        snapshot.reconstructions.setdefault(row[0], []).append(ReconstructionRecord(*row))
    snapshot.resources = _by_owner(body["resources"])
    snapshot.complete = set(body["complete"])
    snapshot.complete_subjects = set(body["complete_subjects"])
    snapshot.own_resources = [_resource(row) for row in body["own"]]
    snapshot.put_in_order()
    return snapshot


def _summary(body: Any) -> ProjectSummary:
    return ProjectSummary(
        body["project"],
        {row[0]: ExperimentRecord(*row) for row in body["experiments"]},
        [_resource(row) for row in body["resources"]],
        {one: [_resource(row) for row in rows] for one, rows in body["own"].items()},
        set(body["known"]),
        {one: [_resource(row) for row in rows] for one, rows in body["every"].items()},
    )


def _session(body: Any) -> SessionSnapshot:
    return SessionSnapshot(
        ExperimentRecord(*body["experiment"]),
        [ScanRecord(*row) for row in body["scans"]],
        [AssessorRecord(*row) for row in body["assessors"]],
        [ReconstructionRecord(*row) for row in body["reconstructions"]],
        _by_owner(body["resources"]),
    )


def _files(body: Any) -> FileIndex:
    files: list[FileRecord] = []
    for number, owner, label, rows in body["groups"]:
        whose = Owner(*owner)
        files += [FileRecord(whose, number, label, path, size, digest) for path, size, digest in rows]
    return FileIndex.of(files, body["odd"])
