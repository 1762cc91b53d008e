"""The cells of the matrix: a form, another answer to it, when, and in which state of the mount; the verdict.

A cell is a story. Fresh: a mount that knows nothing walks while the server answers otherwise; the server
heals; what the mount shows within its TTL, and what another mount of the same cache shows, has to be the
truth. Known: the cache of a healthy walk is there; a mount walks while the server answers otherwise, then
again when all it knows has aged, then healed.

The verdicts allowed: the same tree; or an error at or above each thing that is missing; or, where everything
is there under another name or with another size, an oddity. Nothing twice, nothing invented. No address asked
for without an end, no storm of logins.
Threading: one cell at a time in a process.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.dialects.forms import form_of
from tests.dialects.mutations import Mutation, Row, answer_mutations, column_mutations, row_mutations, rows_in
from tests.dialects.world import LIMITS, Asked, Reply, Tree, Wire, mounted, tree_of

MOST_TIMES = 10  # that one address may be asked for in a walk
MOST_LOGINS = 3
DAY_S = 86_400.0
STATES = ("fresh", "known")
SCOPES = ("always", "once", "one object")


@dataclass(frozen=True)
class Cell:
    """One story."""

    profile: str
    form: str
    mutation: Mutation
    scope: str
    state: str

    def __str__(self) -> str:
        return f"{self.profile} / {self.form} / {self.mutation.name} / {self.scope} / {self.state}"


class Outcome(NamedTuple):
    """What came of a cell: the verdict, and all that is wrong in it."""

    verdict: str
    wrong: list[str]


VERDICTS = ("the same tree", "an error", "an oddity", "not met", "wrong")


@dataclass
class Bench:
    """What the cells of one profile share.

    Attributes:
        truth: the tree of a healthy server.
        known: a cache that a healthy walk left.
        rows: of each form that was sent, all its rows.
        folder: for the caches of single cells.
    """

    profile: str
    wire: Wire
    truth: Tree
    known: Path
    rows: dict[str, list[Row]]
    folder: Path

    @classmethod
    def of(cls, profile: str, wire: Wire, folder: Path) -> Bench:
        """After a healthy walk, and one of a later mount."""
        rows: dict[str, list[Row]] = {}
        lock = threading.Lock()

        def note(asked: Asked, reply: Reply) -> Reply:
            form = form_of(asked)
            if form is not None:
                with lock:
                    rows.setdefault(form, []).extend(rows_in(reply) or [])
            return reply

        wire.change = note
        known = folder / "known"
        with mounted(wire, known) as core:
            truth = tree_of(core)
            core.listing_service.clock.advance(DAY_S)
            assert tree_of(core) == truth
        assert not truth.errors
        wire.change = None
        return cls(profile, wire, truth, known, rows, folder)

    def cells(self) -> Iterator[Cell]:
        """All of them, for the forms that were sent."""
        for form, rows in self.rows.items():
            for mutation in (*answer_mutations(), *row_mutations()):
                for scope in SCOPES:
                    for state in STATES:
                        yield Cell(self.profile, form, mutation, scope, state)
            columns = list(dict.fromkeys(column for row in rows for column in row))
            for column in columns:
                for mutation in column_mutations(column, rows):
                    for state in STATES:
                        yield Cell(self.profile, form, mutation, "always", state)

    # --- one cell -------------------------------------------------------------------------------------------

    def run(self, cell: Cell) -> Outcome:
        """Play a cell."""
        try:
            return self._run(cell)
        except Exception as error:
            self.wire.change = None
            return Outcome("wrong", [f"it broke: {error!r}"])

    def _run(self, cell: Cell) -> Outcome:
        place = self.folder / "cell"
        shutil.rmtree(place, ignore_errors=True)
        if cell.state == "known":
            shutil.copytree(self.known, place)
        wrong: list[str] = []
        verdict = "the same tree"
        with mounted(self.wire, place) as core:
            self.wire.clear()
            self.wire.change = change = _Struck(cell)
            for turn in range(1 if cell.state == "fresh" else 2):
                if turn:
                    core.listing_service.clock.advance(DAY_S)
                    self.wire.clear()
                    change.again()
                seen = tree_of(core)
                wrong += self._verdict(seen, core.diagnostics.oddities(), f"walk {turn + 1}")
                if seen != self.truth:
                    verdict = "an error" if seen.errors else "an oddity"
                wrong += self._storms()
            self.wire.change = None
            core.listing_service.clock.advance(LIMITS.ttl + 1)
            wrong += self._healed(tree_of(core), "healed")
        with mounted(self.wire, place) as core:
            wrong += self._healed(tree_of(core), "another mount")
        if not change.struck:
            return Outcome("not met", [])
        return Outcome("wrong" if wrong else verdict, wrong)

    def _verdict(self, seen: Tree, oddities: list[str], when: str) -> list[str]:
        truth, wrong = self.truth, []
        for identity, paths in truth.files.items():
            there = seen.files.get(identity, [])
            for path in paths:
                if path not in there and not _excused(path, seen, truth):
                    project = "/".join(path.split("/")[:3])
                    elsewhere = [one for one in there if one.startswith(project) and one not in paths]
                    if not elsewhere:
                        wrong.append(f"{when}: lost {path}")
                    elif not oddities:
                        wrong.append(f"{when}: {path} is at {elsewhere[0]}, and nothing is said")
            if len(there) > len(paths):
                wrong.append(f"{when}: doubled {sorted(set(there) - set(paths))}")
            if there and seen.sizes[identity] != truth.sizes[identity] and not oddities:
                wrong.append(f"{when}: {there[0]} has {seen.sizes[identity]} bytes, and nothing is said")
        wrong += [f"{when}: invented {seen.files[one]}" for one in seen.files.keys() - truth.files.keys()]
        if not oddities:
            lost = [one for one in sorted(truth.folders - seen.folders) if not _excused(one, seen, truth)]
            more = sorted(seen.folders - truth.folders)
            wrong += [f"{when}: folders {lost} are missing, and nothing is said"] * bool(lost)
            wrong += [f"{when}: folders {more} are new, and nothing is said"] * bool(more)
        return wrong

    def _healed(self, seen: Tree, when: str) -> list[str]:
        if seen == self.truth:
            return []
        found = self._verdict(seen, [], when) + [
            f"{when}: error {number} at {path}" for path, number in seen.errors.items()
        ]
        return found or [f"{when}: another order"]

    def _storms(self) -> list[str]:
        often = [(count, one) for one, count in self.wire.asked.items() if count > MOST_TIMES]
        wrong = [f"{one} was asked for {count} times" for count, one in often]
        if self.wire.logins > MOST_LOGINS:
            wrong.append(f"{self.wire.logins} logins")
        return wrong


class _Struck:
    """Applies a cell's mutation where its form and scope say."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._lock = threading.Lock()
        self._left = 1
        self._path = ""
        self.struck = 0

    def again(self) -> None:
        """Another walk."""
        self._left = 1

    def __call__(self, asked: Asked, reply: Reply) -> Reply:
        if form_of(asked) != self._cell.form:
            return reply
        changed = self._cell.mutation.change(asked, reply)
        if changed == reply:
            return reply
        with self._lock:
            if self._cell.scope == "once":
                if not self._left:
                    return reply
                self._left = 0
            elif self._cell.scope == "one object":
                self._path = self._path or asked.path
                if asked.path != self._path:
                    return reply
            self.struck += 1
        return changed


def _excused(path: str, seen: Tree, truth: Tree) -> bool:
    """Whether something at or above a path is an error, or beside it under a name that is not right."""
    parts = path.split("/")
    above = {"/".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return any(wrong in above or _misnamed(wrong, truth).rpartition("/")[0] in above for wrong in seen.errors)


def _misnamed(path: str, truth: Tree) -> str:
    """The uppermost part of a path that is not in the truth."""
    parts = path.split("/")
    tops = ("/".join(parts[:length]) for length in range(2, len(parts) + 1))
    return next((top for top in tops if top not in truth.folders), "")
