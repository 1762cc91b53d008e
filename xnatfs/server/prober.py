"""The thread that probes a server: whether it is there again, or there at all.

Used by `http_transport`; `breaker` decides when a probe is due.
Threading: `start` and `close` may be called by any thread; `probe`, `back` and `look` are called on the
prober's own, without a lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from xnatfs.errors import Cause, Failure
from xnatfs.server.breaker import Breaker

log = logging.getLogger(__name__)


class Prober:
    """The thread that looks after a breaker: it runs while something waits or is suspected, and ends after a
    while without work.

    Args:
        probe: asks the server something small; returns if it answered, raises `Failure` if it did not, with a
            few words on why as its detail.
        back: called when a probe was the first to have an answer again.
        look: called each second while it runs: for a suspended machine.
    """

    _LINGERS = 20.0  # seconds
    _SLICE = 1.0  # between looks for a suspended machine

    def __init__(
        self,
        breaker: Breaker,
        probe: Callable[[], object],
        back: Callable[[], object] = lambda: None,
        look: Callable[[], object] = lambda: None,
    ) -> None:
        self._breaker = breaker
        self._probe = probe
        self._back = back
        self._look = look
        self._running = False
        self._closed = False

    def start(self) -> None:
        """See to it that it runs; called before each request."""
        if self._running or self._closed:
            return
        with self._breaker.condition:
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._run, name="prober", daemon=True).start()

    def close(self) -> None:
        """No more probes."""
        with self._breaker.condition:
            self._closed = True
            self._breaker.condition.notify_all()

    def _run(self) -> None:
        breaker = self._breaker
        idle = 0.0
        while True:
            due = breaker.due()
            if due == 0.0 and not self._closed:
                self._ask()
                idle = 0.0
                continue
            with breaker.condition:
                # Looked at again with the lock: what became due in between has notified nobody.
                if self._closed or (due is None and idle >= self._LINGERS and breaker.due() is None):
                    self._running = False
                    return
                breaker.condition.wait(self._SLICE if due is None else min(due, self._SLICE))
            idle = idle + self._SLICE if due is None else 0.0
            self._look()

    def _ask(self) -> None:
        self._breaker.probe_begins()
        try:
            self._probe()
        except Failure as failure:
            self._breaker.probe_failed(failure.cause, failure.detail)
        except Exception as error:  # a probe that cannot even be sent tells as much as one without an answer
            log.exception("the probe broke")
            self._breaker.probe_failed(Cause.UNREACHABLE, type(error).__name__)
        else:
            away = self._breaker.away() is not None
            self._breaker.answered()
            if away:
                self._back()
