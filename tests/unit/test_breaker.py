"""The circuit breaker, without a server and without waiting: its clock is the test's."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support import until
from xnatfs.errors import Cause, Failure
from xnatfs.server.breaker import SILENCE, SPREAD, Breaker
from xnatfs.server.probe_schedule import LONGEST, TIRED
from xnatfs.server.prober import Prober
from xnatfs.server.system_clock import SystemClock

REFUSED = (Cause.UNREACHABLE, "connection refused")


class Clock:
    """A machine's two clocks."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.suspended = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1.7e9 + self.now + self.suspended


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("https://x", SystemClock(clock.monotonic, clock.wall))


def fails(breaker: Breaker, clock: Clock, seconds: float) -> None:
    """A request that fails after so many seconds."""
    with breaker.asking() as began:
        clock.now += seconds
    breaker.failed(*REFUSED, began)


def probe_fails(breaker: Breaker, clock: Clock, takes: float = 0.2) -> None:
    breaker.probe_begins()
    clock.now += takes
    breaker.probe_failed(*REFUSED)


def is_open(breaker: Breaker) -> bool:
    try:
        breaker.check()
    except Failure as failure:
        assert failure.away
        return True
    return False


def opened(breaker: Breaker, clock: Clock) -> None:
    fails(breaker, clock, SPREAD)
    assert breaker.due() == 0
    probe_fails(breaker, clock)
    assert is_open(breaker)


def test_a_fault_of_a_second_or_two_is_left_to_retries(breaker: Breaker, clock: Clock) -> None:
    for _ in range(20):
        fails(breaker, clock, 0.1)
    assert breaker.due() is None and not is_open(breaker)
    breaker.answered()
    clock.now += 100
    fails(breaker, clock, 0.1)
    assert breaker.due() is None, "what failed before the last answer counts no more"


def test_no_answer_for_some_seconds_is_a_suspicion_and_a_probe_decides(
    breaker: Breaker, clock: Clock
) -> None:
    fails(breaker, clock, SPREAD)
    assert breaker.due() == 0 and not is_open(breaker)
    breaker.answered()  # the probe's, or anybody's
    assert breaker.due() is None and not is_open(breaker)
    began = clock.wall()
    fails(breaker, clock, 1)
    clock.now += SPREAD
    fails(breaker, clock, 1)
    assert breaker.due() == 0
    breaker.probe_failed(*REFUSED)
    with pytest.raises(Failure) as caught:
        breaker.check()
    assert caught.value.cause is Cause.UNREACHABLE and caught.value.away
    assert "connection refused since " in str(caught.value) and "next try in 1 s" in str(caught.value)
    away = breaker.away()
    assert away is not None and away.since == pytest.approx(began) and away.words == "connection refused"


def test_silence_is_noticed_before_the_time_out(breaker: Breaker, clock: Clock) -> None:
    with breaker.asking():
        assert breaker.due() == SILENCE
        clock.now += 3
        assert breaker.due() == pytest.approx(SILENCE - 3)
        assert breaker.quiet(2) and not breaker.quiet(4) and breaker.silence() == 3
        breaker.answered()  # to somebody else: then this one is just slow
        assert breaker.due() == SILENCE and not breaker.quiet(1)
        clock.now += SILENCE
        assert breaker.due() == 0
        breaker.probe_failed(Cause.TIMED_OUT, "silence")
        assert is_open(breaker)
    assert not breaker.silence()


def test_a_certificate_is_a_lasting_cause(breaker: Breaker, clock: Clock) -> None:
    with breaker.asking() as began:
        pass
    breaker.failed(Cause.BAD_CERTIFICATE, "certificate not trusted", began)
    assert breaker.due() == 0
    breaker.probe_failed(Cause.BAD_CERTIFICATE, "certificate not trusted")
    assert is_open(breaker)


def test_any_answer_closes_it(breaker: Breaker, clock: Clock) -> None:
    opened(breaker, clock)
    breaker.answered()
    assert not is_open(breaker) and breaker.away() is None and breaker.due() is None


def test_probes_come_less_often_and_end_when_nobody_asks(breaker: Breaker, clock: Clock) -> None:
    opened(breaker, clock)
    pauses = []
    while (due := breaker.due()) is not None:
        pauses.append(due)
        clock.now += due
        probe_fails(breaker, clock)
    assert pauses[0] == 1 and pauses == sorted(pauses) and pauses[-1] == LONGEST
    assert TIRED - LONGEST <= sum(pauses) <= TIRED + 2 * LONGEST
    away = breaker.away()
    assert away is not None and away.next_try is None


def test_who_asks_has_it_probed_sooner(breaker: Breaker, clock: Clock) -> None:
    opened(breaker, clock)
    for _ in range(10):
        clock.now += breaker.due() or 0
        probe_fails(breaker, clock)
    assert breaker.due() == LONGEST
    clock.now += 2
    assert is_open(breaker) and breaker.due() == LONGEST - 2, "not for everybody who asks at once"
    clock.now += 2
    assert is_open(breaker) and breaker.due() == 0


def test_where_probes_are_quick_who_asks_waits_for_one(breaker: Breaker, clock: Clock) -> None:
    opened(breaker, clock)
    clock.now += breaker.due() or 0
    probe_fails(breaker, clock, 0.001)  # refused
    clock.now += 0.01

    def answer() -> None:
        until(lambda: breaker.due() == 0)
        breaker.probe_begins()
        breaker.answered()

    thread = threading.Thread(target=answer)
    thread.start()
    breaker.check()  # does not raise: a server that is there again is found by who asks first
    thread.join(10)


def test_a_refresh_has_it_probed_at_once(breaker: Breaker, clock: Clock) -> None:
    breaker.wake()
    assert breaker.due() is None
    opened(breaker, clock)
    clock.now += TIRED + 1
    assert breaker.due() is None
    breaker.wake()
    assert breaker.due() == 0


def test_a_suspended_machine_has_it_probed_at_once(breaker: Breaker, clock: Clock) -> None:
    assert not breaker.leapt()
    opened(breaker, clock)
    assert breaker.due() != 0
    clock.suspended += 3600
    assert breaker.leapt() and breaker.due() == 0
    assert not breaker.leapt()


def test_the_first_to_ask_after_a_long_time_is_kept_waiting_for_a_probe(clock: Clock) -> None:
    breaker = Breaker("https://x", SystemClock(clock.monotonic, clock.wall))
    opened(breaker, clock)
    clock.now += TIRED + 1

    def probe() -> None:
        until(lambda: breaker.due() == 0)
        breaker.answered()

    thread = threading.Thread(target=probe)
    thread.start()
    breaker.check()  # does not raise: the server is there again
    thread.join(10)


def test_the_prober_asks_until_there_is_an_answer() -> None:
    breaker = Breaker("https://x")
    answers: list[bool] = [False, False, True]
    asked: list[float] = []

    def probe() -> None:
        asked.append(0)
        if not answers.pop(0):
            raise Failure(Cause.UNREACHABLE, "", "connection refused")

    prober = Prober(breaker, probe)
    prober.start()
    with breaker.asking() as began:
        pass
    breaker.failed(Cause.BAD_CERTIFICATE, "", began)
    until(lambda: len(asked) == 1 and is_open(breaker))
    until(lambda: not is_open(breaker), 20)
    assert len(asked) == 3
    prober.close()


class Machine(RuleBasedStateMachine):
    """Against a server that is there or not, in any order of things."""

    @initialize(takes=st.sampled_from([0.2, 5.0]))
    def begin(self, takes: float) -> None:
        self.probes_take = takes
        self.clock = Clock()
        self.breaker = Breaker("https://x", SystemClock(self.clock.monotonic, self.clock.wall))
        self.up = True
        self.proven = False  # a probe has failed since the last answer
        self.down_since: float | None = None

    def answer(self) -> None:
        self.proven = False
        self.breaker.answered()

    def go_on(self, seconds: float) -> None:
        """Let time pass, with a prober that does what is due."""
        end = self.clock.now + seconds
        while (due := self.breaker.due()) is not None and self.clock.now + due <= end:
            self.clock.now += due
            if self.breaker.due() == 0:
                if self.up:
                    self.answer()
                else:
                    self.proven = True
                    self.breaker.probe_begins()
                    self.clock.now += self.probes_take
                    self.breaker.probe_failed(*REFUSED)
        self.clock.now = max(end, self.clock.now)

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 30.0, 2 * TIRED]))
    def pass_time(self, seconds: float) -> None:
        self.go_on(seconds)

    @rule()
    def change(self) -> None:
        self.up = not self.up
        self.down_since = None if self.up else self.clock.now

    @rule(takes=st.floats(0, 12))
    def ask(self, takes: float) -> None:
        if is_open(self.breaker):
            return
        with self.breaker.asking() as began:
            self.go_on(takes)
        if self.up:
            self.answer()
        else:
            self.breaker.failed(*REFUSED, began)
            self.go_on(0)

    @precondition(lambda self: self.up)
    @rule()
    def is_found_again(self) -> None:
        """Whoever asks again a little later gets through."""
        is_open(self.breaker)
        self.go_on(_SOON)
        is_open(self.breaker)
        self.go_on(0)
        assert not is_open(self.breaker)

    @precondition(lambda self: not self.up)
    @rule()
    def is_given_up(self) -> None:
        """Whoever asks for long enough is told at once."""
        for _ in range(3):
            self.ask(SPREAD)
        assert is_open(self.breaker)

    @invariant()
    def open_only_if_proven(self) -> None:
        away = self.breaker.away()
        assert away is None or self.proven
        assert away is None or away.since <= self.clock.wall()


_SOON = 9.0  # seconds: a probe of 5 s that was under way, and one more
Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestAnyOrder = Machine.TestCase
