"""Whether a shared tier works: one that failed is left alone for a while.

Used by `content.shared_content` and `shared_listings`, each with its own.
Threading: any thread; attributes are replaced as a whole.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from xnatfs.errors import Failure

log = logging.getLogger(__name__)
T = TypeVar("T")

_WARM_S = 10.0
_ASIDE_S = 60.0  # a tier that failed


class TierHealth:
    """Asks a tier, and leaves it alone for a while after it failed.

    Attributes:
        problem: why it failed, until it works again.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._aside_until = 0.0
        self._warm_until = 0.0
        self.problem = ""

    @property
    def usable(self) -> bool:
        """Whether it did not fail a moment ago."""
        return time.monotonic() >= self._aside_until

    @property
    def is_warm(self) -> bool:
        """Whether it had a resource a moment ago, so that others are expected to be there."""
        return time.monotonic() < self._warm_until

    def had_much(self) -> None:
        """It had a resource."""
        self._warm_until = time.monotonic() + _WARM_S

    def ask(self, work: Callable[[], T], otherwise: T) -> T:
        """What comes of asking it; something else while it fails.

        Raises:
            Failure: the work's own.
        """
        if not self.usable:
            return otherwise
        try:
            found = work()
        except Failure:
            raise
        except Exception as error:  # each store has its own
            self.failed(error)
            return otherwise
        self.problem = ""
        return found

    def failed(self, error: Exception) -> None:
        """It failed."""
        self.problem = f"{type(error).__name__}: {error}"[:300]
        self._aside_until = time.monotonic() + _ASIDE_S
        log.warning("the shared cache %s is left alone for a minute: %s", self._name, self.problem)
