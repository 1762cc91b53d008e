"""Which forms of listing a server refuses, remembered for a while.

Used by `listing_requests`, `resources` and what is above them. A refusal is not for ever: a table of the
database that was locked for a minute looks the same (xnat-rest.md 13), and a server may be updated.
Threading: any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)

REFUSED_FOR_S = 3600.0  # then the form is tried again


class Capabilities:
    """The forms that were refused. Whoever calls `refuse` has seen a simpler form about the same objects
    succeed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: dict[str, float] = {}  # form -> epoch seconds

    def may(self, form: str) -> bool:
        """Whether the form is worth trying."""
        at = self._refused.get(form)
        return at is None or not 0 <= time.time() - at < REFUSED_FOR_S

    def refuse(self, form: str) -> None:
        """Remember that the server does not take this form."""
        if self.may(form):
            log.info("this server does not accept the form %r", form)
            with self._lock:
                self._refused = {**self._refused, form: time.time()}

    def recall(self, refused: Mapping[str, float]) -> None:
        """Take over what an earlier mount saw: form -> epoch seconds of the refusal."""
        with self._lock:
            self._refused = {**refused, **self._refused}

    @property
    def refused_at(self) -> dict[str, float]:
        """The forms that are not tried now, with the time of the refusal in epoch seconds."""
        return {form: at for form, at in sorted(self._refused.items()) if not self.may(form)}

    @property
    def refused(self) -> list[str]:
        """For `status`."""
        return list(self.refused_at)
