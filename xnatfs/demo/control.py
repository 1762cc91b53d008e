"""The stand-in's own routes, /demo/...: switches, the request log, changes of the data on a running server.

Used by tests and benchmarks over HTTP; needs no login. A Starlette application on the server's event loop, so
it may change the archive.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from . import changes
from .auth import Sessions
from .faults import Switches
from .model import Archive, BytesContent, Experiment, Resource, Scan, Subject
from .requestlog import Record, RequestLog

Op = dict[str, Any]


class Changes:
    """Changes of an archive by name, as a person or a pipeline would make them: the stamps move that XNAT
    moves.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._operations: dict[str, Callable[[Op], Any]] = {
            "put_file": self.put_file,
            "delete_file": self.delete_file,
            "add_resource": self.add_resource,
            "delete_resource": self.delete_resource,
            "add_session": self.add_session,
            "delete_session": self.delete_session,
            "add_scan": self.add_scan,
            "delete_scan": self.delete_scan,
            "set_label": self.set_label,
            "set_type": self.set_type,
            "set_access": self.set_access,
            "put_on_disk": self.put_on_disk,
            "refresh": self.refresh,
            "break_catalog": self.break_catalog,
            "set_status": self.set_status,
            "share": self.share,
            "touch": self.touch,
            "edit": self.edit,
        }

    def apply(self, operation: Op) -> Any:
        """Carry out `{"op": name, ...}`; KeyError and ValueError say what is wrong with it."""
        return self._operations[operation["op"]](operation)

    def put_file(self, operation: Op) -> None:
        """`resource` (number), `path`, `text` or `base64`, `modified` (ISO), `bump` (default true).

        A changed content gets its true digest and size in the catalog. As on XNAT, stamps move only if the
        count or the size of the resource's files changes: an overwrite with equal size moves none. `bump:
        false` moves none in any case, as a file that is put on the server's disk.
        """
        resource, owner = changes.find(self._archive, int(operation["resource"]))
        modified = (
            datetime.fromisoformat(operation["modified"]) if "modified" in operation else self._archive.tick()
        )
        before = changes.stats(resource)
        changes.put(resource, str(operation["path"]), BytesContent(_bytes(operation)), modified)
        if operation.get("bump", True):
            changes.written(self._archive, resource, owner, before)

    def delete_file(self, operation: Op) -> None:
        """`resource`, `path`; `gone: true` keeps the catalog entry and loses only the file. `bump` as for
        put_file.
        """
        resource, owner = changes.find(self._archive, int(operation["resource"]))
        entry = next((item for item in resource.entries if item.path == operation["path"]), None)
        if entry is None:
            raise KeyError(operation["path"])
        if operation.get("gone"):
            entry.catalog_size, entry.digest, entry.content = entry.listed_size, entry.listed_digest, None
            return
        before = changes.stats(resource)
        resource.entries.remove(entry)
        if operation.get("bump", True):
            changes.written(self._archive, resource, owner, before)

    def put_on_disk(self, operation: Op) -> None:
        """`resource`, `path`, `text` or `base64`: a file laid beside the catalog, which goes on saying what
        it said; no stamp moves.
        """
        resource, _ = changes.find(self._archive, int(operation["resource"]))
        changes.put_on_disk(
            resource, str(operation["path"]), BytesContent(_bytes(operation)), self._archive.tick()
        )

    def refresh(self, operation: Op) -> None:
        """`resource`, `options` (append, delete, checksum, populateStats; default all): a catalog refresh of
        one resource.
        """
        resource, owner = changes.find(self._archive, int(operation["resource"]))
        changes.refresh(
            self._archive,
            resource,
            owner,
            set(operation.get("options", "append,delete,checksum,populateStats").split(",")),
        )

    def break_catalog(self, operation: Op) -> None:
        """`resource`, `broken` (default true): its catalog cannot be read."""
        resource, _ = changes.find(self._archive, int(operation["resource"]))
        resource.broken = bool(operation.get("broken", True))

    def set_status(self, operation: Op) -> None:
        """`experiment`, `status`: active, quarantine, locked or obsolete; locking moves no stamp."""
        experiment = self._archive.experiments[operation["experiment"]]
        experiment.status = str(operation["status"])
        if experiment.status != "locked":
            self._archive.touch(experiment)

    def add_resource(self, operation: Op) -> int:
        """`label` and one of `session` (with `scan`), `subject`, `project`. Answers the number."""
        archive = self._archive
        resource = Resource(
            archive.next_number(), str(operation["label"]), format=operation.get("format", "")
        )
        if "session" in operation:
            experiment = archive.experiments[operation["session"]]
            owner = changes.Owner(experiment.resources, experiment)
            if "scan" in operation:
                scan = next(scan for scan in experiment.scans if scan.id == operation["scan"])
                owner = changes.Owner(scan.resources, experiment, scan)
        elif "subject" in operation:
            subject = archive.subjects[operation["subject"]]
            owner = changes.Owner(subject.resources, subject=subject)
        else:
            project = archive.projects[operation["project"]]
            owner = changes.Owner(project.resources, project=project)
        changes.add_resource(archive, owner, resource)
        return resource.id

    def delete_resource(self, operation: Op) -> None:
        resource, owner = changes.find(self._archive, int(operation["resource"]))
        changes.delete_resource(self._archive, owner, resource)

    def add_session(self, operation: Op) -> str:
        """`project`, `subject` (id), `label`, and optionally `id`, `xsi_type`, `date`, `session_id` (an
        assessor). Answers the id.
        """
        archive = self._archive
        name = operation.get("id") or f"{archive.site}_E{archive.next_number():05d}"
        experiment = Experiment(
            name,
            operation["label"],
            operation["project"],
            operation.get("subject", ""),
            operation.get("xsi_type", "xnat:mrSessionData"),
            archive.tick(),
            date=operation.get("date", ""),
            session_id=operation.get("session_id", ""),
        )
        changes.add_experiment(archive, experiment)
        return name

    def delete_session(self, operation: Op) -> None:
        changes.delete_experiment(self._archive, self._archive.experiments[operation["id"]])

    def add_scan(self, operation: Op) -> int:
        """`session`, `scan` (id), `type`. Answers the number."""
        scan = Scan(str(operation["scan"]), operation.get("type", ""), self._archive.next_number())
        changes.add_scan(self._archive, self._archive.experiments[operation["session"]], scan)
        return scan.number

    def delete_scan(self, operation: Op) -> None:
        experiment = self._archive.experiments[operation["session"]]
        for scan in [scan for scan in experiment.scans if scan.id == operation["scan"]]:
            changes.delete_scan(self._archive, experiment, scan)

    def set_label(self, operation: Op) -> None:
        """`experiment` or `subject` (id), `label`; with `project` the label in a project it is shared into
        (which is that of the share).
        """
        archive = self._archive
        item: Experiment | Subject
        if "experiment" in operation:
            item = experiment = archive.experiments[operation["experiment"]]
            in_own_project = operation.get("project", item.project) == item.project
            if in_own_project:
                archive.edit(experiment)
            else:
                archive.shared(experiment)
        else:
            item = subject = archive.subjects[operation["subject"]]
            in_own_project = operation.get("project", item.project) == item.project
            if in_own_project:
                archive.edit(subject=subject)
        if in_own_project:
            item.label = operation["label"]
        else:
            item.shares[operation["project"]] = operation["label"]

    def set_type(self, operation: Op) -> None:
        """`session`, `scan`, `type`; also `quality`."""
        experiment = self._archive.experiments[operation["session"]]
        scan = next(scan for scan in experiment.scans if scan.id == operation["scan"])
        scan.type = operation.get("type", scan.type)
        scan.quality = operation.get("quality", scan.quality)
        self._archive.edit(experiment, scan=scan)

    def set_access(self, operation: Op) -> None:
        """`project`, `access` and/or `members`: no stamp moves."""
        project = self._archive.projects[operation["project"]]
        project.access = operation.get("access", project.access)
        if "members" in operation:
            project.members = set(operation["members"])

    def share(self, operation: Op) -> None:
        """`experiment` or `subject` (id) into `project`, with an optional `label`; `end: true` ends the
        share.
        """
        archive, project = self._archive, operation["project"]
        item: Experiment | Subject
        if "experiment" in operation:
            item = experiment = archive.experiments[operation["experiment"]]
            archive.shared(experiment)
        else:
            item = archive.subjects[operation["subject"]]
        if operation.get("end"):
            del item.shares[project]
        else:
            item.shares[project] = operation.get("label")

    def touch(self, operation: Op) -> None:
        """`experiment` or `subject`: something below it changed; only the stamps that show it."""
        self._archive.touch(
            self._archive.experiments.get(operation.get("experiment", "")),
            self._archive.subjects.get(operation.get("subject", "")),
        )

    def edit(self, operation: Op) -> None:
        """`experiment`, `subject` or `project` (and a new `note`, or `description` of a project); none: every
        experiment is edited once.

        So the own stamp of an experiment is set, which is blank until then.
        """
        archive = self._archive
        if not operation.keys() & {"experiment", "subject", "project"}:
            archive.edit_all()
            return
        experiment = archive.experiments[operation["experiment"]] if "experiment" in operation else None
        subject = archive.subjects[operation["subject"]] if "subject" in operation else None
        project = archive.projects[operation["project"]] if "project" in operation else None
        archive.edit(experiment, subject, project)
        if experiment is not None:
            experiment.note = operation.get("note", experiment.note)
        if project is not None:
            project.description = operation.get("description", project.description)


def _bytes(operation: Op) -> bytes:
    return base64.b64decode(operation["base64"]) if "base64" in operation else str(operation["text"]).encode()


def _totals(records: list[Record]) -> dict[str, Any]:
    return {
        "requests": len(records),
        "sent": sum(record.sent for record in records),
        "under_way": sum(not record.duration for record in records),
        "faults": Counter(record.fault for record in records if record.fault),
    }


def control_app(
    archive: Archive, switches: Switches, log: RequestLog, sessions: Sessions, lose: Callable[[], int]
) -> Starlette:
    """The application for /demo/."""
    named = Changes(archive)

    async def read_switches(request: Request) -> JSONResponse:
        return JSONResponse(switches.as_dict())

    async def set_switches(request: Request) -> JSONResponse:
        try:
            switches.update(await request.json())
        except (ValueError, AttributeError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(switches.as_dict())

    async def fired(request: Request) -> JSONResponse:
        return JSONResponse(dict(switches.fired))

    async def read_log(request: Request) -> JSONResponse:
        return JSONResponse(
            [record.as_dict() for record in log.matching(request.query_params.get("pattern"))]
        )

    async def totals(request: Request) -> JSONResponse:
        return JSONResponse(_totals(log.matching(request.query_params.get("pattern"))))

    async def clear_log(request: Request) -> JSONResponse:
        records = log.matching(None)
        log.clear()
        return JSONResponse(_totals(records))

    async def change(request: Request) -> JSONResponse:
        try:
            wanted = await request.json()
            operations = wanted if isinstance(wanted, list) else [wanted]
            return JSONResponse([named.apply(operation) for operation in operations])
        except (KeyError, ValueError, StopIteration, json.JSONDecodeError) as error:
            return JSONResponse({"error": repr(error)}, 400)

    async def end_sessions(request: Request) -> JSONResponse:
        return JSONResponse({"ended": sessions.end_all(request.query_params.get("user", ""))})

    async def lose_connections(request: Request) -> JSONResponse:
        return JSONResponse({"lost": lose()})

    return Starlette(
        routes=[
            Route("/demo/switches", read_switches, methods=["GET"]),
            Route("/demo/switches", set_switches, methods=["POST"]),
            Route("/demo/fired", fired, methods=["GET"]),
            Route("/demo/log", read_log, methods=["GET"]),
            Route("/demo/log/totals", totals, methods=["GET"]),
            Route("/demo/log", clear_log, methods=["DELETE"]),
            Route("/demo/change", change, methods=["POST"]),
            Route("/demo/connections", lose_connections, methods=["DELETE"]),
            Route("/demo/sessions", end_sessions, methods=["DELETE"]),
        ]
    )
