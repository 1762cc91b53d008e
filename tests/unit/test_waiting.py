"""Waiting: a deadline counts the time in which this process ran."""

from __future__ import annotations

import threading
import time

import pytest

from xnatfs.concurrency.waiting import wait_until
from xnatfs.errors import Cause, Failure


class Stopped(threading.Condition):
    """A condition whose first wait takes much longer than asked for: the process was stopped in it."""

    waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        time.sleep(1.5 if self.waits == 1 else 0.02)
        return False


def test_time_in_which_the_process_was_stopped_does_not_count() -> None:
    condition = Stopped()
    with condition:
        wait_until(condition, lambda: condition.waits > 5, 0.5)
    assert condition.waits == 6


def test_time_in_which_it_ran_counts() -> None:
    condition = threading.Condition()
    with condition, pytest.raises(Failure) as caught:
        wait_until(condition, lambda: False, 0.2)
    assert caught.value.cause is Cause.TIMED_OUT
