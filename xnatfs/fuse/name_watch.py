"""Names and attributes that the kernel keeps for an hour, while the server is watched in its place.

Used by `lowlevel`. The kernel answers `stat` from what it keeps and asks nobody, so nothing would be noticed
of the server. So below a folder whose names are kept so long (a top: a project) this looks at the server as a
program would that reads the folder, every half of `Limits.ttl`. Whatever changed, there or anywhere
(`version`), makes the kernel ask for every name it has once more: its epoch is raised (FUSE_NOTIFY_INC_EPOCH,
Linux 6.16), one message for all names, which blocks nobody and takes no folder away from under a program that
is in it. On an older kernel no name is kept so long.

- An answer that was on its way while something changed is not kept long. What the kernel had been given but
  had not entered yet is caught by telling it some seconds after the change, and once more later: all that it
  has below a changed epoch it drops, with its copies of listings, so it is not told more often.
- Only where all is steady (`top`): where a listing is in doubt, could not be had, or has no stamp, looking at
  the project would not find its changes.
- At most eight projects are watched. Once no request came for some minutes, the names are dropped and nobody
  looks any more: an idle mount sends nothing.

Threading: `run` and `run_looks` have a thread each; the rest may be called from any. No lock is held over a
look.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

HOLDS = 3600.0  # seconds for which names are kept
_IDLE = 300.0  # seconds without a request, after which nobody looks any more
_AT_MOST = 8  # tops: one to four requests each within `ttl`
_GRACE = 2.0  # seconds from a change to telling the kernel: what it was given before has been entered by then
_AGAIN = 30.0  # seconds after which it is told once more, if it was just being given names
_LATELY = 5.0  # seconds
_MOMENT = 0.5  # seconds for which a look at one folder does for all of a top
_TICK = 1.0  # seconds between two looks at what changed here


@dataclass
class _Moments:
    """When the kernel last asked for anything and was last given names that are kept long; when it is to be
    told of a change, and once more.
    """

    asked: float
    given: float = float("-inf")
    due: float | None = None
    again: float | None = None


@dataclass
class _Looks:
    """When the watch, and when a program, last looked at something below a top."""

    own: float
    program: float = float("-inf")


class NameWatch:
    """What the kernel may keep long in one mount.

    Args:
        top: the folder to look at for everything in this folder; "" if its names are not to be kept long.
        version: a number that changes with whatever the mount knows of the server.
        look: reads a folder as a program would; raises what keeps it from being read.
        raise_epoch: makes the kernel ask again for each listing, and for each name; False if it cannot for
            names.
        ttl: seconds for which a listing is not asked for again.
        idle: seconds without a request after which nobody looks any more.
        clock: seconds.

    Attributes:
        epoch: rises whenever the kernel is made to ask again.
        top: see above.
    """

    def __init__(
        self,
        top: Callable[[str], str],
        version: Callable[[], int],
        look: Callable[[str], object],
        raise_epoch: Callable[[], bool],
        ttl: float,
        idle: float = _IDLE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.epoch = 0
        self.top = top
        self.version = version
        self._look = look
        self._raise_epoch = raise_epoch
        self._times = ttl / 2, idle
        self._clock = clock
        self._lock = threading.Lock()
        self._watched: dict[str, _Looks] = {}  # by top
        self._seen = version()
        self._moments = _Moments(clock())
        self._able = False

    def asked(self) -> None:
        """The kernel asks for something: the mount is in use."""
        self._moments.asked = self._clock()

    def holds(self, folder: str, since: int) -> bool:
        """Whether the names of a folder that were looked up just now may be kept long.

        Args:
            since: `version()` from before they were looked up.
        """
        if not self._able:
            return False
        top = self.top(folder)
        if not top:
            return False
        with self._lock:
            if top not in self._watched:
                if len(self._watched) >= _AT_MOST:
                    return False
                self._watched[top] = _Looks(self._clock())
        if not self.version() == since == self._seen:
            return False
        self._moments.given = self._clock()
        return True

    def looked(self, folder: str) -> None:
        """A program looked at a folder just now, with whatever that asks the server."""
        looks = self._watched.get(self.top(folder))
        if looks is not None:
            looks.program = self._clock()

    def steady(self, top: str) -> bool:
        """Whether what the kernel keeps long below a top is as a look at it would find it: nothing changed
        that the kernel was not told, and it is but a moment since a program looked. (The watch itself looks
        less often, and what opens a file looks too: it must not find before a listing that a file is gone.)
        """
        looks = self._watched.get(top)
        if looks is None or self._moments.due is not None or self.version() != self._seen:
            return False
        return self._clock() - looks.program < _MOMENT

    def begin(self) -> None:
        """The mount begins: find out whether the kernel can be told that names changed, before it has any:
        with a name that is not good any more it drops all that is below it.
        """
        self._able = self._raise_epoch()
        if not self._able:
            log.info("this kernel cannot be told that names changed, and keeps none for long")

    def drop(self) -> None:
        """Make the kernel ask for each name again, now."""
        now = self._clock()
        self._seen = self.version()
        self._moments.due = None
        if now - self._moments.given < _LATELY:
            self._moments.again = now + _AGAIN
        self._raise()

    def _raise(self) -> None:
        self.epoch += 1
        self._raise_epoch()

    def run(self, ending: threading.Event) -> None:
        """Tell the kernel of what changed, until the mount ends."""
        while not ending.wait(_TICK):
            self.tick()

    def run_looks(self, ending: threading.Event) -> None:
        """Look at what is watched until the mount ends; apart from `run`, since the server may be silent."""
        while not ending.wait(_TICK):
            self.look()

    def tick(self) -> None:
        """Tell the kernel what changed since it was told last."""
        now = self._clock()
        if not self._watched and self._moments.again is None:
            self._seen = self.version()
        elif self._watched and now - self._moments.asked > self._times[1]:
            with self._lock:
                self._watched.clear()
            self.drop()
        elif self.version() != self._seen:
            if self._moments.due is None:
                self._moments.due = now + _GRACE
            elif now >= self._moments.due:
                self.drop()
        elif self._moments.again is not None and now >= self._moments.again:
            self._moments.again = None
            self._raise()

    def look(self) -> None:
        """Look at what is due."""
        for top, looks in list(self._watched.items()):
            if self._clock() - looks.own < self._times[0]:
                continue
            seen = self._clock()
            try:
                self._look(top)
            except OSError as error:
                log.info("%s is not watched any more: %s", top, error)
                with self._lock:
                    self._watched.pop(top, None)
                self.drop()
                continue
            looks.own = seen
