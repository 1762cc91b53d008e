"""The programs of docs/tools.md, in its order. A new one is a few lines in one of these modules."""

from __future__ import annotations

from tooling.catalogue.copying import COPYING
from tooling.catalogue.imaging import IMAGING
from tooling.catalogue.looking import LOOKING
from tooling.catalogue.reading import READING
from tooling.catalogue.system import SYSTEM
from tooling.catalogue.tables import TABLES
from tooling.program import Program

CATALOGUE: dict[str, list[Program]] = {
    "Copies, archives and backups": COPYING,
    "Looking around": LOOKING,
    "Reading files": READING,
    "Images": IMAGING,
    "Tables": TABLES,
    "The system": SYSTEM,
}
