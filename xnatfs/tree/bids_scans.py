"""The scans of a session as `bids.dataset` arranges them: with the files the server has of them, or those
that are made of their DICOM files.

Used by `bids_view`. Which files come of DICOM files is known once they are converted. Until then a scan is
taken for one image with a sidecar, b-values and directions, so that listing a folder converts nothing.
Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from xnatfs.bids import sidecars
from xnatfs.bids.bids_image import KnownImage, ScanFiles
from xnatfs.bids.dataset import image_resources
from xnatfs.bids.mapping import BidsMap, BidsPlace, Fields, Nowhere
from xnatfs.convert.converted_scans import IMAGE_SUFFIX, MAIN_IMAGE
from xnatfs.convert.converted_store import ConvertedScan
from xnatfs.errors import Cause, Failure
from xnatfs.listing.snapshot import Derived
from xnatfs.server.records import FileRecord, ResourceRecord, ScanRecord
from xnatfs.text import printable
from xnatfs.tree.converted_files import ConvertedFile, DicomScan, dicom_scan, dicom_source, problem_lines
from xnatfs.tree.node import File
from xnatfs.tree.resource import ResourceFile, ResourcePlace, Sources, file_nodes
from xnatfs.tree.scope import Member, Snapshot, scans_of
from xnatfs.tree.session_folders import scan_place

_BAD_LISTINGS = frozenset({Cause.LISTING_EMPTY, Cause.BAD_LISTING, Cause.GONE})
_MAX_TEXT_BYTES = 16 * 2**20  # of a sidecar, or a map
_MAX_SIDECAR_BYTES = 2**20  # of one that is read to know its image's name
_ASSUMED = tuple(f"{MAIN_IMAGE}{ending}" for ending in (IMAGE_SUFFIX, ".json", ".bval", ".bvec"))


class Gathered(NamedTuple):
    """The scans of a session with their files, the nodes of these, and a key that changes with them.

    `unknown` are the scans of which nobody knows yet what comes of them, by id.
    """

    given: list[ScanFiles]
    nodes: dict[FileRecord, File]
    state: tuple[object, ...]
    unknown: Mapping[str, DicomScan]


def gather(sources: Sources, snapshot: Snapshot, rules: BidsMap, member: Member) -> Gathered:
    """The scans of a session: listed now, unless they are in memory.

    Raises:
        Failure: they cannot be listed.
    """
    given: list[ScanFiles] = []
    nodes: dict[FileRecord, File] = {}
    state: list[object] = []
    unknown: dict[str, DicomScan] = {}
    for scan, resources in scans_of(sources, snapshot, member):
        key = ("bids scan", rules.fingerprint, scan, tuple(resources))
        label, wanted, reason = snapshot.memo.get(key, partial(image_resources, rules, scan, resources))
        place = scan_place(member.project, member.experiment, scan)
        dicom = _dicom(sources, member.project, label, resources)
        if dicom is not None:
            found = _of_dicom(sources, rules, place, scan, dicom, nodes)
            records: Sequence[FileRecord] = found.files.files if found.unknown is None else ()
            shown = found.files.scan
            which = ("bids magnitude", rules.fingerprint, shown)
            always = bool(records) and snapshot.memo.get(which, partial(_is_magnitude, rules, shown))
            fields, versions = _fields(sources, snapshot.memo, rules, scan, records, nodes, always)
            given.append(found.files._replace(fields=fields))
            state.append((scan.start_time, found.state, versions))
            if found.unknown is not None:
                unknown[scan.id] = found.unknown
            continue
        if not wanted:
            given.append(ScanFiles(scan, label, problem=reason))
            state.append((scan, scan.start_time, label))
            continue
        problem = ""
        lists: list[list[FileRecord]] = []
        for resource in wanted:
            try:
                listed: Mapping[str, ResourceFile] = files_of(sources, place, resource)
            except Failure as failure:
                if failure.cause not in _BAD_LISTINGS:
                    raise
                problem = str(failure)
                listed = {}
            lists.append([node.record for node in listed.values()])
            nodes.update({node.record: node for node in listed.values()})
        beside = [record for some in lists[1:] for record in some]
        records = (*lists[0], *beside)
        fields, versions = _fields(sources, snapshot.memo, rules, scan, records, nodes)
        given.append(ScanFiles(scan, label, lists[0], beside, problem, fields=fields))
        state.append((scan, scan.start_time, label, problem, records, versions))
    return Gathered(given, nodes, tuple(state), unknown)


def may_show(
    sources: Sources, rules: BidsMap, project: str, scan: ScanRecord, resources: list[ResourceRecord]
) -> bool:
    """Whether a scan may have an image with a place, as far as is known without asking."""
    label = rules.choose([resource.label for resource in resources])
    if _dicom(sources, project, label or "", resources) is not None:
        return may_make(sources, rules, project, scan, resources)
    return label is not None and rules.may_place(scan)


def may_make(
    sources: Sources, rules: BidsMap, project: str, scan: ScanRecord, resources: list[ResourceRecord]
) -> bool:
    """Whether a scan may have an image with a place that is made of its DICOM files."""
    label = rules.choose([resource.label for resource in resources])
    dicom = _dicom(sources, project, label or "", resources)
    conversions = sources.conversions
    if dicom is None or conversions is None or conversions.missing:
        return False
    return rules.may_place(counted(scan, dicom.file_count))


def files_of(sources: Sources, place: ResourcePlace, resource: ResourceRecord) -> Mapping[str, ResourceFile]:
    """The files of a resource by their paths, listed now unless they were.

    Raises:
        Failure: they cannot be listed.
    """
    return file_nodes(sources, place, sources.listing_service.files.of(place.project, resource), resource)


def sidecars_of(
    sources: Sources, rules: BidsMap, place: ResourcePlace, resources: list[ResourceRecord]
) -> list[File]:
    """The sidecars of a scan's images: the server's, or what was made of its DICOM files already.

    Raises:
        Failure: they cannot be listed.
    """
    label = rules.choose([resource.label for resource in resources])
    dicom, conversions = _dicom(sources, place.project, label or "", resources), sources.conversions
    if dicom is not None:
        if conversions is None or conversions.missing:
            return []
        scan = dicom_scan(sources, conversions, place, dicom)
        made = None if scan is None else scan.known
        if scan is None or made is None:
            return []
        return [ConvertedFile(scan, name) for name in made.sizes if name.endswith(".json")]
    labels = {label.lower() for label in (*rules.images, *rules.sidecars)}
    nodes = [
        item
        for resource in resources
        if resource.label.lower() in labels
        for item in files_of(sources, place, resource).items()
    ]
    return [node for path, node in nodes if path.lower().endswith(".json")]


_NO_FIELDS: tuple[Mapping[str, Fields], tuple[str, ...]] = ({}, ())


def _fields(
    sources: Sources,
    memo: Derived,
    rules: BidsMap,
    scan: ScanRecord,
    records: Sequence[FileRecord],
    nodes: Mapping[FileRecord, File],
    always: bool = False,
) -> tuple[Mapping[str, Fields], tuple[str, ...]]:
    """The fields of a scan's sidecars, if these decide where its images go (or `always`), and what changes
    with them; nothing is made for it.
    """
    if not always and not rules.has_deciders:
        return _NO_FIELDS
    if not always and not memo.get(("bids asks", rules.fingerprint, scan), partial(rules.asks, scan)):
        return _NO_FIELDS
    fields: dict[str, Fields] = {}
    versions: list[str] = []
    for record in records:
        node = nodes[record]
        if not record.path.lower().endswith(".json") or node.size > _MAX_SIDECAR_BYTES:
            continue
        try:
            found = memo.get(("bids fields", node.version), partial(_read_fields, node))
        except Failure as failure:
            if failure.cause is Cause.INTERRUPTED:
                raise
            sources.diagnostics.failed(failure)  # the scan has no place, and its line says what is missing
            continue
        fields[record.path] = found
        versions.append(node.version)
    return fields, tuple(versions)


def _is_magnitude(rules: BidsMap, scan: ScanRecord) -> bool:
    """Whether a scan is taken for the magnitude of a field map. Its phase has the same description on many
    scanners.
    """
    where = rules.place(scan, _ASSUMED[0])
    return isinstance(where, BidsPlace) and (where.datatype, where.suffix) == ("fmap", "magnitude1")


def _read_fields(node: File) -> Fields:
    return sidecars.read(read_start(node)) or {}


def read_start(node: File, length: int = _MAX_TEXT_BYTES) -> bytes:
    """The first bytes of a file of the server."""
    content = node.open()
    try:
        data = b""
        while len(data) < min(length, content.size):
            piece = content.read(len(data), min(length, content.size) - len(data))
            if not piece:
                break
            data += piece
        return data
    finally:
        content.close()


def counted(scan: ScanRecord, files: int | None) -> ScanRecord:
    """A scan with the number of its DICOM files as that of its frames, where the server does not say: it is
    what servers enter there. While that is not known either, there may be several.
    """
    return scan if scan.frames else replace(scan, frames=str(2 if files is None else files))


class _OfDicom(NamedTuple):
    files: ScanFiles
    state: object
    unknown: DicomScan | None = None


def _dicom(
    sources: Sources, project: str, label: str, resources: list[ResourceRecord]
) -> ResourceRecord | None:
    """The resource a scan's images are made of, if they are not those of the server's resource `label`."""
    prefer = sources.settings.prefers_dicom(project)
    return None if label and not prefer else dicom_source(resources, prefer)


def _of_dicom(
    sources: Sources,
    rules: BidsMap,
    place: ResourcePlace,
    scan: ScanRecord,
    resource: ResourceRecord,
    nodes: dict[FileRecord, File],
) -> _OfDicom:
    """A scan whose images are made of its DICOM files; adds the nodes of these."""

    def without(problem: str) -> _OfDicom:
        return _OfDicom(ScanFiles(scan, resource.label, problem=problem), (scan, resource.label, problem))

    original, scan = scan, counted(scan, resource.file_count)
    conversions = sources.conversions
    if conversions is None or not rules.may_place(scan):
        where = rules.place(scan, "")
        return without(where.reason if isinstance(where, Nowhere) else "")
    if conversions.missing:
        return without(f"it has only DICOM files, and {conversions.missing}")
    try:
        source = dicom_scan(sources, conversions, place, resource)
    except Failure as failure:
        if failure.cause not in _BAD_LISTINGS:
            raise
        return without(str(failure))
    if source is None:
        return without("its DICOM resource has no files")
    made = source.known
    shown = counted(original, len(source.files.records))
    records = {
        name: FileRecord(resource.owner, resource.id or 0, resource.label, name, 0, "")
        for name in (_ASSUMED if made is None else made.sizes)
    }
    nodes.update({record: ConvertedFile(source, name) for name, record in records.items()})
    files = ScanFiles(
        shown,
        resource.label,
        list(records.values()),
        assumed=FileRecord(resource.owner, resource.id or 0, resource.label, _ASSUMED[0], 0, ""),
        images=_images(made),
        refused=_refused(made),
    )
    return _OfDicom(files, (scan, source.key, made is None), source if made is None else None)


def _images(made: ConvertedScan | None) -> dict[str, KnownImage]:
    facts = {} if made is None else made.facts
    return {f"{name}{IMAGE_SUFFIX}": KnownImage(*about) for name, about in facts.items()}


def _refused(made: ConvertedScan | None) -> list[str]:
    lines = () if made is None else problem_lines(made.refused)
    return [
        f"not converted: {printable(why)}" + ("" if part == "all" else f" ({part})") for part, why in lines
    ]
