"""Requests a second; and none to a server that has asked to be left alone."""

from __future__ import annotations

from xnatfs.server.pacer import Pacer


class Clock:
    """Time passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def pacer(rate: float) -> tuple[Pacer, Clock]:
    clock = Clock()
    return Pacer(rate, clock, clock.sleep), clock


def test_a_burst_is_free_and_what_comes_after_is_paced() -> None:
    made, clock = pacer(10)
    for _ in range(20):
        made.wait()
    assert clock.now == 100.0
    for _ in range(50):
        made.wait()
    assert 104.5 < clock.now < 105.5
    clock.now += 60  # what is saved up is bounded
    for _ in range(70):
        made.wait()
    assert 169.5 < clock.now < 170.5


def test_a_server_that_asks_for_it_is_left_alone_by_all() -> None:
    """Each waits for itself, a little more or less, so that they do not come back together."""
    ends = set()
    for _ in range(5):
        made, clock = pacer(1000)
        made.hold(4)
        made.hold(1)  # which is over before
        made.wait()
        ends.add(round(clock.now, 3))
    assert len(ends) > 1 and all(104 <= end <= 105.1 for end in ends)


def test_nobody_waits_an_hour_nor_for_what_nobody_wants() -> None:
    made, clock = pacer(1000)
    made.hold(3600)
    made.wait()
    assert 110 <= clock.now <= 113
    made.hold(10)
    made.wait(lambda: True)
    assert clock.now <= 113
