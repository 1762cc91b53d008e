"""Whether a request still moves, and the grip by which it is ended.

Used by `content.transfer` and, for each of its streams, by `content.ranged`.
Threading: one worker notes what arrives; any thread may look.
"""

from __future__ import annotations

import time

from xnatfs.server.cancel import CancelScope

# A stream that sent nothing for so long, or never anything, is ended when its last reader goes.
SILENT_S = 0.5


class StreamActivity:
    """One answer on its way, from its place in the queue to its last piece."""

    def __init__(self) -> None:
        self.scope = CancelScope()
        self.pieces = 0  # that arrived
        # When the server was asked, or last sent anything; None in the queue.
        self._heard: float | None = None

    def asked(self) -> float:
        """The request is about to be sent; returns the time."""
        self._heard = now = time.monotonic()
        return now

    def received(self) -> None:
        """A piece arrived."""
        self._heard = time.monotonic()
        self.pieces += 1

    @property
    def silent(self) -> bool:
        """Whether the server was asked and sends nothing."""
        return self._heard is not None and (not self.pieces or time.monotonic() - self._heard > SILENT_S)
