"""What machines that share a tier see of each other's downloads: a lease for each, renewed while bytes come.

Used by `content.shared_content`. A lease is a hint: others wait as long as it changes. One that does not
change is nobody's any more, and whoever waits removes it.
Threading: any thread; methods that say so ask the tier's store, the others only note something. One lock,
never held over I/O.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable

from xnatfs.cache.shared_tier import SharedTier
from xnatfs.cache.tier_health import TierHealth

log = logging.getLogger(__name__)

_RENEW_S = 1.0
_DEAD_FOR_S = 300.0  # so long all leases of a process that was found dead are nobody's
_SPREAD_S = 0.5


class Lease:
    """What others see of a download of this process.

    Args:
        holder: whose it is.
        ended: called once nothing more comes and all that came is in the tier.
    """

    def __init__(self, name: str, holder: str = "", ended: Callable[[Lease], None] = lambda _: None) -> None:
        self.name = name
        self.holder = holder
        self._ended = ended
        self._lock = threading.Lock()
        self._moved = True
        self._puts = 0
        self._closed = False

    def moved(self) -> None:
        """Something came."""
        self._moved = True

    def puts(self, more: int) -> None:
        """So many more files of it are on their way into the tier."""
        with self._lock:
            self._puts += more
            over = self._closed and not self._puts
        if over:
            self._ended(self)

    def close(self) -> None:
        """Nothing more comes."""
        with self._lock:
            before, self._closed = self._closed, True
            over = not before and not self._puts
        if over:
            self._ended(self)

    def due(self) -> bool:
        """Whether it moved since it was asked last."""
        moved, self._moved = self._moved, False
        return moved or self._puts > 0


class Leases:
    """The leases of this process.

    Args:
        submit: does something soon, in a worker.
    """

    def __init__(
        self, tier: SharedTier, health: TierHealth, submit: Callable[[Callable[[], None]], None]
    ) -> None:
        self._tier = tier
        self._health = health
        self._submit = submit
        self._lock = threading.Lock()
        self._process = uuid.uuid4().hex
        self._held: dict[str, Lease] = {}
        self._dead: dict[str, float] = {}  # processes, and when they were found to be
        self._over = threading.Event()
        self._renewer: threading.Thread | None = None

    def others(self, name: str) -> str:
        """The state of a lease of another process, "" if there is none. Asks the store."""
        with self._lock:
            if name in self._held:
                return ""
        return self._tier.lease(name)

    def take(self, name: str) -> Lease | None:
        """A lease; None if another process has it, or this one. Asks the store."""
        lease = Lease(name, f"{self._process}.{uuid.uuid4().hex}", self._let_go)
        if not self._tier.claim(name, lease.holder):
            return None
        with self._lock:
            self._held[name] = lease
            if self._renewer is None:
                self._renewer = threading.Thread(target=self._renew, name="leases", daemon=True)
                self._renewer.start()
        return lease

    def bury(self, name: str, state: str) -> None:
        """Remove the lease of a process that died, if nobody else has meanwhile. Asks the store."""
        log.info("a lease in the shared cache was left by a process that died, or hangs")
        process = self._tier.holder(name).partition(".")[0]
        time.sleep(random.uniform(0, _SPREAD_S))  # all who wait find it out at the same moment
        if self._tier.lease(name) == state:
            self._tier.bury(name, state)
            with self._lock:
                self._dead[process] = time.monotonic()

    def is_dead(self, name: str) -> bool:
        """Whether its holder was found to be dead by another lease, not long ago. Asks the store."""
        with self._lock:
            if not self._dead:
                return False
        process = self._tier.holder(name).partition(".")[0]
        with self._lock:
            return time.monotonic() - self._dead.get(process, -_DEAD_FOR_S) < _DEAD_FOR_S

    def close(self) -> None:
        """Take all of them back. Asks the store."""
        self._over.set()
        with self._lock:
            left = list(self._held.values())
        for lease in left:
            self._release(lease)

    def _let_go(self, lease: Lease) -> None:
        self._submit(lambda: self._release(lease))

    def _release(self, lease: Lease) -> None:
        with self._lock:
            if self._held.pop(lease.name, None) is None:
                return
        self._health.ask(lambda: self._tier.release(lease.name, lease.holder), None)

    def _renew(self) -> None:
        while not self._over.wait(_RENEW_S):
            with self._lock:
                moving = [one for one in self._held.values() if one.due()]
            for lease in moving:
                try:
                    self._tier.renew(lease.name, lease.holder)
                except Exception as error:  # each store has its own; somebody took it for dead
                    log.info("a lease in the shared cache could not be renewed: %s", error)
