"""Where a table's files lie inside their resources, learnt from the sessions that were read first.

Used by `resource_reader` (which tries these paths before it lists a resource) and by `scheduling` (which
collects many sessions at once as soon as they are known). A path is kept with the names of subject and
session taken out, so that it serves all of them.
Threading: any thread; one lock around the paths and scores. `on_learnt` is called without it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from xnatfs.server.records import FileRecord
from xnatfs.tables.engine.file_patterns import choose, fill, guessable, matches_best, shape_of
from xnatfs.tables.spec import Input, SessionInfo

_MAX_PATHS = 4  # for each role
# Once guesses have failed in this many more sessions than they were right in, a role is no longer guessed.
_MAX_FAILED_GUESSES = 3


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

    @property
    def known(self) -> bool:
        """Whether a session has shown where the files lie."""
        required = [input.role for input in self._guessable if input.required]
        if required:
            return all(role in self._shapes for role in required)
        return not self._guessable or any(input.role in self._shapes for input in self._guessable)

    def candidates(self, input: Input, info: SessionInfo) -> list[str]:
        """The paths to try for a session, best first; none if guessing has failed too often."""
        with self._lock:
            hopeless = self._scores[input.role] < -_MAX_FAILED_GUESSES
            paths = [fill(shape, info) for shape in self._shapes.get(input.role, ())]
        return [] if hopeless else [path for path in paths if matches_best(input, path, info)]

    def score(self, role: str, *, right: bool) -> None:
        """A session in which one of the paths was right, or none was."""
        with self._lock:
            self._scores[role] += 1 if right else -1

    def learn(self, places: Iterable[tuple[str, str]], info: SessionInfo) -> None:
        """Where files of a session were read: role and path of each."""
        with self._lock:
            for role, path in places:
                known = self._shapes.setdefault(role, [])
                shape = shape_of(path, info)
                if shape not in known and len(known) < _MAX_PATHS:
                    known.append(shape)

    def learn_from(self, files: list[FileRecord], info: SessionInfo) -> None:
        """Where files of a session lie, from a listing: the other sessions need not wait until this one's are
        fetched.
        """
        places = [
            (input.role, file.path) for input in self._guessable for file in choose(input, files, info, [])
        ]
        self.learn(places, info)
        self.on_learnt()
