"""Where a table's files lie inside their resources, learnt from the sessions that were read first.

Used by `resource_reader` (which tries these paths before it lists a resource) and by `scheduling` (which
collects many sessions at once as soon as they are known). A path is kept with the names of subject and
session taken out, so that it serves all of them.

A guess must not differ from the rule, by which the first file of the catalogue that matches is read and the
others are remarked on: what a table reads would depend on what was read before. So a path is tried only in
resources that count as many files as one whose listing shows that it is the only match; in a second run or
a copy beside the first the server counts more. A count says little of a handful of files: those are listed.
Threading: any thread; one lock around the paths and scores. `on_learnt` is called without it.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from xnatfs.server.records import FileRecord
from xnatfs.tables.engine.file_patterns import choose, fill, guessable, matches_best, shape_of
from xnatfs.tables.spec import Input, SessionInfo

_MAX_PATHS = 4  # for each role
# Once guesses have failed in this many more sessions than they were right in, a role is no longer guessed.
_MAX_FAILED_GUESSES = 3
# Of fewer files than these one may be there twice and another lack; their listing costs some kilobytes.
_FEWEST_FILES = 32


class KnownPaths:
    """The known paths of one table in one project.

    Args:
        inputs: the files of the table.

    Attributes:
        on_learnt: called when `known` may have become true.
    """

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.on_learnt: Callable[[], None] = lambda: None
        self._guessable = [input for input in inputs if guessable(input)]
        self._lock = threading.Lock()
        self._shapes: dict[str, list[str]] = {}  # by role, the first known first
        # By role: sessions in which a known path was right, less those in which none was.
        self._scores: Counter[str] = Counter()
        # By role: counts of files of resources in which a path was the only one to match.
        self._counts: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)

    @property
    def known(self) -> bool:
        """Whether a session has shown where the files lie."""
        required = [input.role for input in self._guessable if input.required]
        if required:
            return all(role in self._shapes for role in required)
        return not self._guessable or any(input.role in self._shapes for input in self._guessable)

    def candidates(self, input: Input, info: SessionInfo, count: int | None) -> list[str]:
        """The paths to try for a session, best first; none if guessing has failed too often, or if another
        file may match as well.

        Args:
            count: the files of its resource as the server counts them; None where it does not tell.
        """
        if count is None or count < _FEWEST_FILES:
            return []
        with self._lock:
            hopeless = self._scores[input.role] < -_MAX_FAILED_GUESSES
            alike = self._counts[input.role]
            shapes = [shape for shape in self._shapes.get(input.role, ()) if (shape, count) in alike]
            paths = [fill(shape, info) for shape in shapes]
        return [] if hopeless else [path for path in paths if matches_best(input, path, info)]

    def score(self, role: str, *, right: bool) -> None:
        """A session in which one of the paths was right, or none was."""
        with self._lock:
            self._scores[role] += 1 if right else -1

    def learn(self, places: Iterable[tuple[str, str]], info: SessionInfo, count: int | None = None) -> None:
        """Where files of a session were read: role and path of each.

        Args:
            count: the files of the resource, if each of these was the only one to match.
        """
        with self._lock:
            for role, path in places:
                known = self._shapes.setdefault(role, [])
                shape = shape_of(path, info)
                if shape not in known and len(known) < _MAX_PATHS:
                    known.append(shape)
                if count is not None:
                    self._counts[role].add((shape, count))

    def learn_from(self, files: list[FileRecord], info: SessionInfo, count: int | None) -> None:
        """Where files of a session lie, from a listing: the other sessions need not wait until this one's are
        fetched.

        Args:
            count: the files of the resource as the server counts them; it says nothing of another listing.
        """
        agreed = count if count == len(files) else None
        for input in self._guessable:
            problems: list[str] = []
            places = [(input.role, file.path) for file in choose(input, files, info, problems)]
            self.learn(places, info, None if problems else agreed)
        self.on_learnt()
