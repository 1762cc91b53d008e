"""How long to wait for a listing: not at all once the server is known to be away, and not long where there is
an older one to show.

Used by everything in `listing`, through its environment, and by `content.revalidation`: what was listed is
looked at on every `ls` and renewed when it has aged, and a server that says nothing must not make each of
those wait.
Threading: any thread; no state.
"""

from __future__ import annotations

from collections.abc import Callable

from xnatfs.errors import Cause, Failure
from xnatfs.server.breaker import Breaker

# Seconds without any answer to anybody after which what is held is shown as it is. Its renewal goes on
# behind, so a slow server's answer is shown as soon as it comes.
QUIET_S = 2.0


class WaitPolicy:
    """What to give `SharedCall.wait` as `give_up`."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker

    def __call__(self, *, held: bool) -> Callable[[], Failure | None]:
        """`held`: whether there is something older to show."""
        return self._with_something_held if held else self._breaker.failure

    def _with_something_held(self) -> Failure | None:
        failure = self._breaker.failure()
        if failure is None and self._breaker.quiet(QUIET_S):
            failure = Failure(Cause.TIMED_OUT, detail=f"no answer for {QUIET_S:.0f} s")
        return failure
