"""`tables/PROJECT/README.txt`: the tables of a project and the state of each, from what is known here.

Used by `table_files`. Looking at it builds no table and asks the server for nothing that listing the folder
does not ask for: what was built is on the disk, what is being built in memory.
Threading: any thread; no state.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xnatfs.activity import clock_time, so_far
from xnatfs.server.records import ProjectRecord
from xnatfs.tables.engine.discover import PresentTables
from xnatfs.tables.engine.from_listings import LISTED
from xnatfs.tables.engine.materialize import TableFiles
from xnatfs.tables.engine.scheduling import Status
from xnatfs.text import printable_lines
from xnatfs.tree.generated import GeneratedFile
from xnatfs.tree.node import EPOCH, inode_of

_TEXT = """\
Measurement tables of project {project}, one folder per pipeline. A table is built when one of its files is
first opened; later only what changed is asked for. Before, its size is not known: `ls -l` shows 16 TiB.

NAME.csv .xlsx .parquet     one row per measurement; numbers as the pipeline wrote them
NAME_wide.*                 one row per session
NAME.problems.csv           sessions missing or incomplete in the table, and why
subjects.* sessions.*       who is in the study: sex, ages, group, scanners, custom variables
assessors/TYPE.*            assessors and non-imaging experiments with their own fields
sessions/SESSION/...        the same tables of one session

getfattr -d FILE shows how current a table is and how many sessions are in it.
xnatfs status, or .xnatfs/progress.txt at the top of the mount, shows how far a build is.
{still}
{states}
{note}"""
_STILL = "\nNot every session has been checked yet: more tables may appear here in a moment.\n"
_HEADINGS = ("table", "built", "sessions", "without", "failed", "problems", "rows")
_COUNTS = ("sessions", "missing", "failed", "problems", "rows")  # in a manifest; texts
_NOTE = """\

sessions: that are in the table; without: that have no such result; failed: whose result cannot be read;
problems: what is missing or odd in single sessions, a line each in NAME.problems.csv.
"""


@dataclass(frozen=True)
class TableReadme:
    """What the text is made from.

    Attributes:
        running: the builds under way.
        present: the project's tables.
    """

    outputs: TableFiles
    running: Mapping[int, Status]
    project: ProjectRecord
    present: PresentTables

    def file(self) -> GeneratedFile:
        """The file. Its text is made at every look: a build changes it."""
        inode = inode_of("rendered", f"tables/{self.project.id}/README.txt")
        return GeneratedFile(self._text, self._text, self._mtime, inode)

    @property
    def _keys(self) -> list[str]:
        return [*self.present.keys, *LISTED]

    def _text(self) -> bytes:
        project = self.project.id
        running = list(self.running.values())
        building = {one.table: one for one in running if one.project == project and one.whole}
        states = [_state(self.outputs, project, key, building.get(key)) for key in self._keys]
        text = _TEXT.format(
            project=project,
            still="" if self.present.whole else _STILL,
            states="\n".join(_aligned([_HEADINGS, *states])),
            note=_NOTE if any(len(row) > 2 for row in states) else "",
        )
        return printable_lines(text).encode("utf-8", "backslashreplace")

    def _mtime(self) -> float:
        """When a table was last built: `rsync` copies the text again after that, and only then."""
        manifests = [self.outputs.manifest(self.project.id, key) for key in self._keys]
        built = [_built(manifest.about) for manifest in manifests if manifest is not None]
        return max([self.project.inserted or EPOCH, *built])


def _state(outputs: TableFiles, project: str, key: str, status: Status | None) -> tuple[str, ...]:
    if status is not None:
        done = so_far(status.done, status.total)
        return key, f"being built: {done} sessions, since {clock_time(status.started)}"
    manifest = outputs.manifest(project, key)
    if manifest is None:
        return key, "not yet"
    built = time.strftime("%Y-%m-%d %H:%M", time.localtime(_built(manifest.about)))
    counts = tuple(manifest.about.get(name, "-") for name in _COUNTS)
    if outputs.is_outdated(project, key):
        return key, built, *counts, "changed on the server since; renewed when it is opened"
    return key, built, *counts


def _built(about: Mapping[str, str]) -> float:
    try:
        return float(calendar.timegm(time.strptime(about.get("built_at", ""), "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return 0.0


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first two columns to the left, counts to the right, and what follows them as it is."""
    full = [row for row in rows if len(row) > 2]
    name = max(len(row[0]) for row in rows)
    built = max(len(row[1]) for row in full)
    counts = [max(len(row[at]) for row in full) for at in range(2, len(_HEADINGS))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(name), row[1].ljust(built)]
        cells += [text.rjust(width) for text, width in zip(row[2:], counts, strict=False)]
        lines.append("  ".join([*cells, *row[len(_HEADINGS) :]]).rstrip())
    return lines
