"""Where the mount has to show each true file: the paths of both rooms, worked out from the ground truth and
the rules of `tree.names`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from xnatfs.demo.data.truth import TrueFile
from xnatfs.demo.model import Archive
from xnatfs.server.records import ScanRecord
from xnatfs.tree.names import distinct, natural, scan_folder, spell, spell_label

_FOLDERS = {"scan": "SCANS", "assessor": "ASSESSORS", "reconstruction": "RECONSTRUCTIONS"}


class Spelling:
    """The paths of the files of one project, relative to the folder of that project in either room.

    Args: archive: where every scan and every resource is, those without files too: they take part in telling
        equal names apart. files: the true files."""

    def __init__(self, archive: Archive, files: Iterable[TrueFile]) -> None:
        self._archive = archive
        self.files = [file for file in files if not file.hostile]
        self._resources: dict[tuple[str, ...], dict[int, str]] = defaultdict(dict)
        self._folders: dict[int, set[str]] = defaultdict(set)
        for file in self.files:
            self._resources[_owner(file)][file.resource_id] = file.resource
            parts = file.path.split("/")
            self._folders[file.resource_id] |= {"/".join(parts[:count]) for count in range(1, len(parts))}

    def people(self) -> dict[str, TrueFile]:
        """Path below `projects/P` -> file."""
        return _unique((self._people(file), file) for file in self.files)

    def programs(self) -> dict[str, TrueFile]:
        """Path below `archive/projects/P` -> file."""
        return _unique((self._programs(file), file) for file in self.files)

    def _people(self, file: TrueFile) -> str:
        if file.kind == "project":
            return _join("resources", *self._within(file))
        subject = spell_label(file.subject or "")
        if file.kind == "subject":
            return _join("subjects", subject, "RESOURCES", *self._within(file))
        session = spell_label(file.session or "", frozenset({"RESOURCES"}))
        return _join("subjects", subject, session, *self._part(file, self._scan(file)), *self._within(file))

    def _programs(self, file: TrueFile) -> str:
        if file.kind == "project":
            return _join("resources", *self._within(file))
        if file.kind == "subject":
            return _join("subjects", spell_label(file.subject or ""), *self._within(file))
        part = self._part(file, spell_label(file.scan or ""))
        if file.kind == "session" and not self._archive.experiments[file.session_id].is_image_session:
            part = []
        return _join("experiments", spell_label(file.session or ""), *part, *self._within(file))

    def _part(self, file: TrueFile, scan: str) -> list[str]:
        if file.kind == "session":
            return ["RESOURCES"]
        return [_FOLDERS[file.kind], scan if file.kind == "scan" else spell_label(file.assessor or "")]

    def _scan(self, file: TrueFile) -> str:
        if file.kind != "scan":
            return ""
        scans = [
            ScanRecord(file.session_id, one.id, one.type)
            for one in self._archive.experiments[file.session_id].scans
        ]
        named = distinct(sorted(scans, key=lambda one: natural(one.id)), scan_folder, lambda one: one.id)
        return next(name for name, one in named.items() if one.id == file.scan)

    def _within(self, file: TrueFile) -> list[str]:
        resources = self._resources[_owner(file)]
        named = distinct(sorted(resources), lambda number: resources[number], lambda number: number)
        resource = next(name for name, number in named.items() if number == file.resource_id)
        parts = [spell(part) for part in file.path.split("/")]
        if file.path in self._folders[file.resource_id]:
            parts[-1] += "%~file"
        return [resource, *parts]


def _owner(file: TrueFile) -> tuple[str, ...]:
    return (
        file.kind,
        file.subject_id,
        file.session_id,
        file.scan or "",
        file.assessor_id or file.assessor or "",
    )


def _join(*parts: str) -> str:
    return "/".join(parts)


def _unique(pairs: Iterable[tuple[str, TrueFile]]) -> dict[str, TrueFile]:
    listed: Sequence[tuple[str, TrueFile]] = list(pairs)
    found = dict(listed)
    assert len(found) == len(listed), "two files at one path"
    return found
