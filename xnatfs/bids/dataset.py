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
from types import MappingProxyType
from typing import Any, NamedTuple

from xnatfs.bids import file_names
from xnatfs.bids.image_files import Picture, converted_picture, picture
from xnatfs.bids.mapping import BidsMap, Nowhere, Rule, frames_of
from xnatfs.bids.schema import COMPANIONS, KINDS, TIMED, SuffixKind
from xnatfs.server.records import FileRecord, ResourceRecord, ScanRecord, natural


class KnownImage(NamedTuple):
    """What is known of an image that was made: how many volumes it has, and the keys of its sidecar."""

    volumes: int
    fields: Sequence[str]


class ScanFiles(NamedTuple):
    """A scan with the files of its image resource and of its sidecar resource; `problem` says what is wrong
    with all of it.

    Of a scan that has DICOM files alone, `files` are those that are made of these: while nobody knows them,
    those of one image. `assumed` is that image. Once they are known, `images` has what is known of each, by
    path, and `refused` why others were not made.
    """

    scan: ScanRecord
    resource: str = ""
    files: Sequence[FileRecord] = ()
    sidecars: Sequence[FileRecord] = ()
    problem: str = ""
    assumed: FileRecord | None = None
    images: Mapping[str, KnownImage] = MappingProxyType({})
    refused: Sequence[str] = ()


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


@dataclass(frozen=True)
class _BidsImage:
    """An image on its way to a name."""

    given: ScanFiles
    picture: Picture
    datatype: str
    suffix: str
    entities: Mapping[str, str]
    rule: Rule
    alone: bool  # the only image of its scan

    @property
    def kind(self) -> SuffixKind:
        return KINDS[self.datatype][self.suffix]

    @property
    def known(self) -> KnownImage | None:
        """What is known of it, if it was made here."""
        return self.given.images.get(self.picture.record.path)

    def companion(self, *endings: str) -> FileRecord | None:
        """The file of the same name with another ending, beside the image or in the sidecar resource."""
        for files in (self.given.files, self.given.sidecars):
            by_path = {record.path.lower(): record for record in files}
            for ending in endings:
                wanted = f"{self.picture.stem}{ending}".lower()
                file_name = wanted.rsplit("/", 1)[-1]
                companion = by_path.get(wanted)
                if companion is None and files is self.given.sidecars:
                    companion = next(
                        (record for path, record in by_path.items() if path.rsplit("/", 1)[-1] == file_name),
                        None,
                    )
                if companion is not None:
                    return companion
        if self.alone:
            for files in (self.given.files, self.given.sidecars):
                for ending in endings:
                    bare = ending.lstrip("._")
                    some = [
                        record
                        for record in files
                        if re.search(rf"(\A|[/._-]){re.escape(bare)}\Z", record.path, re.IGNORECASE)
                    ]
                    if len(some) == 1:
                        return some[0]
        return None


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
    images: list[_BidsImage] = []
    given = sorted(given, key=lambda scan_files: natural(scan_files.scan.id))
    for scan_files in given:
        images += _of_scan(scan_files, rules, plan)
    images = _complete(images, plan)
    numbered = _numbered(images, given, rules)
    named = _named(numbered, subject, session, plan)
    by_path = {f"{image.datatype}/{stem}_{image.suffix}": image for stem, image in named}
    for stem, image in named:
        _put(plan, image, stem, by_path, f"sub-{subject}/ses-{session}")
    plan.rows.sort(key=lambda row: row.filename)
    return plan


# --- one scan -----------------------------------------------------------------------------------------------


def _of_scan(given: ScanFiles, rules: BidsMap, plan: BidsPlan) -> list[_BidsImage]:
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
    images: list[_BidsImage] = []
    for image in pictures:
        where = rules.place(scan, image.name)
        if isinstance(where, Nowhere):
            without(where.reason, image.record.path)
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
            _BidsImage(
                given, image, where.datatype, where.suffix, where.entities, where.rule, len(pictures) == 1
            )
        )
    echoes = {image.picture.echo for image in images if image.picture.echo}
    return [_refined(image, len(echoes) > 1) for image in images]


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


def _refined(image: _BidsImage, multi_echo: bool) -> _BidsImage:
    """What the file's name says besides: the echo, phase or magnitude."""
    shot, entities, suffix = image.picture, dict(image.entities), image.suffix
    if image.datatype == "fmap":
        if suffix == "magnitude1" and shot.echo == 2:
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


def _both_phases(image: _BidsImage) -> bool:
    pictures = [
        phase for phase in map(picture, image.given.files) if phase is not None and phase.part == "phase"
    ]
    return len({phase.echo for phase in pictures}) > 1


# --- the session --------------------------------------------------------------------------------------------


def _complete(images: list[_BidsImage], plan: BidsPlan) -> list[_BidsImage]:
    """Only those that have what BIDS demands."""
    complete: list[_BidsImage] = []
    for image in images:
        reason = _lacks(image, images)
        if reason:
            plan.unmapped.append(
                Unmapped(image.given.scan, image.given.resource, image.picture.record.path, reason)
            )
        else:
            complete.append(image)
    return complete


def _lacks(image: _BidsImage, all_of_them: list[_BidsImage]) -> str:
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


def _filled(image: _BidsImage, all_of_them: list[_BidsImage]) -> set[str]:
    """The fields that are added to a sidecar that lacks them."""
    filled = {"TaskName", "IntendedFor", *image.rule.sidecar}
    if (image.datatype, image.suffix) in TIMED:
        filled |= {"RepetitionTime"}
    if "RepetitionTime" in {*image.rule.sidecar, *(image.known.fields if image.known else ())}:
        filled |= {"RepetitionTimePreparation"}
    if image.suffix == "phasediff" and _echo_sources(image, all_of_them):
        filled |= {"EchoTime1", "EchoTime2"}
    return filled


def _spellings(ending: str) -> tuple[str, ...]:
    return (ending, f"{ending}s") if ending in (".bval", ".bvec") else (ending,)


def _echo_sources(image: _BidsImage, images: Iterable[_BidsImage]) -> dict[str, FileRecord]:
    """For a phase difference: the sidecars of the two magnitudes before it, whose echo times are its two."""
    sources: dict[str, FileRecord] = {}
    for magnitude in images:  # in scan order: the last pair before the phase difference is its own
        if magnitude.datatype == "fmap" and magnitude.suffix in ("magnitude1", "magnitude2"):
            if sources and magnitude is not image and _after(magnitude, image):
                break
            sidecar = magnitude.companion(".json")
            if sidecar is not None:
                sources[f"EchoTime{magnitude.suffix[-1]}"] = sidecar
    return sources if len(sources) == 2 else {}


def _after(image: _BidsImage, other: _BidsImage) -> bool:
    return natural(image.given.scan.id) > natural(other.given.scan.id)


def _numbered(images: list[_BidsImage], given: list[ScanFiles], rules: BidsMap) -> list[_BidsImage]:
    """Runs numbered in scan order where there are several, or always.

    A scan that turned out to be no image, or others, keeps the number it had while nobody knew: otherwise
    looking into one scan would rename another. Not a field map: which of its images is which is in the files.
    """
    made = {image.picture.record for image in images}
    once = [
        image
        for one in given
        if one.assumed is not None and one.assumed not in made
        for image in _of_scan(one._replace(files=[one.assumed], images={}, refused=()), rules, BidsPlan())
        if image.datatype != "fmap"
    ]
    groups: dict[tuple[object, ...], list[_BidsImage]] = {}
    for image in sorted([*images, *once], key=lambda image: natural(image.given.scan.id)):
        groups.setdefault((image.datatype, image.suffix, *sorted(image.entities.items())), []).append(image)
    numbered: list[_BidsImage] = []
    for group in groups.values():
        if (len(group) > 1 or rules.number_always) and "run" not in group[0].entities:
            numbered += [
                replace(image, entities={**image.entities, "run": str(n)}) for n, image in enumerate(group, 1)
            ]
        else:
            numbered += group
    runs = {
        image.given.scan.id: image.entities["run"]
        for image in numbered
        if image.picture.record not in made and "run" in image.entities
    }
    return [
        replace(image, entities={**image.entities, "run": runs[image.given.scan.id]})
        if image.given.scan.id in runs and "run" not in image.entities
        else image
        for image in numbered
        if image.picture.record in made
    ]


def _named(
    numbered: list[_BidsImage], subject: str, session: str, plan: BidsPlan
) -> list[tuple[str, _BidsImage]]:
    """Every name given once."""
    taken: dict[str, _BidsImage] = {}
    named: list[tuple[str, _BidsImage]] = []
    for image in numbered:
        stem = file_names.stem(subject, session, image.entities)
        path = f"{image.datatype}/{stem}_{image.suffix}".lower()
        if path in taken:
            reason = f"it has the same name as scan {taken[path].given.scan.id}"
            plan.unmapped.append(
                Unmapped(image.given.scan, image.given.resource, image.picture.record.path, reason)
            )
            continue
        taken[path] = image
        named.append((stem, image))
    return named


# --- the files of one image ---------------------------------------------------------------------------------


def _put(plan: BidsPlan, image: _BidsImage, stem: str, others: Mapping[str, _BidsImage], folder: str) -> None:
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
    sidecar = _sidecar(image, others, folder)
    if sidecar is not None:
        plan.files[f"{path}.json"] = sidecar


def _events(image: _BidsImage) -> FileRecord | None:
    """The events of a series: echoes share them, and BIDS names an image `x_bold` and its events
    `x_events`.
    """
    base = image.picture.base
    for stem in dict.fromkeys((image.picture.stem, base, base.removesuffix("_bold"))):
        beside = replace(image, picture=replace(image.picture, stem=stem)).companion("_events.tsv")
        if beside is not None:
            return beside
    return None


def _context(image: _BidsImage) -> Text | Context:
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


def _sidecar(image: _BidsImage, others: Mapping[str, _BidsImage], folder: str) -> Same | Sidecar | None:
    """The original where nothing can lack in it; else one to be made."""
    original = image.companion(".json")
    fields: dict[str, Any] = dict(image.rule.sidecar)
    if "TaskName" in image.kind.fields:
        fields.setdefault("TaskName", image.entities["task"])
    if image.given.assumed is not None and image.entities.get("part") == "phase":
        fields.setdefault("Units", "arbitrary")  # stored numbers
    wanted = image.rule.intended_for or (("perf/asl",) if image.suffix == "m0scan" else ())
    if wanted:
        targets = [
            f"{path}{target.picture.extension}"
            for path, target in others.items()
            if _is_meant(target, wanted) and target is not image
        ]
        if targets:
            fields["IntendedFor"] = [f"bids::{folder}/{target}" for target in sorted(targets)]
    sidecar = Sidecar(
        image.picture.record,
        original,
        fields,
        header="RepetitionTime" in image.kind.fields and "RepetitionTime" not in fields,
        preparation="RepetitionTimePreparation" in image.kind.fields,
        borrowed=_echo_sources(image, others.values()) if image.suffix == "phasediff" else {},
    )
    if not (sidecar.fields or sidecar.header or sidecar.preparation or sidecar.borrowed):
        return None if original is None else Same(original)
    return sidecar


def _is_meant(image: _BidsImage, wanted: Iterable[str]) -> bool:
    return any(target in (image.datatype, f"{image.datatype}/{image.suffix}") for target in wanted)
