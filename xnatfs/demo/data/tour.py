"""The `tour` data: the lab, a project BIG with an image of 1 GiB, and RAW with nothing but DICOM, for what
`xnatfs demo` shows.

Used by `build("tour")`. The large image is computed as it is read, and has no digest: making that would take
seconds.
"""

from __future__ import annotations

from xnatfs.demo.data import lab, raw
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.data.scale import large_nifti
from xnatfs.demo.model import Archive

_SIZE = 1 << 30  # bytes


def build() -> Archive:
    """The archive, the same at every call."""
    return lab.build(_big, raw.add)


def _big(make: Maker) -> None:
    project = make.project(
        "BIG", "One large image (sample data)", members=["demo"], description="An image of 1 GiB."
    )
    session = make.experiment(make.subject(project, "big"), "big_MR1", date="2024-01-08")
    name = "big_MR1_T1.nii"
    entry = make.entry(name, large_nifti(f"tour/{name}", _SIZE), digest="")
    make.resource(make.scan(session, "1", "T1"), "NIFTI", [entry], format="NIFTI")
