"""What is asked again within an operation, how often and after which pause: the one place that decides it.

Beyond an operation: a login is `server.login_state`'s (one more try after a pause, since XNAT says 401 to one
session too many as well), and a listing that failed is left alone for a while by
`concurrency.recent_failures`.

An operation (a file, a part of one, a zip, a listing, a login) has a budget of requests that may fail. It is
carried out within `with Attempts(...)`. Requests that fail before their answer (`server.transport`) and
answers that are no good (whoever reads them) spend the same budget, so that tries at two levels add up and
never multiply. An operation within another one spends the outer one's budget too. Nothing is asked again
while the server is known to be away (`server.breaker`).

Threading: an `Attempts` belongs to the thread that entered it; which one that is, is a thread-local.
"""

from __future__ import annotations

import random
import threading
import time
from typing import NamedTuple

from xnatfs.errors import Cause, Failure

REQUESTS = 5  # that may fail, of one operation
FIRST_PAUSE_S = (
    0.2  # doubles with each failure: 3 s in all, 3.75 with jitter (`breaker.SPREAD` is above that)
)
LONGEST_BACKOFF_S = 2.0
LONGEST_PAUSE_S = 10.0  # that a server may ask for: a proxy may say an hour, for which nobody waits
JITTER = 0.25  # of a pause, more or less: those who failed together do not come back together

# 500 too: XNAT answers it for passing troubles (a full database pool, a catalog being written).
STATUSES = frozenset({429, 500, 502, 503, 504})
# Failures on the way to an answer that are worth a request more at once. Not a time-out: five in a row would
# outlast every deadline above.
_BEFORE_AN_ANSWER = frozenset({Cause.UNREACHABLE, Cause.UNKNOWN_HOST, Cause.CUT_SHORT, Cause.NO_RESOURCES})


class Policy(NamedTuple):
    """What a kind of operation asks again.

    `causes` are the failures that asking again may cure; `requests` may fail, and of these `answers` after
    the server began to answer, each of which may have cost it the whole work.
    """

    causes: frozenset[Cause]
    requests: int = REQUESTS
    answers: int = REQUESTS


_ON_THE_WAY = frozenset({Cause.CUT_SHORT, Cause.TIMED_OUT, Cause.UNREACHABLE})
REQUEST = Policy(frozenset())  # a request by itself: no more than what fails before an answer
# A wrong digest once is a damaged transfer; whoever reads it stops at the second of the same.
CONTENTS = Policy(_ON_THE_WAY | {Cause.SERVER_ERROR, Cause.NOT_DATA, Cause.BAD_DIGEST})
# A file that the server may refuse by itself: it leaves most of the budget to the zip it is also in.
REFUSABLE = Policy(frozenset(), requests=2)
# A table's file, in all: one request more is kept for when a check has shown that the server is well.
TABLE_FILE = CONTENTS._replace(requests=4)
GUESS = Policy(frozenset(), requests=2)  # of its path: where that does not work, the path is looked up
# What a zip did not bring is fetched singly: a web page instead of one is not asked for again.
ZIP = Policy(_ON_THE_WAY, answers=3)
# Its deadline is that of all tries together, so a time-out is the end.
LISTING = Policy(frozenset({Cause.BAD_LISTING, Cause.NOT_DATA, Cause.CUT_SHORT}), answers=3)
# It was an XNAT before: a web page now is a proxy's bad moment, and no password was refused.
LOGIN = Policy(frozenset({Cause.NOT_AN_XNAT}), answers=3)

_local = threading.local()


class Attempts:
    """The tries of one operation, for the thread that carries it out."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._outer: Attempts | None = current()
        self._failed = 0
        self._answers = 0

    def __enter__(self) -> Attempts:
        _local.attempts = self
        return self

    def __exit__(self, *_: object) -> None:
        _local.attempts = self._outer

    def may_cure(self, failure: Failure) -> bool:
        """Count an operation's failure, and say whether to try again (after `pause`)."""
        if failure.away or failure.cause not in self._policy.causes:
            return False
        if failure.status and failure.status not in STATUSES:
            return False
        if self._spent:  # by the request this failure is of
            return False
        self._answers += 1
        return self._spend() and self._answers < self._policy.answers

    def may_resend(self, cause: Cause | None = None) -> bool:
        """Count a request without a usable answer, and say whether to send it again (after `pause`): one that
        failed of `cause`, or got one of `STATUSES`.
        """
        return (cause is None or cause in _BEFORE_AN_ANSWER) and self._spend()

    def again(self, failure: Failure) -> bool:
        """`may_cure`, and wait if so."""
        if not self.may_cure(failure):
            return False
        self.pause()
        return True

    def progressed(self) -> None:
        """Something came that need not be asked for again: the budget is whole."""
        self._failed = self._answers = 0

    def pause(self, told: float = 0.0, *, first_at_once: bool = False) -> None:
        """Wait before the next request: `told` seconds if the server asks for that, else longer each time.

        `first_at_once`: not after a first failure, for what may be no more than a connection the server had
        closed meanwhile.
        """
        if told > 0:
            time.sleep(min(told, LONGEST_PAUSE_S))
        elif (failed := self._failed_in_all) > 1 or not first_at_once:
            backoff = min(LONGEST_BACKOFF_S, FIRST_PAUSE_S * 2.0 ** (failed - 1))
            time.sleep(backoff * random.uniform(1 - JITTER, 1 + JITTER))

    @property
    def _failed_in_all(self) -> int:
        return self._failed if self._outer is None else max(self._failed, self._outer._failed_in_all)

    @property
    def _spent(self) -> bool:
        return self._failed >= self._policy.requests or (self._outer is not None and self._outer._spent)

    def _spend(self) -> bool:
        self._failed += 1
        outer = self._outer is None or self._outer._spend()
        return outer and self._failed < self._policy.requests


def current() -> Attempts | None:
    """Of the operation this thread carries out."""
    attempts: Attempts | None = getattr(_local, "attempts", None)
    return attempts
