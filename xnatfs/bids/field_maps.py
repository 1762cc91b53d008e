"""What a session's field maps have to do with its other images: echo times, IntendedFor, B0FieldIdentifier.

Used by `dataset`. Field maps belong to the images that their rule names; of several of a kind each to all of
these, or each image to the closest in time.
Threading: pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from xnatfs.bids.bids_image import BidsImage
from xnatfs.server.records import FileRecord

_ASL = ("perf/asl",)  # what an image m0scan is for, whatever its rule says


def echo_sources(image: BidsImage, images: Iterable[BidsImage]) -> dict[str, FileRecord]:
    """For a phase difference: the sidecars of the two magnitudes before it, whose echo times are its two."""
    sources: dict[str, FileRecord] = {}
    magnitudes = [
        other for other in images if other.datatype == "fmap" and other.suffix in ("magnitude1", "magnitude2")
    ]
    for magnitude in sorted(magnitudes, key=lambda other: other.moment):  # the last pair before it is its own
        if sources and magnitude is not image and magnitude.moment > image.moment:
            break
        sidecar = magnitude.companion(".json")
        if sidecar is not None:
            sources[f"EchoTime{magnitude.suffix[-1]}"] = sidecar
    return sources if len(sources) == 2 else {}


def links_of(images: Mapping[str, BidsImage], folder: str) -> dict[str, dict[str, Any]]:
    """By path the fields of sidecars that name other images, or are named by them; `images` by path below the
    session's `folder`.
    """
    links: dict[str, dict[str, Any]] = {}
    sources: dict[str, set[str]] = {}
    for path, image in images.items():
        intent = image.rule.intent
        targets = _targets(path, image, images)
        if targets:
            links.setdefault(path, {})["IntendedFor"] = [
                f"bids::{folder}/{target}{images[target].picture.extension}" for target in sorted(targets)
            ]
        if intent.b0_field and image.datatype == "fmap":
            run = image.entities.get("run", "")
            identifier = f"{intent.b0_field}_run{int(run)}" if run else intent.b0_field
            links.setdefault(path, {})["B0FieldIdentifier"] = identifier
            for target in targets:
                sources.setdefault(target, set()).add(identifier)
    for path, names in sources.items():
        listed = sorted(names)
        links.setdefault(path, {})["B0FieldSource"] = listed[0] if len(listed) == 1 else listed
    return links


def _targets(path: str, image: BidsImage, images: Mapping[str, BidsImage]) -> list[str]:
    intent = image.rule.intent
    kinds = intent.kinds or (_ASL if image.suffix == "m0scan" else ())
    names = [_parts(name) for name in intent.names]
    targets = [
        target
        for target, other in images.items()
        if other is not image
        and (
            other.datatype in kinds
            or f"{other.datatype}/{other.suffix}" in kinds
            or (other.rule.name and other.rule.name in intent.names)
            or any(_is_called(target, other, name) for name in names)
        )
    ]
    if not intent.closest:
        return targets
    siblings = [other for other in images.values() if _kind(other) == _kind(image)]
    return [target for target in targets if _closest(images[target], siblings) is image]


def _kind(image: BidsImage) -> tuple[object, ...]:
    return image.datatype, image.suffix, {**image.entities, "run": ""}, image.rule.intent


def _closest(image: BidsImage, field_maps: Iterable[BidsImage]) -> BidsImage:
    """Of two as close, the earlier."""
    return min(field_maps, key=lambda other: (abs(other.moment - image.moment), other.moment))


def _is_called(path: str, image: BidsImage, name: frozenset[str]) -> bool:
    """Whether a name without subject and session means an image; without a run, any of its runs."""
    own = frozenset(part for part in _parts(path.rpartition("/")[2]) if not part.startswith(("sub-", "ses-")))
    run = {part for part in own if part.startswith("run-")}
    return name == own or (bool(run) and name == own - run)


def _parts(name: str) -> frozenset[str]:
    """The parts of a name in any order; `run-01` is `run-1`."""
    found = set()
    for part in name.rpartition("/")[2].split("_"):
        key, dash, value = part.partition("-")
        found.add(f"{key}-{int(value)}" if dash and value.isdecimal() and len(value) < 10 else part)
    return frozenset(found)
