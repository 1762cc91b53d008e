"""What every path has to hold, from the archive itself: the same build as the stand-in's, and no code of
xnatfs but the stand-in's data.

Made once by the command before it forks the workers, which only read it.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from xnatfs.demo.data import build
from xnatfs.demo.data import measurements as m
from xnatfs.demo.data.truth import TrueFile, files

MIB = 1 << 20
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")

# From nothing to 200 MB, a resource of 1,000 files, true DICOM, tables: 880 MB in 6,500 files.
FULL: dict[str, Any] = {
    "sessions": 8,
    "scans": 4,
    "files": 40,
    "file_size": 150_000,
    "big_files": {"huge.nii": 200 * MIB, "large.nii": 90 * MIB, "some.nii": 40 * MIB, "odd.bin": 9 * MIB + 1},
    "flat": 1000,
    "flat_size": 1000,
    "dicom": 60,
    "cohort": 60,
    "nifti": 12,
    "nifti_size": 14 * MIB,
}
SMALL: dict[str, Any] = {
    "sessions": 3,
    "scans": 2,
    "files": 20,
    "file_size": 60_000,
    "big_files": {"some.nii": 24 * MIB, "odd.bin": 9 * MIB + 1},
    "flat": 200,
    "flat_size": 1000,
    "dicom": 10,
    "cohort": 6,
    "nifti": 3,
    "nifti_size": 2 * MIB,
}


def serving(options: dict[str, Any]) -> list[str]:
    """The options of `xnatfs serve-demo` that serve this data."""
    words = ["--data", "scale"]
    for name, value in options.items():
        if name == "big_files":
            words += [word for file, size in value.items() for word in ("--big", f"{file}={size}")]
        else:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


@dataclass
class Folder:
    """A folder of the mount and all below it."""

    path: str  # below the mountpoint
    files: dict[str, TrueFile] = field(default_factory=dict)  # by path below the folder
    own: dict[str, TrueFile] = field(default_factory=dict)  # directly in it

    @property
    def size(self) -> int:
        """Bytes of all below it."""
        return sum(file.size for file in self.files.values())


class Truth:
    """All files by their paths, and the tables."""

    def __init__(self, options: dict[str, Any]) -> None:
        archive = build("scale", **options)
        self.files: dict[str, TrueFile] = {}
        self.folders: dict[str, Folder] = {}
        self.flat: Folder = Folder("views/NIFTI/by-scan-type/T1/usable/NIFTI")
        for project in archive.projects:
            for file in files(archive, project, "demo"):
                assert file.digest  # computed here, once, before the workers are forked
                for path in _paths(file):
                    self._add(path, file)
                if project == "NIFTI":
                    self.flat.files[f"{file.subject}_{file.session}_{file.scan}_{file.session_id}.nii.gz"] = (
                        file
                    )
        self.flat.own = self.flat.files
        self.projects = sorted({file.project for file in self.files.values()})
        cohort = [one for one in archive.experiments.values() if one.project == "COHORT"]
        self.aseg = {one.label: _aseg(one.id) for one in cohort}
        self._sizes = {path: folder.size for path, folder in self.folders.items()}

    def _add(self, path: str, file: TrueFile) -> None:
        self.files[path] = file
        parts = path.split("/")
        assert all(_PLAIN.fullmatch(part) for part in parts), path  # nothing here needs a spelling of its own
        for depth in range(3, len(parts)):  # projects/P/subjects and all below it
            name = "/".join(parts[:depth])
            folder = self.folders.setdefault(name, Folder(name))
            folder.files["/".join(parts[depth:])] = file
            if depth == len(parts) - 1:
                folder.own[parts[-1]] = file

    def folder(self, chance: random.Random, most: int, count: int = 2000) -> Folder:
        """Some folder of at most so many bytes and files, of any project as likely as of another."""
        by_project: dict[str, list[str]] = defaultdict(list)
        for path, size in self._sizes.items():
            if size <= most and len(self.folders[path].files) <= count:
                by_project[path.partition("projects/")[2].partition("/")[0]].append(path)
        return self.folders[chance.choice(by_project[chance.choice(sorted(by_project))])]

    def file(
        self, chance: random.Random, least: int = 0, most: int = 1 << 40, suffix: str = ""
    ) -> tuple[str, TrueFile]:
        """Some file of such a size, of any project as likely as of another."""
        by_project: dict[str, list[str]] = defaultdict(list)
        for path, file in self.files.items():
            if least <= file.size <= most and path.endswith(suffix):
                by_project[file.project].append(path)
        path = chance.choice(by_project[chance.choice(sorted(by_project))])
        return path, self.files[path]


def _paths(file: TrueFile) -> list[str]:
    """Where both sections show a file (docs/layout.md)."""
    kind = re.sub(r"\W", "_", file.scan_type or "")
    people = ["projects", file.project, "subjects", file.subject or "", file.session or ""]
    programs = ["archive", "projects", file.project, "experiments", file.session or ""]
    if file.kind == "scan":
        people += ["SCANS", f"{file.scan}-{kind}"]
        programs += ["SCANS", file.scan or ""]
    else:
        assert file.kind == "session", file.kind
        people += ["RESOURCES"]
        programs += ["RESOURCES"]
    return ["/".join([*one, file.resource, file.path]) for one in (people, programs)]


def _aseg(session: str) -> dict[tuple[str, str], str]:
    """(measurement, region) -> value, as freesurfer6/aseg.csv has to have it."""
    found: dict[tuple[str, str], str] = {}
    for name, (value, unit) in m.aseg_header(session, "6").items():
        if name != "CortexVol":  # bx has it of aparc
            found["Volume_mm3" if unit == "mm^3" else unit, name] = str(value)
    return found | {
        (column, region): str(value)
        for region, row in m.aseg(session, "6").items()
        for column, value in row.items()
    }
