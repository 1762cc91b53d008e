"""The folder `nifti/` of a view: scans that have DICOM files alone, as NIfTI.

    nifti/README
         /SUBJECT/SESSION/ID-TYPE/SUBJECT_SESSION_ID_SESSIONID[_echo-1].nii.gz, .json, .bval, .bvec
                                 /problems.tsv                                  what was refused, and why

Used by `views`. Looking at subjects and sessions asks for nothing but listings. Looking *into* the folder of
a scan fetches and converts it, so that the names and sizes in it are final. Programs that walk through
everything (`fuse.operations` knows them) get an error at a scan that is not converted yet: it is never shown
empty, and nothing is converted for them.
Threading: any thread; what is derived from listings is kept with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from xnatfs.convert.converted_scans import ConvertedScans, shown_name
from xnatfs.errors import Cause, Failure
from xnatfs.server.records import ResourceRecord, ScanRecord, natural
from xnatfs.text import printable
from xnatfs.tree.converted_files import ConvertedFile, dicom_scan, dicom_source, problem_lines
from xnatfs.tree.generated import known_text, rendered
from xnatfs.tree.names import distinct, scan_folder, spell_label
from xnatfs.tree.node import Branch, Node, inode_in_order, inode_of
from xnatfs.tree.resource import Sources
from xnatfs.tree.scope import Member, SessionScope, Snapshot, scans_of
from xnatfs.tree.session_folders import scan_place

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


_WALKED = (
    "a program that walks through everything (find, du, grep -r, a desktop search) was given an error for the"
    " scans of {project} in nifti/ that are not converted yet: `ls` of a scan's folder converts it, `xnatfs"
    " convert` all of them"
)


class _Scan(NamedTuple):
    """A scan, and the resource it is converted from."""

    member: Member
    scan: ScanRecord
    resource: ResourceRecord


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
            conversions.prepare()
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
            if (resource := dicom_source(resources, sources.settings.prefers_dicom(member.project)))
        ]
        key = ("nifti session", where, experiment.id, tuple(scans))
        return snapshot.memo.get(key, lambda: _scans(sources, conversions, where, scans))

    inode = inode_in_order(experiment.id, *where)
    return Branch(inode, entries, mtime=experiment.inserted)


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

    def walked() -> None:
        source = dicom_scan(sources, conversions, place, one.resource)
        if source is not None and source.known is None:
            sources.diagnostics.odd(_WALKED.format(project=project))
            raise Failure(Cause.NOT_CONVERTED, source.files.records[0].base)

    def entries() -> Mapping[str, Node]:
        source = dicom_scan(sources, conversions, place, one.resource)
        if source is None:
            return {PROBLEMS: problems([("", "there are no DICOM files")])}
        made = source.converted()
        shown: dict[str, Node] = {
            spell_label(shown_name(base, stored)): ConvertedFile(source, stored) for stored in made.sizes
        }
        if made.refused:
            shown[PROBLEMS] = problems(made.refused)
        return shown

    def problems(refused: Iterable[tuple[str, str]]) -> Node:
        lines = ["part\treason", *(f"{part}\t{printable(why)}" for part, why in problem_lines(refused))]
        text = "\n".join(lines) + "\n"
        return known_text(text.encode("utf-8", "backslashreplace"), place.mtime or 0.0, *identity, PROBLEMS)

    return Branch(inode_of(*identity), entries, mtime=place.mtime, xattrs=place.xattrs, walked=walked)
