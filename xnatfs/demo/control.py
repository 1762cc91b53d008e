"""The stand-in's own routes, /demo/...: switches, the request log, changes of the data on a running server.

Used by tests and benchmarks over HTTP; needs no login. A Starlette application on the server's event loop, so it may change the archive.
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

from .auth import Sessions
from .faults import Switches
from .model import Archive, BytesContent, CatalogEntry, Content, Experiment, Resource, Scan, Subject
from .requestlog import Record, RequestLog

Op = dict[str, Any]


class Changes:
    """Changes of an archive by name, as a person or a pipeline would make them: stamps bubble up unless told not to."""

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
            "touch": self.touch,
        }

    def apply(self, operation: Op) -> Any:
        """Carry out `{"op": name, ...}`; KeyError and ValueError say what is wrong with it."""
        return self._operations[operation["op"]](operation)

    def _owner(self, number: int) -> tuple[Resource, list[Resource], Experiment | None, Subject | None]:
        """A resource by number with the list it is in and what to touch."""
        archive = self._archive
        for experiment in archive.experiments.values():
            lists = [experiment.resources, experiment.in_resources, experiment.out_resources]
            lists += [scan.resources for scan in experiment.scans]
            for reconstruction in experiment.reconstructions:
                lists += [reconstruction.in_resources, reconstruction.out_resources]
            for group in lists:
                for resource in group:
                    if resource.id == number:
                        return resource, group, experiment, None
        for subject in archive.subjects.values():
            for resource in subject.resources:
                if resource.id == number:
                    return resource, subject.resources, None, subject
        for project in archive.projects.values():
            for resource in project.resources:
                if resource.id == number:
                    return resource, project.resources, None, None
        raise KeyError(f"no resource {number}")

    def put_file(self, operation: Op) -> None:
        """`resource` (number), `path`, `text` or `base64`, `modified` (ISO), `bump` (default true).

        A changed content gets its true digest and size in the catalog; `bump: false` is an in-place overwrite that touches
        no stamp (fact sheet 5 [I]).
        """
        resource, _, experiment, subject = self._owner(int(operation["resource"]))
        data = base64.b64decode(operation["base64"]) if "base64" in operation else str(operation["text"]).encode()
        content: Content = BytesContent(data)
        path = str(operation["path"])
        modified = datetime.fromisoformat(operation["modified"]) if "modified" in operation else self._archive.tick()
        entry = next((item for item in resource.entries if item.path == path), None)
        if entry is None:
            resource.entries.append(CatalogEntry(path, content, modified))
        else:
            entry.content, entry.modified, entry.digest, entry.catalog_size = content, modified, None, None
        self._bump(operation, experiment, subject)

    def delete_file(self, operation: Op) -> None:
        """`resource`, `path`; `gone: true` keeps the catalog entry and loses only the file."""
        resource, _, experiment, subject = self._owner(int(operation["resource"]))
        entry = next((item for item in resource.entries if item.path == operation["path"]), None)
        if entry is None:
            raise KeyError(operation["path"])
        if operation.get("gone"):
            entry.catalog_size, entry.digest, entry.content = entry.listed_size, entry.listed_digest, None
            return
        resource.entries.remove(entry)
        self._bump(operation, experiment, subject)

    def add_resource(self, operation: Op) -> int:
        """`label` and one of `session` (with `scan`), `subject`, `project`. Answers the number."""
        resource = Resource(self._archive.next_number(), str(operation["label"]), format=operation.get("format", ""))
        experiment = subject = None
        if "session" in operation:
            experiment = self._archive.experiments[operation["session"]]
            group = experiment.resources
            if "scan" in operation:
                group = next(scan for scan in experiment.scans if scan.id == operation["scan"]).resources
        elif "subject" in operation:
            subject = self._archive.subjects[operation["subject"]]
            group = subject.resources
        else:
            group = self._archive.projects[operation["project"]].resources
        group.append(resource)
        self._bump(operation, experiment, subject)
        return resource.id

    def delete_resource(self, operation: Op) -> None:
        resource, group, experiment, subject = self._owner(int(operation["resource"]))
        group.remove(resource)
        self._bump(operation, experiment, subject)

    def add_session(self, operation: Op) -> str:
        """`project`, `subject` (id), `label`, and optionally `id`, `xsi_type`, `date`, `session_id` (an assessor). Answers the id."""
        archive = self._archive
        name = operation.get("id") or f"{archive.site}_E{archive.next_number():05d}"
        now = archive.tick()
        experiment = Experiment(
            name,
            operation["label"],
            operation["project"],
            operation.get("subject", ""),
            operation.get("xsi_type", "xnat:mrSessionData"),
            now,
            now,
            date=operation.get("date", ""),
            session_id=operation.get("session_id", ""),
        )
        archive.experiments[name] = experiment
        archive.touch(experiment)
        return name

    def delete_session(self, operation: Op) -> None:
        experiment = self._archive.experiments.pop(operation["id"])
        for name, item in list(self._archive.experiments.items()):
            if item.session_id == experiment.id:
                del self._archive.experiments[name]
        self._archive.touch(subject=self._archive.subjects.get(experiment.subject_id))

    def add_scan(self, operation: Op) -> int:
        """`session`, `scan` (id), `type`. Answers the number."""
        experiment = self._archive.experiments[operation["session"]]
        scan = Scan(str(operation["scan"]), operation.get("type", ""), self._archive.next_number())
        experiment.scans.append(scan)
        self._archive.touch(experiment)
        return scan.number

    def delete_scan(self, operation: Op) -> None:
        experiment = self._archive.experiments[operation["session"]]
        experiment.scans = [scan for scan in experiment.scans if scan.id != operation["scan"]]
        self._archive.touch(experiment)

    def set_label(self, operation: Op) -> None:
        """`experiment` or `subject` (id), `label`; with `project` the label in a project it is shared into."""
        item: Experiment | Subject
        if "experiment" in operation:
            item = self._archive.experiments[operation["experiment"]]
            self._archive.touch(item)
        else:
            item = self._archive.subjects[operation["subject"]]
            self._archive.touch(subject=item)
        if operation.get("project", item.project) == item.project:
            item.label = operation["label"]
        else:
            item.shares[operation["project"]] = operation["label"]

    def set_type(self, operation: Op) -> None:
        """`session`, `scan`, `type`; also `quality`."""
        experiment = self._archive.experiments[operation["session"]]
        scan = next(scan for scan in experiment.scans if scan.id == operation["scan"])
        scan.type = operation.get("type", scan.type)
        scan.quality = operation.get("quality", scan.quality)
        self._archive.touch(experiment)

    def set_access(self, operation: Op) -> None:
        """`project`, `access` and/or `members`."""
        project = self._archive.projects[operation["project"]]
        project.access = operation.get("access", project.access)
        if "members" in operation:
            project.members = set(operation["members"])

    def touch(self, operation: Op) -> None:
        """`experiment` or `subject`: only the stamps."""
        self._archive.touch(
            self._archive.experiments.get(operation.get("experiment", "")), self._archive.subjects.get(operation.get("subject", ""))
        )

    def _bump(self, operation: Op, experiment: Experiment | None, subject: Subject | None) -> None:
        if operation.get("bump", True):
            self._archive.touch(experiment, subject)


def _totals(records: list[Record]) -> dict[str, Any]:
    return {
        "requests": len(records),
        "sent": sum(record.sent for record in records),
        "under_way": sum(not record.duration for record in records),
        "faults": Counter(record.fault for record in records if record.fault),
    }


def control_app(archive: Archive, switches: Switches, log: RequestLog, sessions: Sessions, lose: Callable[[], int]) -> Starlette:
    """The application for /demo/."""
    changes = Changes(archive)

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
        return JSONResponse([record.as_dict() for record in log.matching(request.query_params.get("pattern"))])

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
            return JSONResponse([changes.apply(operation) for operation in operations])
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
