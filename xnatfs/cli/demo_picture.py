"""A slice of an image beside the folders it lies in, in characters: what `xnatfs demo` shows first.

Used by `demo`. Half blocks in shades of grey where the terminal has at least 256 colours, else a ramp of
ASCII characters, which any terminal and any file can hold.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

_RAMP = " .:-=+*#%@"  # from dark to bright
_WIDTH = 36  # columns
_MOST_NAMES = 6  # of a folder


def beside_the_tree(root: Path, folder: str, image: Path) -> tuple[Table, str]:
    """The folders of a session beside the middle slice of one of its images, and a sentence about the image.

    Args:
        root: the mountpoint.
        folder: the session's, below it; "/" at its end.
        image: a NIfTI file in it.
    """
    # The package is there: the stand-in needs it.
    import nibabel

    loaded: Any = nibabel.load(image)  # reads the header only
    shape, zooms = (
        " x ".join(f"{float(value):g}" for value in values)
        for values in (loaded.shape, loaded.header.get_zooms())
    )
    sentence = f"nibabel reads {image.name}: {shape} voxels of {zooms} mm, {loaded.get_data_dtype()}"
    tree = Tree(Text(folder))
    _grow(tree, root / folder, image)
    grid = Table.grid(padding=(0, 3))
    grid.add_row(tree, Slice(nibabel.as_closest_canonical(loaded)))  # type: ignore[no-untyped-call]
    return grid, sentence


def _grow(tree: Tree, folder: Path, image: Path) -> None:
    """Add what is in a folder; of its subfolders, only what leads to the image is opened."""
    names = sorted(os.listdir(folder))
    way = [name for name in names if folder / name in (image, *image.parents)]
    shown = [name for name in names if name in names[:_MOST_NAMES] or name in way]
    for name in shown:
        bold = "bold" if name in way else ""
        branch = tree.add(Text(name, bold))
        if folder / name in image.parents:
            _grow(branch, folder / name, image)
    if len(shown) < len(names):
        tree.add(Text(f"... {len(names) - len(shown)} more"))


class Slice:
    """The middle axial slice of an image, drawn for the console it is printed on."""

    def __init__(self, image: Any) -> None:
        import numpy as np

        data: Any = np.asarray(image.dataobj[:, :, image.shape[2] // 2], dtype=np.float32)
        wide, high = (
            size * float(zoom) for size, zoom in zip(data.shape, image.header.get_zooms()[:2], strict=True)
        )
        rows = 2 * max(1, round(_WIDTH * high / wide / 2))
        columns_at = (np.arange(_WIDTH) + 0.5) * data.shape[0] / _WIDTH
        rows_at = (np.arange(rows) + 0.5) * data.shape[1] / rows
        # Front up: rows of a terminal go down.
        small = data[np.ix_(columns_at.astype(int), rows_at.astype(int))].T[::-1]
        top = float(np.percentile(small, 99)) or 1.0
        self._grey = np.clip(small / top, 0.0, 1.0)

    def __rich_console__(self, console: Console, options: Any) -> Any:
        coloured = console.color_system in ("256", "truecolor") and not console.no_color
        yield self._blocks() if coloured and not options.ascii_only else self._ramp()

    def _blocks(self) -> Text:
        shades = (self._grey * 255).astype(int)
        text = Text(no_wrap=True)
        for upper, lower in zip(shades[::2], shades[1::2], strict=True):
            for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
                text.append("\u2580", f"rgb({above},{above},{above}) on rgb({below},{below},{below})")
            text.append("\n")
        return text

    def _ramp(self) -> Text:
        levels = ((self._grey[::2] + self._grey[1::2]) / 2 * (len(_RAMP) - 1)).round().astype(int)
        return Text(
            "\n".join("".join(_RAMP[level] for level in row) for row in levels.tolist()), no_wrap=True
        )
