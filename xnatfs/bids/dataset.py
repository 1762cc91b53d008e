"""The files of one session in a BIDS dataset: path -> what it is, from the session's scans and the files of
their resources.

Used by `tree.bids_view`. Names depend on listings only, never on contents, so that nothing is read to list a
folder.
Threading: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from xnatfs.bids.bids_image import BidsImage, ScanFiles, companion
from xnatfs.bids.field_maps import echo_sources, links_of
from xnatfs.bids.image_files import Picture, converted_picture, picture
from xnatfs.bids.mapping import BidsMap, Fields, Nowhere, frames_of
from xnatfs.bids.run_numbers import in_time, named
from xnatfs.bids.schema import COMPANIONS, KINDS, TIMED
from xnatfs.server.records import FileRecord, ResourceRecord, ScanRecord


class Same(NamedTuple):
    """A file of the server under another name."""

    record: FileRecord


class Text(NamedTuple):
    """A text that is known already."""

    data: bytes


@dataclass(frozen=True)
class Sidecar:
    """A JSON made of an original and fields it may lack.

    `header`: fields may come from the image's header. `borrowed` names fields that another image's sidecar
    has as its EchoTime.
    """

    image: FileRecord
    original: FileRecord | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    header: bool = False
    preparation: bool = False  # RepetitionTimePreparation is the RepetitionTime
    borrowed: Mapping[str, FileRecord] = field(default_factory=dict)

    @property
    def sources(self) -> list[FileRecord]:
        """The files it is made from."""
        candidates = [self.original, self.image if self.header else None, *self.borrowed.values()]
        return [record for record in candidates if record is not None]


@dataclass(frozen=True)
class Context:
    """An `_aslcontext.tsv`: these types of volumes, repeated over those of an image that is not made yet."""

    image: FileRecord
    volumes: Sequence[str]

    @property
    def sources(self) -> list[FileRecord]:
        """The files it is made from."""
        return [self.image]


class Row(NamedTuple):
    """A line of scans.tsv."""

    filename: str
    scan: ScanRecord
    resource: str
    source: str


class Unmapped(NamedTuple):
    """A line of unmapped.tsv."""

    scan: ScanRecord
    resource: str
    source: str
    reason: str


@dataclass
class BidsPlan:
    """A session's files by path below its folder."""

    files: dict[str, Same | Text | Sidecar | Context] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    unmapped: list[Unmapped] = field(default_factory=list)


def image_resources(
    rules: BidsMap, scan: ScanRecord, resources: list[ResourceRecord]
) -> tuple[str, list[ResourceRecord], str]:
    """The label of a scan's image resource, that resource and those with sidecars; or none, and why."""
    label = rules.choose([resource.label for resource in resources])
    if label is None or not rules.may_place(scan):
        where = rules.place(scan, "")
        return label or "", [], where.reason if isinstance(where, Nowhere) else ""
    beside = [label.lower() for label in rules.sidecars]
    chosen = next(resource for resource in resources if resource.label == label)
    others = [resource for resource in resources if resource.label.lower() in beside and resource != chosen]
    return label, [chosen, *sorted(others, key=lambda resource: beside.index(resource.label.lower()))], ""


def arrange(subject: str, session: str, given: Iterable[ScanFiles], rules: BidsMap) -> BidsPlan:
    """All files of a session; `subject` and `session` are legal labels."""
    plan = BidsPlan()
    images: list[BidsImage] = []
    scans = in_time(given)
    for moment, scan_files in scans:
        images += [replace(image, moment=moment) for image in _of_scan(scan_files, rules, plan)]
    images = _complete(images, plan)
    by_path: dict[str, BidsImage] = {}
    stems: dict[str, str] = {}
    for stem, image, reason in named(images, _expected(scans, images, rules), subject, session, rules):
        if reason:
            source = image.picture.record.path if image.given.assumed is None else ""
            plan.unmapped.append(Unmapped(image.given.scan, image.given.resource, source, reason))
            continue
        path = f"{image.datatype}/{stem}_{image.suffix}"
        by_path[path], stems[path] = image, stem
    links = links_of(by_path, f"sub-{subject}/ses-{session}")
    for path, image in by_path.items():
        _put(plan, image, stems[path], by_path, links.get(path, {}))
    plan.rows.sort(key=lambda row: row.filename)
    return plan


# --- one scan -----------------------------------------------------------------------------------------------


def _of_scan(given: ScanFiles, rules: BidsMap, plan: BidsPlan) -> list[BidsImage]:
    scan = given.scan
    source = "" if given.assumed else None  # what is made of DICOM files has no path on the server

    def without(reason: str, file: str = "") -> None:
        plan.unmapped.append(Unmapped(scan, given.resource, file if source is None else source, reason))

    if scan.quality in (rules.skip_quality or ()):
        without(f"its quality is {scan.quality}")
        return []
    if given.problem:
        without(given.problem)
        return []
    pictures = _pictures(given, plan)
    for reason in dict.fromkeys(given.refused):
        without(reason)
    if not pictures and given.refused:
        return []
    if not pictures:
        labels = " or ".join(rules.images[:2])
        without("it has no .nii or .nii.gz" if given.resource else f"no resource {labels} with images")
        return []
    images: list[BidsImage] = []
    phases: set[str] = set()
    for image in pictures:
        fields = _fields(given, image, len(pictures) == 1)
        if fields is not None and _is_phase(fields):
            phases.add(image.record.path)
        where = rules.place(scan, image.name, fields)
        if isinstance(where, Nowhere):
            pending = given.assumed is not None and not given.images
            pending = pending and rules.has_deciders and rules.asks(scan)
            later = "; it is once the scan is converted" if pending else ""
            without(f"{where.reason}{later}", image.record.path)
            continue
        if image.derivation and "file" not in where.rule.patterns:
            without(f"made from another image ({image.derivation})", image.record.path)
            continue
        if image.unclear:
            without("nothing says which of the scan's images this is", image.record.path)
            continue
        known = given.images.get(image.record.path)
        if (where.datatype, where.suffix) in TIMED and known is not None and known.volumes < 2:
            without(f"{where.suffix} has a time axis, this has 1 volume", image.record.path)
            continue
        if (where.datatype, where.suffix) in TIMED and frames_of(scan) in (0, 1):
            without(f"{where.suffix} has a time axis, this has {scan.frames} frame", image.record.path)
            continue
        images.append(
            BidsImage(
                given, image, where.datatype, where.suffix, where.entities, where.rule, len(pictures) == 1
            )
        )
    echoes = {image.picture.echo for image in images if image.picture.echo}
    return [_refined(image, len(echoes) > 1, phase=image.picture.record.path in phases) for image in images]


def _fields(given: ScanFiles, image: Picture, alone: bool) -> Fields | None:
    """The fields of an image's sidecar, if they are known."""
    if not given.fields:
        return None
    sidecar = companion(given, image, alone, ".json")
    return None if sidecar is None else given.fields.get(sidecar.path)


def _is_phase(fields: Fields) -> bool:
    types = fields.get("ImageType")
    return isinstance(types, list) and not {"P", "PHASE"}.isdisjoint(map(str, types))


def _pictures(given: ScanFiles, plan: BidsPlan) -> list[Picture]:
    """The images of a scan; one that is there twice, packed and not, is taken once."""
    of = picture if given.assumed is None else converted_picture
    images = [image for image in map(of, given.files) if image is not None]
    packed = {image.stem for image in images if image.extension == ".nii.gz"}
    chosen: dict[str, Picture] = {}
    for image in images:
        if (image.stem in packed and image.extension != ".nii.gz") or image.stem in chosen:
            plan.unmapped.append(
                Unmapped(
                    given.scan, given.resource, image.record.path, "the same image as another of this name"
                )
            )
        else:
            chosen[image.stem] = image
    return list(chosen.values())


def _refined(image: BidsImage, multi_echo: bool, phase: bool) -> BidsImage:
    """What the file's name says besides: the echo, phase or magnitude; of field maps, which often have one
    description, the sidecar (`phase`).
    """
    shot, entities, suffix = image.picture, dict(image.entities), image.suffix
    if image.datatype == "fmap":
        if suffix == "magnitude1" and phase:
            suffix = f"phase{shot.echo}" if multi_echo and shot.echo in (1, 2) else "phasediff"
        elif suffix == "magnitude1" and shot.echo == 2:
            suffix = "magnitude2"
        elif suffix == "phasediff" and multi_echo and shot.echo in (1, 2) and _both_phases(image):
            suffix = f"phase{shot.echo}"
        return replace(image, suffix=suffix)
    if multi_echo and shot.echo:
        if suffix == "T2starw":
            suffix = "MEGRE"
        entities.setdefault("echo", str(shot.echo))
    if shot.part:
        entities.setdefault("part", shot.part)
    entities = {**shot.entities, **entities}
    may = KINDS[image.datatype][suffix].may
    return replace(
        image, suffix=suffix, entities={name: value for name, value in entities.items() if name in may}
    )


def _both_phases(image: BidsImage) -> bool:
    pictures = [
        phase for phase in map(picture, image.given.files) if phase is not None and phase.part == "phase"
    ]
    return len({phase.echo for phase in pictures}) > 1


# --- the session --------------------------------------------------------------------------------------------


def _complete(images: list[BidsImage], plan: BidsPlan) -> list[BidsImage]:
    """Only those that have what BIDS demands."""
    complete: list[BidsImage] = []
    for image in images:
        reason = _lacks(image, images)
        if reason:
            plan.unmapped.append(
                Unmapped(image.given.scan, image.given.resource, image.picture.record.path, reason)
            )
        else:
            complete.append(image)
    return complete


def _lacks(image: BidsImage, all_of_them: list[BidsImage]) -> str:
    place = f"{image.datatype}/{image.suffix}"
    missing = sorted(image.kind.must - set(image.entities))
    if missing:
        return f"{place} needs the entity {missing[0]}, which nothing provides"
    for ending in COMPANIONS.get((image.datatype, image.suffix), ()):
        if (
            not (ending == "_aslcontext.tsv" and image.rule.aslcontext)
            and image.companion(*_spellings(ending)) is None
        ):
            return f"{place} needs a file {ending.lstrip('._')} beside the image"
    if image.companion(".json") is None:
        filled = _filled(image, all_of_them)
        unknown = [field for field in image.kind.fields if field not in filled]
        if unknown:
            return f"{place} requires {unknown[0]} in a sidecar, and there is none"
    elif image.known is not None:
        there = {*image.known.fields, *_filled(image, all_of_them)}
        lacking = [field for field in image.kind.fields if field not in there]
        if lacking:
            return f"{place} requires {lacking[0]} in its sidecar, and the DICOM files do not say it"
    if image.suffix == "fieldmap" and not any(other.suffix == "magnitude" for other in all_of_them):
        return f"{place} needs an image fmap/magnitude beside it"
    if image.suffix == "m0scan" and not any(other.suffix == "asl" for other in all_of_them):
        return f"{place} belongs to an image perf/asl, and there is none"
    return ""


def _filled(image: BidsImage, all_of_them: list[BidsImage]) -> set[str]:
    """The fields that are added to a sidecar that lacks them."""
    filled = {"TaskName", "IntendedFor", *image.rule.sidecar}
    if (image.datatype, image.suffix) in TIMED:
        filled |= {"RepetitionTime"}
    if "RepetitionTime" in {*image.rule.sidecar, *(image.known.fields if image.known else ())}:
        filled |= {"RepetitionTimePreparation"}
    if image.suffix == "phasediff" and echo_sources(image, all_of_them):
        filled |= {"EchoTime1", "EchoTime2"}
    return filled


def _spellings(ending: str) -> tuple[str, ...]:
    return (ending, f"{ending}s") if ending in (".bval", ".bvec") else (ending,)


def _expected(
    given: Iterable[tuple[float, ScanFiles]], images: list[BidsImage], rules: BidsMap
) -> list[BidsImage]:
    """The images that scans were taken for while nobody knew, and did not turn out to be.

    Such a scan keeps the number it had: otherwise looking into one would rename another. Not a field map:
    which of its images is which is in the files.
    """
    made = {image.picture.record for image in images}
    return [
        replace(image, given=image.given, moment=moment)
        for moment, one in given
        if one.assumed is not None and one.assumed not in made
        for image in _of_scan(one._replace(files=[one.assumed], images={}, refused=()), rules, BidsPlan())
        if image.datatype != "fmap"
    ]


# --- the files of one image ---------------------------------------------------------------------------------


def _put(
    plan: BidsPlan, image: BidsImage, stem: str, others: Mapping[str, BidsImage], links: Mapping[str, Any]
) -> None:
    path = f"{image.datatype}/{stem}_{image.suffix}"
    record = image.picture.record
    plan.files[f"{path}{image.picture.extension}"] = Same(record)
    source = record.path if image.given.assumed is None else ""
    plan.rows.append(Row(f"{path}{image.picture.extension}", image.given.scan, image.given.resource, source))
    for ending in COMPANIONS.get((image.datatype, image.suffix), ()):
        beside = image.companion(*_spellings(ending))
        target = f"{path}{ending}" if ending.startswith(".") else f"{image.datatype}/{stem}{ending}"
        if beside is not None:
            plan.files[target] = Same(beside)
        elif image.rule.aslcontext:
            plan.files[target] = _context(image)
    if (image.datatype, image.suffix) in TIMED:
        events = _events(image)
        shared = path.rpartition("/")[0] + "/" + re.sub(r"_(echo|part)-[^_]+", "", stem) + "_events.tsv"
        if events is not None:
            plan.files.setdefault(shared, Same(events))
    sidecar = _sidecar(image, others, links)
    if sidecar is not None:
        plan.files[f"{path}.json"] = sidecar


def _events(image: BidsImage) -> FileRecord | None:
    """The events of a series: echoes share them, and BIDS names an image `x_bold` and its events
    `x_events`.
    """
    base = image.picture.base
    for stem in dict.fromkeys((image.picture.stem, base, base.removesuffix("_bold"))):
        beside = replace(image, picture=replace(image.picture, stem=stem)).companion("_events.tsv")
        if beside is not None:
            return beside
    return None


def _context(image: BidsImage) -> Text | Context:
    volumes = image.rule.aslcontext
    if image.known is not None:
        return Text(context(volumes, image.known.volumes))
    if image.given.assumed is not None:  # the server counts its pictures, not its volumes
        return Context(image.picture.record, volumes)
    return Text(context(volumes, frames_of(image.given.scan) or len(volumes)))


def context(volumes: Sequence[str], count: int) -> bytes:
    """An `_aslcontext.tsv`: the types of volumes, repeated as often as they fill `count` volumes."""
    lines = (
        [volumes[index % len(volumes)] for index in range(count)] if count % len(volumes) == 0 else volumes
    )
    return ("\n".join(["volume_type", *lines]) + "\n").encode()


def _sidecar(
    image: BidsImage, others: Mapping[str, BidsImage], links: Mapping[str, Any]
) -> Same | Sidecar | None:
    """The original where nothing can lack in it; else one to be made."""
    original = image.companion(".json")
    fields: dict[str, Any] = dict(image.rule.sidecar)
    if "TaskName" in image.kind.fields:
        fields.setdefault("TaskName", image.entities["task"])
    if image.given.assumed is not None and image.entities.get("part") == "phase":
        fields.setdefault("Units", "arbitrary")  # stored numbers
    fields |= links
    sidecar = Sidecar(
        image.picture.record,
        original,
        fields,
        header="RepetitionTime" in image.kind.fields and "RepetitionTime" not in fields,
        preparation="RepetitionTimePreparation" in image.kind.fields,
        borrowed=echo_sources(image, others.values()) if image.suffix == "phasediff" else {},
    )
    if not (sidecar.fields or sidecar.header or sidecar.preparation or sidecar.borrowed):
        return None if original is None else Same(original)
    return sidecar
