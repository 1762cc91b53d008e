"""The sample data of the stand-in: archives built in memory, the same bytes, ids and dates at every build.

Used by the stand-in's commands and by tests. `build("lab")` is a small imaging lab (see `lab.py`),
`build("scale", ...)` any number of sessions (see `scale.py`), `build("empty")` a server with logins and
nothing else, `build("tour")` the lab, an image of 1 GiB, and a project with nothing but DICOM files.
"""

from __future__ import annotations

from typing import Any

from xnatfs.demo.data import lab, scale, tour
from xnatfs.demo.model import Archive

NAMES = ("lab", "scale", "empty", "tour")


def build(name: str = "lab", **options: Any) -> Archive:
    """The archive called `name`; `options` are those of `scale.build`."""
    if name == "lab" and not options:
        return lab.build()
    if name == "tour" and not options:
        return tour.build()
    if name == "scale":
        return scale.build(**options)
    if name == "empty" and not options:
        return scale.build(sessions=0)
    raise ValueError(
        f"no sample data {name!r} with options {sorted(options)}; there are {', '.join(NAMES)} (options: "
        f"scale only)"
    )
