"""The folder `nifti/` of a view: scans that have DICOM files alone, as NIfTI.

    nifti/README
         /SUBJECT/SESSION/ID-TYPE/SUBJECT_SESSION_ID_SESSIONID[_echo-1].nii.gz, .json, .bval, .bvec
                                 /problems.tsv                                  what was refused, and why

Used by `views`. Looking at subjects and sessions asks for nothing but listings. Looking *into* the folder of
a scan fetches and converts it, so that the names and sizes in it are final.
Threading: any thread; what is derived from listings is kept with them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from xnatfs.convert.converted_scans import ConvertedScans, DicomFiles, shown_name
from xnatfs.server.records import ResourceRecord, ScanRecord, natural
from xnatfs.text import printable
from xnatfs.tree.generated import known_text, rendered
from xnatfs.tree.names import distinct, scan_folder, spell_label
from xnatfs.tree.node import Branch, File, Node, OpenContent, inode_in_order, inode_of
from xnatfs.tree.resource import ResourcePlace, Sources, file_nodes
from xnatfs.tree.scope import Member, SessionScope, Snapshot, scans_of
from xnatfs.tree.session_folders import scan_place

_DICOM = ("DICOM", "secondary")  # labels, the better one first
_IMAGES = re.compile(r"nifti.*|nii", re.IGNORECASE)
PROBLEMS = "problems.tsv"
_README = """\
The scans of {title} that have DICOM files and no NIfTI, as NIfTI:

SUBJECT/SESSION/ID-TYPE/   one scan: SUBJECT_SESSION_ID_SESSIONID.nii.gz, .json, and .bval, .bvec of diffusion

These files are not on the server. A scan is fetched and converted (by dcm2niix) when its folder is looked
into, which takes seconds; the result is kept. Every slice is looked for at its own place in the image. What
cannot be converted without guessing is refused: problems.tsv in the scan's folder says why.
"""
_MISSING = """\
Here are the scans of {title} that have DICOM files and no NIfTI, as NIfTI, once what converts them is
installed: {missing}.
"""


class _Scan(NamedTuple):
    """A scan, and the resource it is converted from."""

    member: Member
    scan: ScanRecord
    resource: ResourceRecord


@dataclass(frozen=True)
class _ConvertedFile(File):
    """A file that was converted."""

    conversions: ConvertedScans
    key: str
    files: DicomFiles
    stored: str
    bytes: int
    place: ResourcePlace

    @property
    def inode(self) -> int:
        return inode_of("converted", self.key, self.stored)

    @property
    def mtime(self) -> float:
        return self.place.mtime or 0.0

    @property
    def size(self) -> int:
        return self.bytes

    @property
    def version(self) -> str:
        return f"{self.key} {self.stored}"

    def xattrs(self) -> dict[str, str]:
        made = {"made-by": "xnatfs, dcm2niix", "source": self.files.records[0].base, "key": self.key}
        return {**self.place.xattrs, **made}

    def open(self) -> OpenContent:
        return self.conversions.open(self.key, self.files, self.stored)


def nifti_folder(sources: Sources, scope: SessionScope) -> Branch:
    """The folder of a scope."""
    where = ("views", *scope.identity, "nifti")

    def entries() -> Mapping[str, Node]:
        conversions = sources.conversions
        missing = "conversion to NIfTI is off here" if conversions is None else conversions.missing
        text = (_MISSING if missing else _README).format(title=scope.title, missing=missing)
        readme = rendered("/".join((*where, "README")), lambda: text.encode("utf-8", "backslashreplace"))
        nodes: dict[str, Node] = {"README": readme}
        if conversions is not None and not missing:
            nodes |= scope.kept("nifti", lambda snapshot: _subjects(sources, conversions, snapshot, where))
        return nodes

    return Branch(inode_of(*where), entries)


def _subjects(
    sources: Sources, conversions: ConvertedScans, snapshot: Snapshot, where: tuple[str, ...]
) -> Mapping[str, Node]:
    of_subject: dict[str, list[Member]] = {}
    for member in snapshot.members:
        experiment = member.experiment
        if experiment.may_have_scans:
            of_subject.setdefault(experiment.subject_id or experiment.subject_label, []).append(member)
    named = distinct(
        of_subject, lambda subject: of_subject[subject][0].experiment.subject_label, lambda subject: subject
    )
    return {
        name: _subject(sources, conversions, snapshot, (*where, subject), of_subject[subject])
        for name, subject in named.items()
    }


def _subject(
    sources: Sources,
    conversions: ConvertedScans,
    snapshot: Snapshot,
    where: tuple[str, ...],
    members: list[Member],
) -> Branch:
    named = distinct(members, lambda one: one.experiment.label, lambda one: one.experiment.id)
    nodes = {name: _session(sources, conversions, snapshot, where, one) for name, one in named.items()}
    return Branch(inode_of(*where), lambda: nodes)


def _session(
    sources: Sources, conversions: ConvertedScans, snapshot: Snapshot, where: tuple[str, ...], member: Member
) -> Branch:
    experiment = member.experiment

    def entries() -> Mapping[str, Node]:
        scans = [
            _Scan(member, scan, resource)
            for scan, resources in scans_of(sources, snapshot, member)
            if (resource := _source(resources)) is not None
        ]
        key = ("nifti session", where, experiment.id, tuple(scans))
        return snapshot.memo.get(key, lambda: _scans(sources, conversions, where, scans))

    inode = inode_in_order(experiment.id, *where)
    return Branch(inode, entries, mtime=experiment.inserted)


def _source(resources: list[ResourceRecord]) -> ResourceRecord | None:
    """What a scan is converted from; None if it need not be, or cannot."""
    if any(_IMAGES.fullmatch(one.label) or one.format.upper() == "NIFTI" for one in resources):
        return None
    dicom = [one for label in _DICOM for one in resources if one.label == label]
    dicom += [one for one in resources if one.format.upper() == "DICOM"]
    return next(iter(dicom), None)


def _scans(
    sources: Sources, conversions: ConvertedScans, where: tuple[str, ...], scans: list[_Scan]
) -> Mapping[str, Node]:
    ordered = sorted(scans, key=lambda one: natural(one.scan.id))
    named = distinct(ordered, lambda one: scan_folder(one.scan), lambda one: one.scan.id)
    return {name: _scan_folder(sources, conversions, where, one) for name, one in named.items()}


def _scan_folder(sources: Sources, conversions: ConvertedScans, where: tuple[str, ...], one: _Scan) -> Branch:
    (project, experiment), scan = one.member, one.scan
    place = scan_place(project, experiment, scan)
    identity = (*where, experiment.id, scan.id)
    base = f"{experiment.subject_label}_{experiment.label}_{scan.id}_{experiment.id}"

    def entries() -> Mapping[str, Node]:
        listing = sources.listing_service.files.of(project, one.resource)
        nodes = file_nodes(sources, place, listing, one.resource)
        if not nodes:
            return {PROBLEMS: problems([("", "there are no DICOM files")])}
        files = DicomFiles(
            [node.record for node in nodes.values()], sorted(node.version for node in nodes.values())
        )
        key = listing.memo.get(
            ("conversion", identity, tuple(files.versions)), lambda: conversions.key(files)
        )
        made = conversions.get(key, files)
        shown: dict[str, Node] = {
            spell_label(shown_name(base, stored)): _ConvertedFile(
                conversions, key, files, stored, size, place
            )
            for stored, size in made.sizes.items()
        }
        if made.refused:
            shown[PROBLEMS] = problems(made.refused)
        return shown

    def problems(refused: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> Node:
        lines = [
            "part\treason",
            *(f"{label.lstrip('_') or 'all'}\t{printable(why)}" for label, why in refused),
        ]
        text = "\n".join(lines) + "\n"
        return known_text(text.encode("utf-8", "backslashreplace"), place.mtime or 0.0, *identity, PROBLEMS)

    return Branch(inode_of(*identity), entries, mtime=place.mtime, xattrs=place.xattrs)
