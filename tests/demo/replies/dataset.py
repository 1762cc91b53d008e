"""The data set that the replies were recorded on, as an archive of the stand-in: same ids, same numbers.

What the recording server made of what was put there is done here too: texts given in a query are stored with
entities, uploads to an assessor's or reconstruction's `in` land in `out`, a resource that was never written
to has no counts and no stamp."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from datetime import datetime
from html import escape
from typing import Any

from xnatfs.demo.model import (
    Archive,
    BytesContent,
    CatalogEntry,
    Experiment,
    Project,
    Reconstruction,
    Resource,
    Scan,
    Subject,
    User,
)

# Login -> (the number the server gave, role in projects).
_USERS = {"admin": 1, "u3": 3, "owner": 4, "u5": 5, "u6": 6}
_PLAIN_FIELDS = frozenset({"date", "time", "note"})

Raw = dict[str, Any]


class Loader:
    """Builds the archive in the order the server was filled."""

    def __init__(self, data: Raw) -> None:
        self._data = data
        self.archive = Archive(site="XNAT", clock=datetime(2026, 11, 30, 9, 0, 0, 123456))
        self._scan_numbers = itertools.count(1)
        self._recon_numbers = itertools.count(1)

    def load(self) -> Archive:
        archive, data = self.archive, self._data
        for user in data["users"]:
            login = user["login"]
            if login in _USERS:
                archive.users[login] = User(
                    login, user.get("password", ""), login == "admin", number=_USERS[login]
                )
        for project in data["projects"]:
            self._project(project)
        for user in data["users"]:
            for group in user.get("groups", []):
                name, _, role = group.partition("_")
                found = archive.projects[name]
                {"owner": found.owners, "member": found.members, "collaborator": found.collaborators}[
                    role
                ].add(user["login"])
        for subject in data["subjects"]:
            self._subject(subject)
        for experiment in data["experiments"]:
            self._experiment(experiment)
        for share in data["shares"]:
            self._share(share)
        archive.start_numbers(
            1 + max(resource.id for resource in _resources(archive)), next(self._scan_numbers)
        )
        return archive

    def _project(self, raw: Raw) -> None:
        project = Project(
            raw["id"],
            raw["name"],
            self.archive.tick(),
            self.archive.clock,
            secondary_id=raw["id"],
            description=escape(raw.get("description", ""), quote=True),
            access=raw["accessibility"],
        )
        project.resources = self._resources(raw["resources"])
        self.archive.projects[project.id] = project

    def _subject(self, raw: Raw) -> None:
        fields = dict(raw["fields"])
        subject = Subject(
            raw["id"],
            raw["label"],
            raw["project"],
            self.archive.tick(),
            self.archive.clock,
            group=fields.pop("group", ""),
            gender=fields.pop("gender", ""),
            yob=fields.pop("yob", ""),
            fields=fields,
            custom=dict(raw.get("custom", {})),
        )
        subject.resources = self._resources(raw["resources"])
        self.archive.subjects[subject.id] = subject

    def _experiment(self, raw: Raw) -> None:
        fields = {
            name.partition("/")[2] or name: value
            for name, value in raw["fields"].items()
            if name not in _PLAIN_FIELDS
        }
        subject = next(
            s
            for s in self.archive.subjects.values()
            if (s.project, s.label) == (raw["project"], raw["subject"])
        )
        experiment = Experiment(
            raw["id"],
            raw["label"],
            raw["project"],
            subject.id,
            raw["xsiType"],
            self.archive.tick(),
            date=raw["fields"].get("date", ""),
            time=raw["fields"].get("time", ""),
            note=raw["fields"].get("note", ""),
            fields=fields,
            custom=dict(raw.get("custom", {})),
            status="quarantine" if raw.get("quarantine") else "active",
        )
        self.archive.experiments[experiment.id] = experiment
        experiment.scans = [self._scan(scan) for scan in raw.get("scans", [])]
        experiment.resources = self._resources(raw["resources"])
        for assessor in raw.get("assessors", []):
            self._assessor(experiment, assessor)
        for recon in raw.get("reconstructions", []):
            made = Reconstruction(recon["id"], recon["type"], next(self._recon_numbers))
            made.out_resources = self._resources([*recon.get("out", []), *recon.get("in", [])])
            experiment.reconstructions.append(made)
        for edit in raw.get("edits", []):
            experiment.date = edit["date"]
            self.archive.edit(experiment)

    def _assessor(self, session: Experiment, raw: Raw) -> None:
        fields = {name.partition("/")[2]: value for name, value in raw["fields"].items()}
        assessor = Experiment(
            raw["id"],
            raw["label"],
            session.project,
            session.subject_id,
            raw["xsiType"],
            self.archive.tick(),
            session_id=session.id,
            fields=fields,
        )
        assessor.out_resources = self._resources(
            [*raw.get("out", []), *raw.get("in", []), *raw.get("resources", [])]
        )
        self.archive.experiments[assessor.id] = assessor

    def _scan(self, raw: Raw) -> Scan:
        scan = Scan(
            raw["id"],
            escape(raw.get("type_after", raw["type"]), quote=True),
            next(self._scan_numbers),
            xsi_type=raw["xsiType"],
            quality=raw.get("quality", ""),
            series_description=escape(raw.get("series_description", ""), quote=True),
            frames=raw.get("frames", ""),
            type_modified=self.archive.tick(),
        )
        if "type_after" in raw:
            scan.last_modified = self.archive.tick()
        scan.resources = self._resources(raw["resources"], content="RAW")
        return scan

    def _resources(self, raw: list[Raw], content: str = "") -> list[Resource]:
        """`content` is what the first one gets where nothing is said: the first resource of a scan is taken
        to be the raw data.
        """
        return [self._resource(item, "" if number else content) for number, item in enumerate(raw)]

    def _resource(self, raw: Raw, content: str) -> Resource:
        resource = Resource(
            int(raw["number"]),
            raw["label"] or "",
            format=raw.get("format") or "",
            content=raw.get("content") or content,
        )
        for file in raw["files"]:
            data = file["text"].encode()
            gone = file["path"] in raw.get("missing", [])
            entry = CatalogEntry(
                file["path"], None if gone else BytesContent(data), datetime(2026, 11, 30, 8, 0, 0)
            )
            if gone:
                entry.catalog_size, entry.digest = file["size"], file["md5"]
            resource.entries.append(entry)
        resource.stats_known = bool(resource.entries)
        resource.broken = "broken" in raw
        made_as = re.search(r"created as (\w+)", raw.get("by", ""))
        resource.folder = made_as[1] if made_as else ""
        resource.last_modified = self.archive.tick() if resource.entries else None
        return resource

    def _share(self, raw: Raw) -> None:
        items = self.archive.subjects if raw["kind"] == "subject" else self.archive.experiments
        item = next(i for i in items.values() if (i.project, i.label) == (raw["project"], raw["label"]))  # type: ignore[attr-defined]
        item.shares[raw["into"]] = raw["as_label"]
        self.archive.tick()


def _resources(archive: Archive) -> Iterator[Resource]:
    for project in archive.projects.values():
        yield from project.resources
    for subject in archive.subjects.values():
        yield from subject.resources
    for experiment in archive.experiments.values():
        yield from [*experiment.resources, *experiment.out_resources]
        for scan in experiment.scans:
            yield from scan.resources
        for recon in experiment.reconstructions:
            yield from recon.out_resources


def load(data: Raw) -> Archive:
    """The archive of dataset.json."""
    return Loader(data).load()
