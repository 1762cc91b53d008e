"""Builds an archive step by step: ids, numbers and dates come out the same at every build.

Used by the data sets (`lab`, `messy`, `scale`). Subjects and experiments get their ids in the order they are
made (`DEMO_S00001`, `DEMO_E00001`), stamps come from the archive's own clock, file dates follow their owner's
insert date.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from xnatfs.demo.model import (
    Archive,
    BytesContent,
    CatalogEntry,
    Content,
    Experiment,
    LazyEntries,
    Project,
    Reconstruction,
    Resource,
    Scan,
    Subject,
    User,
)

Files = Mapping[str, bytes | Content] | Iterable[CatalogEntry] | LazyEntries


class Maker:
    """Adds things to one archive."""

    def __init__(self, archive: Archive, start: datetime) -> None:
        self.archive = archive
        archive.clock = start

    def wait(self, **interval: int) -> None:
        """Let time pass on the server."""
        self.archive.clock += timedelta(**interval)

    def _stamps(self) -> tuple[datetime, datetime]:
        """Insert date (XNAT keeps milliseconds) and the stamp that is there from the beginning (set by SQL
        NOW(): microseconds).
        """
        stamp = self.archive.tick()
        return stamp.replace(microsecond=stamp.microsecond // 1000 * 1000), stamp

    def user(self, login: str, admin: bool = False) -> User:
        user = User(login, login, admin)
        self.archive.users[login] = user
        return user

    def project(
        self,
        id: str,
        name: str,
        members: Iterable[str] = (),
        access: str = "private",
        description: str = "",
        pi: tuple[str, str] = ("", ""),
        secondary_id: str = "",
    ) -> Project:
        inserted, modified = self._stamps()
        project = Project(
            id,
            name,
            inserted,
            modified,
            secondary_id=secondary_id or id,
            description=description,
            pi_firstname=pi[0],
            pi_lastname=pi[1],
            access=access,
            members=set(members),
        )
        self.archive.projects[id] = project
        return project

    def subject(
        self, project: Project, label: str, gender: str = "", yob: str = "", group: str = ""
    ) -> Subject:
        inserted, modified = self._stamps()
        id = f"{self.archive.site}_S{len(self.archive.subjects) + 1:05d}"
        subject = Subject(id, label, project.id, inserted, modified, group=group, gender=gender, yob=yob)
        self.archive.subjects[id] = subject
        return subject

    def experiment(
        self,
        subject: Subject,
        label: str,
        xsi_type: str = "xnat:mrSessionData",
        date: str = "",
        time: str = "",
        note: str = "",
        fields: Mapping[str, str] | None = None,
    ) -> Experiment:
        """An image session or a non-imaging experiment."""
        inserted, modified = self._stamps()
        id = f"{self.archive.site}_E{len(self.archive.experiments) + 1:05d}"
        experiment = Experiment(
            id,
            label,
            subject.project,
            subject.id,
            xsi_type,
            inserted,
            date=date,
            time=time,
            note=note,
            fields=dict(fields or {}),
        )
        experiment.type_modified = modified
        self.archive.experiments[id] = experiment
        self.archive.touch(experiment)
        return experiment

    def assessor(
        self, session: Experiment, label: str, xsi_type: str = "fs:fsData", date: str = ""
    ) -> Experiment:
        """An image assessor of a session."""
        inserted, modified = self._stamps()
        id = f"{self.archive.site}_E{len(self.archive.experiments) + 1:05d}"
        assessor = Experiment(
            id,
            label,
            session.project,
            session.subject_id,
            xsi_type,
            inserted,
            date=date or session.date,
            session_id=session.id,
        )
        assessor.type_modified = modified
        self.archive.experiments[id] = assessor
        self.archive.touch(assessor)
        return assessor

    def scan(
        self,
        session: Experiment,
        id: str,
        type: str,
        series_description: str | None = None,
        quality: str = "usable",
        frames: str = "",
        note: str = "",
        xsi_type: str = "xnat:mrScanData",
        start_time: str = "",
        uid: str = "",
    ) -> Scan:
        scan = Scan(
            id,
            type,
            self.archive.next_number(),
            xsi_type=xsi_type,
            quality=quality,
            series_description=type if series_description is None else series_description,
            note=note,
            frames=frames,
            uid=uid,
            start_time=start_time,
        )
        session.scans.append(scan)
        self.archive.touch(session)
        scan.type_modified = self.archive.clock
        return scan

    def reconstruction(
        self, session: Experiment, id: str, type: str, base_scan_type: str = ""
    ) -> Reconstruction:
        reconstruction = Reconstruction(id, type, self.archive.next_number(), base_scan_type)
        session.reconstructions.append(reconstruction)
        self.archive.touch(session)
        return reconstruction

    def resource(
        self,
        owner: Project | Subject | Experiment | Scan | list[Resource],
        label: str,
        files: Files = (),
        format: str = "",
        content: str = "",
        tags: str = "",
        stats_known: bool = True,
    ) -> Resource:
        """A resource of `owner` (or of a list of its: `assessor.out_resources`)."""
        resource = Resource(
            self.archive.next_number(),
            label,
            format=format,
            content=content,
            tags=tags,
            stats_known=stats_known,
        )
        self.add(resource, files)
        resource.last_modified = self.archive.clock if resource.entries else None
        (owner if isinstance(owner, list) else owner.resources).append(resource)
        return resource

    def add(self, resource: Resource, files: Files) -> None:
        """More catalog entries for a resource; plain `path: bytes` become entries with a true size and
        digest.
        """
        if isinstance(files, LazyEntries):
            resource.entries = files
        elif isinstance(files, Mapping):
            resource.entries.extend(self.entry(path, data, resource) for path, data in files.items())
        else:
            resource.entries.extend(files)

    def entry(
        self,
        path: str,
        data: bytes | Content | None,
        resource: Resource | None = None,
        digest: str | None = None,
        catalog_size: int | None = None,
    ) -> CatalogEntry:
        """One catalog entry, dated now. A file keeps its disk's fraction of a second, which HTTP cuts off."""
        modified = self.archive.clock.replace(microsecond=700000)
        content = BytesContent(data) if isinstance(data, bytes) else data
        entry = CatalogEntry(path, content, modified, digest=digest, catalog_size=catalog_size)
        if resource is not None:
            entry.format, entry.content_code = resource.format, resource.content
        return entry
