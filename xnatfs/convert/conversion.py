"""A scan's DICOM files to NIfTI: split, converted, checked and packed, into a folder that is whole or absent.

Used by whatever converts. What comes out depends on the files' content, the converter and the rules alone:
not on names, order, the user's settings or the place.
Threading: any thread; one process at a time.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from xnatfs.convert.check import VERSION, check, read_sidecar
from xnatfs.convert.converter import OPTIONS, Converter
from xnatfs.convert.headers import ImageFile
from xnatfs.convert.pack import COMPRESSOR, STRIPPED, pack_image, packed_sidecar
from xnatfs.convert.refusal import Refusal
from xnatfs.convert.split import Part, RefusedPart, split
from xnatfs.disk import disk_failure
from xnatfs.errors import Cause, Failure

# Images of overlay planes, which dcm2niix writes beside the image of the pixels: drawings, not data.
_OVERLAY = "img_ROI"
_SIDES = (".bval", ".bvec")


class ImageFacts(NamedTuple):
    """What is known of an image without reading it: how many volumes it has, and the keys of its sidecar."""

    volumes: int
    fields: tuple[str, ...]


class Conversion(NamedTuple):
    """What came of a scan: the names of the images, without extension, what was refused, and facts by name
    of image.
    """

    images: tuple[str, ...]
    refused: tuple[RefusedPart, ...]
    facts: Mapping[str, ImageFacts] = MappingProxyType({})


def conversion_key(
    digests: Iterable[str],
    converter: Converter,
    stripped: Iterable[str] = STRIPPED,
    listed: int | None = None,
) -> str:
    """Names what a conversion gives: other files, another converter or other rules give another key.

    Args:
        digests: of the files, in any order.
        listed: how many files the server counts, where these are others than it lists.
    """
    parts = (
        *(converter.version, converter.digest, " ".join(OPTIONS), f"rules {VERSION}", COMPRESSOR),
        " ".join(sorted(stripped)),
        *([] if listed is None else [f"{listed} files"]),
        *sorted(digests),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def convert(
    paths: Iterable[Path],
    target: Path,
    name: str,
    converter: Converter,
    *,
    listed: int | None = None,
    stripped: Iterable[str] = STRIPPED,
    known: Mapping[Path, ImageFile | Refusal | None] = MappingProxyType({}),
) -> Conversion:
    """Convert the files of a scan.

    Args:
        paths: all of them.
        target: the folder for what comes out; not there yet, and there only once all is in it. Without an
            image there is none.
        name: what the names of images begin with.
        listed: how many files the server counts.
        stripped: keys that are left out of sidecars.
        known: see `split`.

    Raises:
        Failure: the disk is full or the converter missing; NOT what is wrong with the files, which is in
            `Conversion.refused`.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".convert-", dir=target.parent) as work:
            done = _convert(list(paths), Path(work), name, converter, listed, tuple(stripped), known)
            if done.images:
                (Path(work) / "made").rename(target)
            return done
    except OSError as error:
        raise error if isinstance(error, Failure) else disk_failure(error, str(target.parent)) from error


def _convert(
    paths: list[Path],
    work: Path,
    name: str,
    converter: Converter,
    listed: int | None,
    stripped: tuple[str, ...],
    known: Mapping[Path, ImageFile | Refusal | None],
) -> Conversion:
    made = work / "made"
    made.mkdir()
    try:
        parts, refused = split(paths, listed, known)
    except Refusal as refusal:
        return Conversion((), (RefusedPart("", str(refusal)),))
    facts: dict[str, ImageFacts] = {}
    problems = list(refused)
    for number, part in enumerate(parts):
        try:
            image = f"{name}{part.label}"
            facts[image] = _convert_part(part, work / str(number), made / image, converter, stripped)
        except Refusal as refusal:
            problems.append(RefusedPart(part.label, str(refusal)))
        finally:
            shutil.rmtree(work / str(number), ignore_errors=True)
    return Conversion(tuple(facts), tuple(problems), facts)


def _convert_part(
    part: Part, work: Path, target: Path, converter: Converter, stripped: tuple[str, ...]
) -> ImageFacts:
    """One image, and what belongs beside it."""
    work.mkdir(mode=0o700)
    if shutil.disk_usage(work).free < 3 * part.data_bytes:
        raise Failure(Cause.NO_SPACE, str(work.parent.parent))
    written = converter.run([file.path for file in part.files], work, part.data_bytes)
    image, beside = _only_image(written)
    sidecar = check(part, image, read_sidecar(image.with_suffix(".json")))
    pack_image(image, target.with_name(target.name + ".nii.gz"))
    target.with_name(target.name + ".json").write_bytes(packed_sidecar(sidecar, converter, stripped))
    for one in beside:
        shutil.copyfile(one, target.with_name(target.name + one.suffix))
    return ImageFacts(len(part.volumes), tuple(sorted(set(sidecar) - set(stripped))))


def _only_image(written: list[Path]) -> tuple[Path, list[Path]]:
    """The one image, and the b-values and directions beside it.

    Raises:
        Refusal: there is another one, or none, or something unknown.
    """
    files = [path for path in written if not path.name.startswith(_OVERLAY)]
    images = [path for path in files if path.suffix == ".nii"]
    if len(images) != 1:
        names = ", ".join(path.stem for path in images)
        raise Refusal(f"dcm2niix made {len(images)} images of it{names and f' ({names})'}, not one")
    beside = [path for path in files if path.suffix in _SIDES and path.stem == images[0].stem]
    known = {images[0], images[0].with_suffix(".json"), *beside}
    others = [path.name for path in files if path not in known]
    if others or images[0].with_suffix(".json") not in files or len(beside) == 1:
        raise Refusal(f"dcm2niix wrote other files than expected ({', '.join(others) or 'some are missing'})")
    return images[0], beside
