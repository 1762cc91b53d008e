"""The cap on requests under way."""

from __future__ import annotations

import contextlib
import threading

import pytest

from tests.support import until
from xnatfs.errors import Cause, Failure
from xnatfs.server.limiter import RequestLimiter


def test_one_slot_is_kept_for_listings() -> None:
    slots = RequestLimiter(3)
    with contextlib.ExitStack() as held:
        held.enter_context(slots.contents(1))
        held.enter_context(slots.contents(1))
        with pytest.raises(Failure) as caught, slots.contents(0.05):
            pytest.fail("a third content stream got a slot")
        assert caught.value.cause is Cause.TIMED_OUT
        held.enter_context(slots.listing(0.05))
        assert slots.in_use == 3
        with pytest.raises(Failure), slots.listing(0.05):
            pytest.fail("a fourth request got a slot")
    assert slots.in_use == 0


def test_listings_may_use_all_slots() -> None:
    slots = RequestLimiter(2)
    with slots.listing(1), slots.listing(1), pytest.raises(Failure), slots.contents(0.05):
        pytest.fail("more than all")


def test_a_slot_is_given_back_when_the_work_fails() -> None:
    slots = RequestLimiter(2)
    with pytest.raises(ZeroDivisionError), slots.contents(1):
        raise ZeroDivisionError
    assert slots.in_use == 0


def test_who_waits_gets_the_next_free_slot() -> None:
    slots = RequestLimiter(2)
    got, leave = threading.Event(), threading.Event()

    def wait() -> None:
        with slots.contents(20):
            got.set()
            leave.wait(20)

    with slots.contents(1):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.1)
    assert got.wait(10)
    leave.set()
    thread.join(10)
    assert until(lambda: slots.in_use == 0)


def test_there_are_always_two() -> None:
    slots = RequestLimiter(1)
    with slots.contents(0.05), slots.listing(0.05):
        assert slots.in_use == 2


def test_fewer_than_are_under_way_leave_a_listing_its_slot() -> None:
    """What is under way goes on when a mount's share gets smaller; an `ls` does not wait for it."""
    slots = RequestLimiter(5)
    with contextlib.ExitStack() as held:
        for _ in range(4):
            held.enter_context(slots.contents(1))
        slots.limit(2)
        with slots.listing(0.05), pytest.raises(Failure), slots.listing(0.05):
            pytest.fail("more than the one that is kept")
        with pytest.raises(Failure), slots.contents(0.05):
            pytest.fail("more than before")
        slots.limit(6)
        held.enter_context(slots.contents(0.05))
