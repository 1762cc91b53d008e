"""Packages of the optional extras (`pip install 'xnatfs[tables]'`), imported when they are first needed.

Used by whatever needs one. A mount, its views and the tables made of text files need none of them, and start
sooner without. Any thread.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from xnatfs.errors import MissingExtra

# Extra -> what it is for, and the packages that show whether it is installed.
EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "tables": (
        "tables that are read from images, .xlsx and .parquet files and data frames",
        ("numpy", "pandas", "pyarrow", "pydicom", "xlsxwriter"),
    ),
    "convert": ("conversion to NIfTI", ("dcm2niix", "numpy", "pydicom")),
    "demo": (
        "the embedded XNAT",
        ("httptools", "nibabel", "numpy", "pydicom", "starlette", "uvicorn"),
    ),
    "dask": ("tables collected on a Dask cluster", ("dask", "distributed")),
    "pyxnat": ("pyxnat", ("pandas", "pyxnat")),
    "fsspec": ("xnat:// URLs", ("fsspec", "upath")),
    "s3": ("a shared cache in an object store", ("fsspec", "s3fs")),
}


def load(package: str, extra: str) -> ModuleType:
    """Import a package of an extra.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        # Anything else that is missing is a broken installation, which its own message explains better.
        if (error.name or "").partition(".")[0] not in EXTRAS[extra][1]:
            raise
        raise MissingExtra(extra, EXTRAS[extra][0]) from error


def check(extra: str) -> None:
    """See that an extra is installed, without importing it.

    Raises:
        MissingExtra: a package of it is not installed.
    """
    purpose, packages = EXTRAS[extra]
    if not all(map(find_spec, packages)):
        raise MissingExtra(extra, purpose)


class Lazy:
    """A module of an extra that is imported at its first use.

    Args:
        package: its name.
        extra: the extra it belongs to.
    """

    def __init__(self, package: str, extra: str) -> None:
        self._package = package
        self._extra = extra

    def __getattr__(self, name: str) -> Any:
        """A public attribute of the module, kept from then on.

        Raises:
            MissingExtra: the module is not installed.
        """
        if name.startswith("__"):  # of somebody who looks at what this is, not at numbers
            raise AttributeError(name)
        value = getattr(load(self._package, self._extra), name)
        setattr(self, name, value)
        return value
