"""All measurement tables: the built-in ones in a fixed order, and those of plug-ins.

Used by all code that lists or builds tables. Plain functions and values, any thread; plug-ins are other
people's code and loaded once, when `with_plugins` is called.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from xnatfs.tables.pipelines import (
    alps,
    ashs,
    asl,
    bamos,
    braak,
    connectivity,
    donsurf,
    freesurfer,
    fsl,
    lcmodel,
    pet,
    pyment,
    qsmxt,
    signature,
    spm,
    validators,
)
from xnatfs.tables.spec import Table

log = logging.getLogger(__name__)

# the entry points' group: each a Table, or an iterable of Tables, or a callable that returns one of these
PLUGINS = "xnatfs.tables"

LEFT_OUT: dict[str, str] = {
    "basil/aal": "needs the AAL2 atlas image that bx carries with it",
    "teasl/aal": "needs the AAL2 atlas image that bx carries with it",
    "fdg/aging": "needs the mask image that bx carries with it",
    "signature/dickerson": "needs two resources of a session, FREESURFER7 and label files in DICKERSON; a "
    "table reads one",
}

_MODULES = (
    *(freesurfer, ashs, spm, fsl, bamos, alps, asl, pet, qsmxt, donsurf, lcmodel, pyment),
    *(connectivity, braak, signature, validators),
)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def all_tables() -> dict[str, Table]:
    """Key -> built-in table; a pipeline's tables together, in the order in which the pipelines first
    appear.
    """
    tables = [table for module in _MODULES for table in module.TABLES]
    order = {pipeline: at for at, pipeline in enumerate(dict.fromkeys(table.pipeline for table in tables))}
    return {table.key: table for table in sorted(tables, key=lambda table: order[table.pipeline])}


def with_plugins(plugins: Iterable[EntryPoint] | None = None) -> tuple[dict[str, Table], list[str]]:
    """Built-in tables and those of plug-ins, and a sentence about each plug-in that cannot be used. One that
    fails spoils no other.

    Args:
        plugins: the plug-ins' entry points; those of all installed packages by default.
    """
    tables = all_tables()
    diagnostics: list[str] = []
    for point in sorted(
        _installed() if plugins is None else plugins,
        key=lambda point: (point.name, point.value),
    ):
        try:
            offered = _tables_of(point.load())
        except (Exception, SystemExit) as error:
            diagnostics.append(f"The plug-in {point.name} ({point.value}) cannot be loaded: {error}")
            continue
        for table in offered:
            if reason := _refusal(table, tables):
                diagnostics.append(f"The plug-in {point.name} ({point.value}): {reason}")
            else:
                tables[table.key] = table
    for complaint in diagnostics:
        log.warning("%s", complaint)
    return tables, diagnostics


@cache
def _installed() -> tuple[EntryPoint, ...]:
    """The entry points of all installed packages: 20 ms to find, and they do not change while we run."""
    return tuple(entry_points(group=PLUGINS))


def _tables_of(loaded: object) -> list[Table]:
    """What an entry point stands for, as tables."""
    if isinstance(loaded, Table):
        return [loaded]
    if isinstance(loaded, Iterable) and not isinstance(loaded, (str, bytes)):
        tables = list(loaded)
        if stranger := next((item for item in tables if not isinstance(item, Table)), None):
            raise TypeError(f"{type(stranger).__name__} is not a Table")
        return tables
    if isinstance(loaded, Callable):  # type: ignore[arg-type]  # mypy takes it for a form, not a class
        return _tables_of(loaded())  # type: ignore[operator]  # see above
    raise TypeError(
        f"{type(loaded).__name__} is neither a Table, nor several, nor a function that returns them"
    )


def _refusal(table: Table, there: dict[str, Table]) -> str:
    """Why a plug-in's table cannot be taken."""
    if not _WORD.fullmatch(table.pipeline) or not _WORD.fullmatch(table.name):
        return f"{table.key!r} is not a valid table name: letters, digits, and - _ . + within it"
    if table.key in there:
        return f"there is already a table {table.key}"
    return ""
