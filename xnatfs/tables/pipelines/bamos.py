"""BAMOS: volumes of white matter lesions, for the whole brain, by lobe and depth, and by arterial territory.

Used by `tables.registry`. Plain functions and values, any thread.

`stats` looks at four images voxel by voxel, but each file is parsed (and its rows kept) on its own. So a
parsed image is one row that holds what the table needs of it, compressed: of the two atlases a byte a voxel,
of the lesions only the voxels inside.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from xnatfs.extras import Lazy
from xnatfs.tables.parse.helpers import only, passed_csv
from xnatfs.tables.parse.nifti import ImageHeader, read, volume
from xnatfs.tables.spec import Column, Input, Inputs, Parsed, ParseError, Row, SessionInfo, Table, Wide

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xnatfs.tables.parse.nifti import Block
else:
    np = Lazy("numpy", "tables")

# The labels of the `Lobes_` image, in bx's words (C. Sudre et al., J Neuroradiol 2018).
LOBES = (
    *(
        "background",
        "left frontal",
        "right frontal",
        "left parietal",
        "right parietal",
        "left occipital",
        "right occipital",
    ),
    *("left temporal", "right temporal", "basal ganglia", "infratentorial"),
)
_MIN_PROBABILITY = 0.5  # a voxel belongs to a lesion from this probability on
_MAX_LAYER = 4  # layer 5 counts as layer 4
# Of an image: 512 x 512 x 512. A small gzip file can hold a thousand times its size in zeros.
_MAX_VOXELS = 2**27
_MAX_LESION_VOXELS = 2**22  # of lesions: 4 l at 1 mm, more than a brain
_PACKED_COLUMNS = ("shape", "voxel", "labels", "places", "values")


def lesion_volume(stream: BinaryIO, _: str) -> Parsed:
    """The sum of the probabilities of at least 0.5 x the voxel volume."""
    return Parsed(("volume",), [(repr(volume(stream, _MIN_PROBABILITY)),)])


def _blocks(stream: BinaryIO) -> tuple[ImageHeader, Iterator[Block]]:
    """An image that is kept in memory later, so its size is limited."""
    header, blocks = read(stream)
    if header.count > _MAX_VOXELS:
        raise ParseError(f"its header gives it {header.count:,} voxels, which no such image has")
    return header, blocks


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _row(header: ImageHeader, labels: bytes, places: bytes, values: bytes) -> Parsed:
    shape = "x".join(str(edge) for edge in header.shape)
    return Parsed(_PACKED_COLUMNS, [(shape, repr(header.voxel), _text(labels), _text(places), _text(values))])


def packed_labels(stream: BinaryIO, _: str) -> Parsed:
    """An image of labels from 0 to 255, as a byte a voxel, compressed."""
    header, blocks = _blocks(stream)
    packer = zlib.compressobj(6)
    parts: list[bytes] = []
    for block in blocks:
        labels = header.scaled(block)
        with np.errstate(all="ignore"):
            small = labels.astype(np.uint8)
        if not np.array_equal(small, labels):
            raise ParseError(
                "it is not an image of labels: some of its voxels are not whole numbers from 0 to 255"
            )
        parts.append(packer.compress(small.tobytes()))
    return _row(header, b"".join((*parts, packer.flush())), b"", b"")


def packed_inside(stream: BinaryIO, _: str, least: float) -> Parsed:
    """The voxels with a value of at least `least`: where they are and what they are, compressed."""
    header, blocks = _blocks(stream)
    count = 0
    places: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float64]] = []
    start = 0
    for block in blocks:
        scaled = header.scaled(block)
        if not np.isfinite(scaled).all():
            raise ParseError("some of its voxels are not numbers (nan or infinite)")
        inside = np.flatnonzero(scaled >= least)
        if inside.size:
            places.append(inside + start)
            values.append(scaled[inside])
            count += inside.size
            if count > _MAX_LESION_VOXELS:
                raise ParseError("it is not an image of lesions: nearly all of it would be one")
        start += block.size
    where = np.concatenate(places) if places else np.zeros(0, np.int64)
    steps = np.diff(where, prepend=0).astype("<i8")  # neighbours mostly: compresses well
    what = np.concatenate(values) if values else np.zeros(0)
    return _row(
        header, b"", zlib.compress(steps.tobytes(), 6), zlib.compress(what.astype("<f8").tobytes(), 6)
    )


class _LabelImage(NamedTuple):
    shape: str
    voxel: float
    labels: NDArray[np.uint8]
    places: NDArray[np.int64]
    values: NDArray[np.float64]


def _unpacked(parsed: Parsed) -> _LabelImage:
    def array(cell: str, kind: str) -> NDArray[Any]:
        data = base64.b64decode(cell)  # not base 85, which is decoded in Python code, slowly
        return np.frombuffer(zlib.decompress(data) if data else b"", kind)

    shape, voxel, labels, places, values = parsed.rows[0]
    return _LabelImage(
        shape, float(voxel), array(labels, "u1"), np.cumsum(array(places, "<i8")), array(values, "<f8")
    )


def _parts(layers: NDArray[np.uint8], lobes: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """One number for the depth and the lobe of each voxel. Two bytes each: an image has ten million
    voxels.
    """
    depth = layers.astype(np.uint16)
    depth[depth == _MAX_LAYER + 1] = _MAX_LAYER
    depth *= len(LOBES)
    depth += lobes
    return depth


def _counts(part: NDArray[np.uint16], size: int) -> NDArray[np.int64]:
    """How many voxels each part has; in blocks, since numpy counts in a copy of eight bytes a voxel."""
    counts = np.zeros(size, np.int64)
    for start in range(0, len(part), 2**20):
        counts += np.bincount(part[start : start + 2**20], minlength=size)
    return counts


def by_lobe_and_depth(_: SessionInfo, inputs: Inputs) -> Parsed:
    """Number and volume of the lesions in each part: depth by depth, in it lobe by lobe, for all depths and
    lobes there are.

    `n` is the number of different values of the components' image in the part, as bx counts: the outside of
    the lesions is one of them.
    """
    columns = ("depth", "region", "n", "volume")
    images = [
        _unpacked(parsed)
        for role in ("components", "lesions", "layers", "lobes")
        if (parsed := only(inputs, role))
    ]
    components, lesions, layers, lobes = images
    if len({image.shape for image in images}) > 1:
        return Parsed(
            columns, [], (f"its images differ in shape: {', '.join(image.shape for image in images)}",)
        )
    if (label := int(lobes.labels.max(initial=0))) >= len(LOBES):
        return Parsed(columns, [], (f"its lobes have the unknown label {label}",))
    part = _parts(layers.labels, lobes.labels)
    size = (int(layers.labels.max(initial=0)) + 1) * len(LOBES)
    voxels = _counts(part, size)
    of_component = part[components.places]
    outside = voxels - _counts(of_component, size)
    pairs = np.unique(np.stack((of_component.astype(np.float64), components.values)), axis=1)
    number = _counts(pairs[0].astype(np.uint16), size) + (outside > 0)
    amount = np.bincount(part[lesions.places], weights=lesions.values, minlength=size) * lesions.voxel
    by_part = voxels.reshape(-1, len(LOBES))
    rows: list[Row] = []
    for level in np.flatnonzero(by_part.sum(axis=1)).tolist():
        for lobe in np.flatnonzero(by_part.sum(axis=0)).tolist():
            at = level * len(LOBES) + lobe
            rows.append((str(level), LOBES[lobe], str(int(number[at])), repr(float(amount[at]))))
    return Parsed(columns, rows)


_inside = partial(packed_inside, least=_MIN_PROBABILITY)
# Components are numbered from 1: everything above nothing is inside.
_components = partial(packed_inside, least=math.ulp(0.0))

TABLES: tuple[Table, ...] = (
    Table(
        "bamos",
        "volumes",
        ("BAMOS",),
        (Input("lesions", "CorrectLesion_*nii.gz", lesion_volume),),
        (Column("volume", "mm3", "sum of the probabilities of at least 0.5 x voxel volume"),),
        doc="The volume of all white matter lesions.",
    ),
    Table(
        "bamos",
        "stats",
        ("BAMOS",),
        (
            Input("components", "Connect_WS3WT3WC1Lesion_*_corr.nii.gz", _components),
            Input("lesions", "CorrectLesion_*nii.gz", _inside),
            Input("layers", "Layers_*.nii.gz", packed_labels),
            Input("lobes", "Lobes_*.nii.gz", packed_labels),
        ),
        (
            Column("depth", source="the layer, 0 for none; layer 5 counts as 4"),
            Column("region", source="the lobe", text=True),
            Column(
                "n", source="different components in the part, the outside of the lesions counting as one"
            ),
            Column("volume", "mm3", "sum of the probabilities of at least 0.5 x voxel volume"),
        ),
        by_lobe_and_depth,
        wide=Wide(("depth", "region"), ("n", "volume")),
        doc="White matter lesions by lobe and by depth from the ventricles to the cortex.",
    ),
    Table(
        "bamosarterial",
        "stats",
        ("BAMOS_ARTERIAL",),
        (Input("stats", ("bamos_arterial_stats.csv", "*/bamos_arterial_stats.csv"), passed_csv()),),
        doc="White matter lesions by arterial territory: the pipeline's own CSV file.",
    ),
)
