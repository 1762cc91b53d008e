"""Which files are one image: the files of a scan sorted into parts, of which each is converted by itself.

Used by `conversion`. What dcm2niix would do with what is refused here: fill a gap by moving slices, take
space for time, mix two images, or name two images alike. Plain functions, any thread.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from xnatfs.convert.frames import ImageFrame, Vector
from xnatfs.convert.headers import ImageFile, scanned
from xnatfs.convert.refusal import Refusal

_UNEVEN = 0.01  # of the distance between slices
_LEAST_MM = 0.01  # positions are written with few digits
_SAME_DIRECTION = 1e-3  # of a direction's components
_PLANES = ("sagittal", "coronal", "axial")


class Shot(NamedTuple):
    """A picture and the file it is in."""

    file: ImageFile
    frame: ImageFrame


@dataclass(frozen=True)
class Part:
    """The files of one image.

    Attributes:
        label: what its file name has that those of the other parts have not, as BIDS entities
            ("_echo-2_part-phase"); "" if it is the only one.
        files: in the order of their instance numbers.
        volumes: its pictures, in the order of time, then along the normal of the slices.
        in_time: whether that order is known; of enhanced files it is just known which belong together.
    """

    label: str
    files: tuple[ImageFile, ...]
    volumes: tuple[tuple[Shot, ...], ...]
    in_time: bool

    @property
    def data_bytes(self) -> int:
        """Of its pixels, at two bytes each."""
        rows, columns = self.files[0].shape
        return 2 * rows * columns * sum(map(len, self.volumes))


class RefusedPart(NamedTuple):
    """A part that is not converted, and why."""

    label: str
    reason: str


class Split(NamedTuple):
    """The parts of a scan, and those refused."""

    parts: tuple[Part, ...]
    refused: tuple[RefusedPart, ...]


def split(
    paths: Iterable[Path],
    listed: int | None = None,
    known: Mapping[Path, ImageFile | Refusal | None] = MappingProxyType({}),
) -> Split:
    """Sort the files of a scan.

    Args:
        paths: all files of it, in any order and under any names. What is no DICOM file is passed over.
        listed: how many files the server counts; None if it does not say.
        known: of files that were read before, what `headers.scanned` says.

    Raises:
        Refusal: nothing of it can be converted.
        OSError: a file cannot be read.
    """
    paths = list(paths)
    if listed is not None and len(paths) != listed:
        raise Refusal(f"there are {len(paths)} files, and the server counts {listed}")
    files: dict[str, ImageFile] = {}
    refusals: set[str] = set()
    for path in sorted(paths):
        file = known[path] if path in known else scanned(path)
        if isinstance(file, Refusal):
            refusals.add(str(file))
        if not isinstance(file, ImageFile):
            continue
        other = files.setdefault(file.uid, file)
        if other is file:
            continue
        if other.digest != file.digest and not _same_pictures(other, file):
            refusals.add("two different pictures carry the same SOP instance UID")
        elif other.digest > file.digest:  # whichever name sorts first, the same one is taken
            files[file.uid] = file
    if refusals:
        raise Refusal(min(refusals))  # the same one whatever the names
    if not files:
        raise Refusal("there are no DICOM files")
    _refuse_scattered(files.values())
    groups: dict[tuple[Any, ...], list[ImageFile]] = defaultdict(list)
    directions: list[tuple[float, ...]] = []
    for file in sorted(files.values(), key=_in_order):
        groups[_key(file, directions)].append(file)
    labels = _labels(groups)
    parts: list[Part] = []
    refused: list[RefusedPart] = []
    for key, members in groups.items():
        try:
            parts.append(_part(labels[key], members))
        except Refusal as refusal:
            refused.append(RefusedPart(labels[key], str(refusal)))
    return Split(
        tuple(sorted(parts, key=lambda part: part.label)), tuple(sorted(refused, key=lambda part: part.label))
    )


def _in_order(file: ImageFile) -> tuple[Any, ...]:
    return (file.series, -1 if file.instance is None else file.instance, file.uid)


def _same_pictures(one: ImageFile, other: ImageFile) -> bool:
    """Whether two files differ in what does not matter here, as two exports of one picture do."""
    if one.frames != other.frames or one.shape != other.shape or not (one.comparable and other.comparable):
        return False
    return bool((one.pictures() == other.pictures()).all())


def _refuse_scattered(files: Iterable[ImageFile]) -> None:
    """What an anonymiser that gives every file a series UID of its own leaves, and gaps."""
    numbers: dict[str, set[str]] = defaultdict(set)
    instances: dict[str, set[int]] = defaultdict(set)
    for file in files:
        numbers[file.series_number].add(file.series)
        if file.instance is not None and (len(file.frames) == 1 or file.tiles):
            instances[file.series].add(file.instance)
    for number, series in sorted(numbers.items()):
        if len(series) > 1:
            raise Refusal(
                f"the files of series {number or 'without a number'} have {len(series)} series UIDs"
            )
    for found in instances.values():
        missing = max(found) - min(found) + 1 - len(found)
        if missing:
            raise Refusal(
                f"{missing} of the instance numbers between {min(found)} and {max(found)} are missing"
            )


def _key(file: ImageFile, directions: list[tuple[float, ...]]) -> tuple[Any, ...]:
    first = file.frames[0]
    for known in directions:
        if _alike(known, first.orientation):
            direction = known
            break
    else:
        direction = first.orientation
        directions.append(direction)
    spacing = tuple(round(value, 3) for value in file.spacing)
    return (
        *(file.series, file.series_number, file.echo, file.component, file.image_type, direction),
        *(file.shape, spacing, bool(file.tiles), len(file.frames) > 1),
    )


def _alike(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) < _SAME_DIRECTION for a, b in zip(one, other, strict=True))


# --- names --------------------------------------------------------------------------------------------------


def _labels(groups: dict[tuple[Any, ...], list[ImageFile]]) -> dict[tuple[Any, ...], str]:
    """What tells the parts of a scan apart, from their headers alone: never from the order of files."""
    shared = set.intersection(*(set(key[4]) for key in groups))

    def echo(key: tuple[Any, ...]) -> str:
        of_series = sorted({other[2] for other in groups if other[0] == key[0]}, key=str)
        numbers = [value for value, _ in of_series]
        number = key[2][0]
        if number is None or len(set(numbers)) < len(numbers):
            number = 1 + of_series.index(key[2])
        return f"{number:g}"

    entities: tuple[tuple[str, Callable[[tuple[Any, ...]], str]], ...] = (
        ("series", lambda key: re.sub(r"[^A-Za-z0-9]", "", key[1])),
        ("echo", echo),
        ("part", lambda key: key[3] or "none"),
        ("rec", lambda key: _reconstruction(key[4], shared)),
        ("plane", lambda key: _plane(key[5])),
    )
    labels = dict.fromkeys(groups, "")
    for name, value in entities:
        values = {key: value(key) for key in groups}
        if len(set(values.values())) > 1:
            labels = {key: f"{label}_{name}-{values[key]}" for key, label in labels.items()}
    used: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for key, label in labels.items():
        used[label].append(key)
    for label, alike in used.items():
        if len(alike) > 1:
            alike.sort(key=lambda key: (groups[key][0].instance or 0, groups[key][0].uid))
            labels |= {key: f"{label}_image-{place}" for place, key in enumerate(alike, 1)}
    return labels


def _reconstruction(image_type: Sequence[str], shared: set[str]) -> str:
    parts = {"M", "P", "R", "I", "MAGNITUDE", "PHASE", "REAL", "IMAGINARY"}
    special = [re.sub(r"[^A-Za-z0-9]", "", one).lower() for one in image_type if one not in shared | parts]
    return "".join(special) or "plain"


def _plane(direction: Sequence[float]) -> str:
    normal = [abs(value) for value in _normal(direction)]
    return _PLANES[normal.index(max(normal))]


# --- geometry -----------------------------------------------------------------------------------------------


def _part(label: str, files: list[ImageFile]) -> Part:
    if len({file.study_time for file in files}) > 1:
        raise Refusal("its files have several times of one study, which takes them apart")
    shots = [Shot(file, frame) for file in files for frame in file.frames]
    if any(not _alike(shots[0].frame.orientation, frame.orientation) for _, frame in shots):
        raise Refusal("its file holds pictures of several orientations, which are not taken apart")
    if len({frame.image for _, frame in shots}) > 1:
        raise Refusal("its file holds several images (as echoes, or phases), which are not taken apart")
    stacks = _stacks(shots)
    counts = {len(stack) for stack in stacks}
    if len(counts) > 1:
        raise Refusal(
            f"a volume is incomplete: of {len(stacks)} slices some are there {min(counts)} times, others"
            f" {max(counts)} times"
        )
    if len(stacks) == 1 and len(shots) > 1 and len({frame.moment for _, frame in shots}) < len(shots):
        raise Refusal(f"{len(shots)} pictures lie at one place, and nothing says which was taken when")
    if any(len(file.frames) > 1 and not file.tiles for file in files):
        return Part(label, tuple(files), *_by_index(stacks))
    return Part(label, tuple(files), _by_instance(stacks), True)


def _stacks(shots: list[Shot]) -> list[list[Shot]]:
    """The pictures of each place, from place to place along the normal.

    Raises:
        Refusal: the places are not evenly spaced along it.
    """
    normal = _normal(shots[0].frame.orientation)
    along = sorted(shots, key=lambda shot: _dot(shot.frame.position, normal))
    stacks: list[list[Shot]] = [[along[0]]]
    for shot in along[1:]:
        further = _dot(shot.frame.position, normal) - _dot(stacks[-1][0].frame.position, normal)
        if further > _LEAST_MM:
            stacks.append([shot])
        else:
            stacks[-1].append(shot)
    first, last = stacks[0][0].frame.position, stacks[-1][0].frame.position
    apart = max(len(stacks) - 1, 1)
    step = _vector_of((end - start) / apart for start, end in zip(first, last, strict=True))
    length = _dot(step, step) ** 0.5
    limit = max(_UNEVEN * length, _LEAST_MM)
    for place, stack in enumerate(stacks):
        for _, frame in stack:
            away = [frame.position[axis] - first[axis] - place * step[axis] for axis in range(3)]
            if max(map(abs, away)) > limit:
                raise Refusal("its slices are not evenly spaced, or some are missing")
    across = [step[axis] - _dot(step, normal) * normal[axis] for axis in range(3)]
    if max(map(abs, across)) > _UNEVEN * length:
        raise Refusal("its slices are shifted against each other, as with a tilted gantry")
    return stacks


def _by_instance(stacks: list[list[Shot]]) -> tuple[tuple[Shot, ...], ...]:
    """Volumes of files with one picture, or one mosaic: at each place they follow in the order of their
    instance numbers, and the numbers run through the volumes, or through the places, one after the other.

    Raises:
        Refusal: they do not, or there are none.
    """
    count = len(stacks[0])
    if count == 1:
        return (tuple(stack[0] for stack in stacks),)
    shots = [shot for stack in stacks for shot in stack]
    instances = {shot.file.instance for shot in shots}
    mosaic = bool(shots[0].file.tiles)
    if None in instances or len(instances) != (count if mosaic else len(shots)):
        raise Refusal("several of its pictures have the same instance number, or none")
    ordered = [sorted(stack, key=lambda shot: shot.file.instance or 0) for stack in stacks]
    volumes = tuple(tuple(stack[number] for stack in ordered) for number in range(count))
    if not mosaic and not (_follow(volumes) or _follow(ordered)):
        raise Refusal("the order of its volumes is not clear from its instance numbers")
    for which in (0, 1):  # temporal position, acquisition number
        moments = [{shot.frame.moment[which] for shot in volume} for volume in volumes]
        found = set().union(*moments)
        if len(found) == count and None not in found:
            order = [min(moment) for moment in moments]
            if any(len(moment) > 1 for moment in moments) or order != sorted(order):
                raise Refusal("its instance numbers and its acquisition numbers give two orders of volumes")
    return volumes


def _follow(groups: Iterable[Sequence[Shot]]) -> bool:
    """Whether all instance numbers of a group come before those of the next."""
    spans = sorted(
        (min(numbers), max(numbers))
        for numbers in ([shot.file.instance or 0 for shot in group] for group in groups)
    )
    return all(before[1] < after[0] for before, after in itertools.pairwise(spans))


def _by_index(stacks: list[list[Shot]]) -> tuple[tuple[tuple[Shot, ...], ...], bool]:
    """Volumes of enhanced files: pictures with the same indices, apart from those of the place; and whether
    their order in time is known: by an index of time, or because each is a file of its own.

    Raises:
        Refusal: the indices do not tell volumes apart.
    """
    found: dict[tuple[Any, ...], list[Shot]] = defaultdict(list)
    for stack in stacks:
        for shot in stack:
            moment = tuple(-1.0 if value is None else float(value) for value in shot.frame.moment)
            found[(shot.file.instance or 0, shot.file.uid, moment)].append(shot)
    if any(len(volume) != len(stacks) for volume in found.values()):
        raise Refusal("its pictures' indices do not say which belong to one volume")
    volumes = {key: found[key] for key in sorted(found, key=lambda key: (key[0], key[2], key[1]))}
    files = {volume[0].file.instance for volume in volumes.values()} - {None}
    times = {volume[0].frame.moment[0] for volume in volumes.values()} - {None}
    in_time = len(volumes) == 1 or len(files) == len(volumes) or len(times) == len(volumes)
    return tuple(map(tuple, volumes.values())), in_time


def _normal(direction: Sequence[float]) -> Vector:
    (a, b, c), (d, e, f) = direction[:3], direction[3:]
    return (b * f - c * e, c * d - a * f, a * e - b * d)


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _vector_of(values: Iterable[float]) -> Vector:
    x, y, z = values
    return (x, y, z)
