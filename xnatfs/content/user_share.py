"""How many mounts of one user share a server: those with the same tier count each other, so that each can
take its part of what the user may ask for.

Used by `core`. Each mount has a lease in the tier, renewed every ten seconds. How
old others' leases are tells the store's own clock, against this mount's own lease: no two machines' clocks
are compared. One that was not renewed for half a minute is not counted, so a machine may die at any point;
one that is counted wrongly costs the others a part of their share for so long. The more mounts there are, the
more rarely each of them looks.
Threading: a thread of its own, which alone asks the tier; `mounts` may be read by any.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import uuid
from collections.abc import Callable

from xnatfs.cache.shared_tier import SharedTier
from xnatfs.cache.tier_health import TierHealth

log = logging.getLogger(__name__)

_RENEW_S = 10.0
_DEAD_S = 30.0
_FORGOTTEN_S = 600.0  # after which others remove what is left of a mount
_MOUNTS_A_LOOK = 20  # with so many times as many, each looks so many times as rarely
_LAST_S = 2.0  # when the mount ends


class UserShare:
    """Counts the mounts of one user of one server.

    Args:
        user: names the server and the user on it.
        changed: called with their number, whenever that is another one; before the first time it is 1.

    Attributes:
        mounts: how many there are, with this one.
    """

    def __init__(self, tier: SharedTier, user: str, changed: Callable[[int], None]) -> None:
        self._tier = tier
        self._changed = changed
        self._health = TierHealth(tier.name)
        self._begin = f"mount-{hashlib.sha256(user.encode()).hexdigest()[:32]}-"
        self._name = self._begin + uuid.uuid4().hex
        self._over = threading.Event()
        self.mounts = 1
        self._thread = threading.Thread(target=self._run, name="share", daemon=True)
        self._thread.start()

    def look(self) -> int:
        """Renew this mount's lease, and count. Asks the store.

        Raises:
            Exception: whatever the store raises.
        """
        self._renew()
        ages = self._tier.ages(self._begin)
        for name, age in ages.items():
            if age > _FORGOTTEN_S:
                self._tier.release(name, self._tier.holder(name))
        return max(1, sum(age < _DEAD_S for age in ages.values()))

    def close(self) -> None:
        """Take the lease back."""
        self._over.set()
        self._thread.join(_LAST_S)

    def _renew(self) -> None:
        try:
            self._tier.renew(self._name, self._name)
        except FileNotFoundError:  # the first time; or others took this mount for dead
            self._tier.claim(self._name, self._name)

    def _run(self) -> None:
        left = 0  # renewals until the next look
        while True:
            if left <= 0:
                self._count(self._health.ask(self.look, self.mounts))
                left = max(1, self.mounts // _MOUNTS_A_LOOK)
            else:
                self._health.ask(self._renew, None)
            left -= 1
            if self._over.wait(_RENEW_S):
                break
        self._health.ask(lambda: self._tier.release(self._name, self._name), None)

    def _count(self, mounts: int) -> None:
        if mounts != self.mounts:
            log.info("%d mounts of this user share the server", mounts)
            self.mounts = mounts
            self._changed(mounts)
