"""The true files of the sample data in ordinary folders, spelled as on the mount.

Used by the command. Files come from the archive's objects, tables from the file system put together without a
mount: neither passes the kernel. One thread.
"""

from __future__ import annotations

from pathlib import Path

from tests.mount.spelling import Spelling
from tests.support import composed, lab_archive, read
from xnatfs.demo.data.truth import files

_LARGE = "projects/MESSY/subjects/m03/m03_catalogs/RESOURCES/LARGE/forty.bin"
_TABLES = [
    *(
        f"tables/{project}/freesurfer7/aseg.{kind}"
        for project in ("ALFA", "DWI", "MESSY", "PIPES")
        for kind in ("csv", "parquet")
    ),
    *(f"tables/ALFA/ashs/volumes{kind}" for kind in (".csv", ".parquet", ".xlsx", "_wide.csv")),
    "tables/ALFA/sessions.csv",
]


def write(url: str, folder: Path, scratch: Path) -> None:
    """Write all that the checks compare with into `folder`."""
    archive = lab_archive()
    for project, only in (("ALFA", ""), ("MESSY", _LARGE)):
        held = files(archive, project, "demo")
        for path, file in Spelling(archive, held).people().items():
            below = f"projects/{project}/{path}"
            if below.startswith(only) and not file.gone:
                _put(folder / below, file.read())
    with composed(url, scratch) as core:
        for below in _TABLES:
            _put(folder / below, read(core.vfs, f"/{below}"))


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o644)  # as on the mount
