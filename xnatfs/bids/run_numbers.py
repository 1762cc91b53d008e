"""Names of a session's images where several would have the same: runs in the order of acquisition, or the
last of them alone.

Used by `dataset`. The order is that of the times the scans began at, where the server tells all of them; else
that of the scan ids. A single-band reference has the number of the series it was taken for, a phase image
that of its magnitudes. No name is given twice: what is left over has a reason.
Threading: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from xnatfs.bids import file_names
from xnatfs.bids.bids_image import BidsImage, ScanFiles
from xnatfs.bids.mapping import COUNTED, LAST, BidsMap, frames_of
from xnatfs.server.records import natural

_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d(?:\.\d{1,9})?)\s*\Z")
_HALF_A_DAY_S = 43_200.0  # no session is longer; one that seems so went past midnight
# Whose number an image has: the next series of these suffixes, or the last magnitude before it.
_NEXT = {("func", "sbref"): ("bold", "cbv"), ("dwi", "sbref"): ("dwi",)}
_BEFORE = {("fmap", name): ("magnitude1",) for name in ("phasediff", "phase1", "phase2")}


def in_time(given: Iterable[ScanFiles]) -> list[tuple[float, ScanFiles]]:
    """Scans in the order of their acquisition, each with its moment. Those without files have none, and need
    none: screenshots and reports often lack a time.
    """
    scans = sorted(given, key=lambda files: natural(files.scan.id))
    times = [_seconds(files.scan.start_time) if files.files else 0.0 for files in scans]
    known = [time for time in times if time is not None]
    if len(known) < len(scans):
        return [(float(place), files) for place, files in enumerate(scans)]
    taken = [time for time, files in zip(known, scans, strict=True) if files.files]
    if taken and max(taken) - min(taken) > _HALF_A_DAY_S:
        known = [time + 2 * _HALF_A_DAY_S if time < _HALF_A_DAY_S else time for time in known]
    return sorted(zip(known, scans, strict=True), key=lambda one: one[0])


def named(
    images: Sequence[BidsImage],
    expected: Sequence[BidsImage],
    subject: str,
    session: str,
    rules: BidsMap,
) -> Iterator[tuple[str, BidsImage, str]]:
    """Each image with its name up to the suffix; or with the reason why it has none.

    Args:
        images: those there are.
        expected: those that are counted too: there was no image, or the scan has others, which have its
            number.
    """
    kept: list[BidsImage] = []
    for group in _groups(images).values():
        chosen, rest = _last(group) if _repeats(group[0], rules) == LAST else (group, "")
        kept += chosen
        for image in group:
            if image not in chosen:
                yield "", image, rest
    counted = [image for image in expected if _repeats(image, rules) != LAST]
    taken: dict[str, BidsImage] = {}
    for image in _numbered(kept, counted, bool(rules.number_always)):
        stem = file_names.stem(subject, session, image.entities)
        path = f"{image.datatype}/{stem}_{image.suffix}".lower()
        if path in taken:
            yield "", image, f"it has the same name as scan {taken[path].given.scan.id}"
            continue
        taken[path] = image
        yield stem, image, ""


def _repeats(image: BidsImage, rules: BidsMap) -> str:
    return image.rule.repeats or rules.repeats


def _seconds(text: str) -> float | None:
    match = _TIME.match(text)
    return None if match is None else int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])


def _groups(images: Iterable[BidsImage]) -> dict[tuple[object, ...], list[BidsImage]]:
    """Images of one name each."""
    groups: dict[tuple[object, ...], list[BidsImage]] = {}
    for image in images:
        groups.setdefault((image.datatype, image.suffix, *sorted(image.entities.items())), []).append(image)
    return groups


def _last(group: list[BidsImage]) -> tuple[list[BidsImage], str]:
    """The images of the last scan, and why the others are left out. Of scans whose frames are known, one that
    has fewer than another was broken off.
    """
    frames = [frames_of(image.given.scan) for image in group]
    most = max((count for count in frames if count is not None), default=None)
    whole = [image for image, count in zip(group, frames, strict=True) if None in frames or count == most]
    last = max(whole, key=lambda image: image.moment).given.scan
    chosen = [image for image in group if image.given.scan == last]
    return chosen, f"scan {last.id} is the last one of its name, and only that is wanted"


def _numbered(images: Sequence[BidsImage], expected: Sequence[BidsImage], always: bool) -> list[BidsImage]:
    """The images with their runs; those that follow another one's number last, closest first."""
    runs: dict[int, str] = {}
    groups = _groups([*images, *expected])
    for group in groups.values():
        counted = len(group) > 1 or always or group[0].rule.repeats == COUNTED
        if counted and "run" not in group[0].entities:
            ordered = sorted(group, key=lambda image: image.moment)
            runs |= {id(image): str(number) for number, image in enumerate(ordered, 1)}
    leaders: dict[int, BidsImage] = {}
    for group in groups.values():
        if "run" in group[0].entities:
            continue
        found = {id(image): _leader(image, [*images, *expected]) for image in group}
        if any(leader is not None and id(leader) in runs for leader in found.values()) and all(
            found.values()
        ):
            leaders |= {key: leader for key, leader in found.items() if leader is not None}
    of_scan = {image.given.scan.id: runs[id(image)] for image in expected if id(image) in runs}
    runs |= {
        id(image): of_scan[image.given.scan.id]
        for image in images
        if image.given.scan.id in of_scan and id(image) not in runs and "run" not in image.entities
    }
    for key, leader in leaders.items():
        number = runs.get(id(leader)) or leader.entities.get("run")
        if number:
            runs[key] = number
    numbered = [
        (
            image,
            replace(image, entities={**image.entities, "run": runs[id(image)]})
            if id(image) in runs
            else image,
        )
        for image in images
    ]

    def distance(pair: tuple[BidsImage, BidsImage]) -> float:
        leader = leaders.get(id(pair[0]))
        return -1.0 if leader is None else abs(leader.moment - pair[0].moment)

    # The closest of two that claim one number has it.
    return [image for _, image in sorted(numbered, key=distance)]


def _leader(image: BidsImage, images: Iterable[BidsImage]) -> BidsImage | None:
    """The image whose number another one has."""
    after, before = (table.get((image.datatype, image.suffix)) for table in (_NEXT, _BEFORE))
    wanted = _alike(image.entities)
    candidates = [
        other
        for other in images
        if other.datatype == image.datatype
        and other.suffix in (after or before or ())
        and _alike(other.entities) == wanted
    ]
    if after:
        later = [other for other in candidates if other.moment >= image.moment]
        return min(later, key=lambda other: other.moment, default=None)
    earlier = [other for other in candidates if other.moment <= image.moment]
    return max(earlier, key=lambda other: other.moment, default=None)


def _alike(entities: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in entities.items() if name not in ("part", "run")}
