"""How many streams a line rewards: a simulated line, and no clock but its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from xnatfs.content.stream_plan import (
    SEGMENTS,
    STRETCH,
    Fetch,
    first_unclaimed,
    is_far_ahead,
    lead,
    segment_length,
)
from xnatfs.content.stream_tuner import FORGET_S, StreamMeter, StreamTuner

PIECE = 256 * 1024
MB = 1_000_000


class Line:
    """A line, and transfers that have as many streams as they are allowed, each as fast as the line lets it.

    Args:
        each: bytes a second of a connection.
        total: ... of all together.
        processor: seconds of processor time a second that this process needs.
    """

    def __init__(
        self, each: float, total: float, *, most: int = 8, hint: int = 0, processor: float = 0
    ) -> None:
        self.now = 1000.0
        self.each, self.total, self.processor = each, total, processor
        self.learnt: list[int] = []
        self.tuner = StreamTuner(
            most, hint, self.learnt.append, lambda: self.now, lambda: self.now * self.processor
        )
        self.seen: list[int] = []  # streams at a time
        self.others = 0  # streams of transfers that never have more
        self._streams: list[tuple[StreamMeter, list[float]]] = []

    def run(self, seconds: float, step: float = 0.005) -> None:
        """Time passes."""
        for _ in range(round(seconds / step)):
            self.now += step
            wanted = self.others + self.tuner.share
            while len(self._streams) < wanted:
                self._streams.append((StreamMeter(self.tuner), [0.0]))
            for meter, _ in self._streams[wanted:]:
                self.tuner._stop(meter)
            del self._streams[wanted:]
            self.seen.append(len(self._streams))
            rate = min(self.each, self.total / len(self._streams))
            for meter, came in self._streams:
                came[0] += rate * step
                while came[0] >= PIECE:
                    came[0] -= PIECE
                    meter.received(PIECE)

    def rest(self, seconds: float) -> None:
        """Nothing is fetched for some time."""
        for meter, _ in self._streams:
            self.tuner._stop(meter)
        self._streams.clear()
        self.now += seconds


def test_streams_are_added_where_each_connection_has_its_limit() -> None:
    line = Line(20 * MB, 125 * MB)
    line.run(2)
    assert line.seen[0] == 1 and line.tuner.allowed >= 7
    assert line.learnt and line.learnt[-1] == line.tuner.allowed
    # Two steps are enough: nobody waits for seven trials.
    assert line.seen.index(max(line.seen)) < 1 / 0.005


@pytest.mark.parametrize("total", [2.5 * MB, 12 * MB, 125 * MB])
def test_streams_are_given_up_on_a_line_that_all_share(total: float) -> None:
    line = Line(total, total)
    line.run(60, step=0.01)
    assert line.learnt == [] and line.tuner.allowed in (1, 2)
    assert max(line.seen) == 2
    assert sum(1 for streams in line.seen if streams > 1) < len(line.seen) * 0.3  # rarer and rarer
    assert line.tuner.settled or line.tuner.allowed == 2


def test_no_more_streams_than_fill_the_line() -> None:
    line = Line(50 * MB, 125 * MB)
    line.run(3)
    assert line.learnt[-1] in (3, 4)


@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_never_more_than_the_connections_for_contents(most: int) -> None:
    line = Line(MB, 1000 * MB, most=most)
    line.run(60, step=0.02)
    assert max(line.seen) == most


def test_a_second_transfer_begins_with_what_was_learnt() -> None:
    line = Line(20 * MB, 125 * MB)
    line.run(2)
    line.rest(60)
    line.seen.clear()
    line.run(0.1)
    assert line.seen[0] >= 7


def test_what_was_learnt_is_forgotten_with_time_and_then_tried_first() -> None:
    line = Line(20 * MB, 125 * MB)
    line.run(2)
    kept = line.learnt[-1]
    line.rest(FORGET_S + 1)
    assert line.tuner.allowed == 1
    line.seen.clear()
    line.run(1)
    assert sorted(set(line.seen))[:2] == [1, kept]  # in one step


def test_the_next_mount_tries_first_what_this_one_found_and_believes_the_line() -> None:
    line = Line(20 * MB, 125 * MB, hint=7)
    line.run(1)
    assert sorted(set(line.seen))[:2] == [1, 7]
    shared = Line(125 * MB, 125 * MB, hint=7)
    shared.run(1.0)
    assert shared.learnt == [] and shared.seen[-1] in (1, 2)


def test_no_trial_while_this_process_is_the_limit() -> None:
    line = Line(300 * MB, 3000 * MB, processor=0.95)
    line.run(5)
    assert set(line.seen) == {1}


def test_transfers_have_equal_shares() -> None:
    line = Line(20 * MB, 125 * MB)
    line.run(2)
    kept = line.tuner.allowed
    with line.tuner.user(), line.tuner.user():
        assert line.tuner.share == kept // 2
        with line.tuner.user():
            assert line.tuner.share == kept // 3
    assert line.tuner.share == kept


def test_other_streams_are_counted() -> None:
    """Eight readers of eight files fill eight connections: there is nothing to try."""
    line = Line(20 * MB, 1000 * MB)
    line.others = 7
    line.run(5)
    assert set(line.seen) == {8}


def test_a_server_that_refuses_a_further_stream_has_fewer() -> None:
    line = Line(20 * MB, 125 * MB)
    line.run(2)
    kept = line.tuner.allowed
    line.tuner.refused()
    assert line.tuner.allowed == kept // 2


def test_a_stream_that_waits_for_its_reader_says_nothing_of_the_line() -> None:
    line = Line(20 * MB, 125 * MB)
    meter = StreamMeter(line.tuner)
    for _ in range(200):
        line.now += 0.013
        meter.received(PIECE)
        meter.wait()
    assert line.tuner.allowed == 1 and line.tuner.flowing == 0


def test_small_files_one_after_the_other_are_no_base_for_a_trial() -> None:
    """6 MB/s, because each waits for the server: beside that any zip would look like a rise."""
    line = Line(125 * MB, 125 * MB)
    for _ in range(200):
        line.now += 0.025
        with line.tuner.stream() as meter:
            meter.received(150_000)
    line.run(2)
    assert line.learnt == []


# --- the plan -----------------------------------------------------------------------------------------------


def missing(*here: tuple[int, int], size: int = 100) -> Callable[[int], tuple[int, int]]:
    def first(start: int) -> tuple[int, int]:
        while start < size and any(begin <= start < end for begin, end in here):
            start = next(end for begin, end in here if begin <= start < end)
        return start, min([size, *(begin for begin, _ in here if begin > start)])

    return first


def test_what_is_claimed_is_fetched_once() -> None:
    assert first_unclaimed([], 0, missing()) == (0, 100)
    assert first_unclaimed([Fetch(0, 40)], 0, missing()) == (40, 100)
    assert first_unclaimed([Fetch(0, 40), Fetch(60, 80)], 0, missing()) == (40, 60)
    assert first_unclaimed([Fetch(10, 40)], 0, missing()) == (0, 10)
    assert first_unclaimed([Fetch(20, 40)], 0, missing((0, 20), (40, 50))) == (50, 100)
    assert first_unclaimed([Fetch(0, 100)], 0, missing()) == (100, 100)


def test_segments_are_long_beside_a_request_and_short_towards_the_end() -> None:
    least, most = SEGMENTS
    assert segment_length(1 << 40, 8, 160 * MB, 0.001) == least
    assert least < segment_length(1 << 40, 8, 160 * MB, 0.05) < most
    assert segment_length(1 << 40, 8, 160 * MB, 1.0) == most
    assert segment_length(32 << 20, 8, 160 * MB, 1.0) == 2 << 20
    assert lead(1, 125 * MB, 0.02) < 4 << 20


def test_a_segment_is_received_to_its_end_and_a_long_stretch_waits_for_its_reader() -> None:
    class Reader:
        position, run = 0, 0

    segment, stretch = Fetch(64 << 20, 72 << 20), Fetch(64 << 20, STRETCH)
    assert not is_far_ahead(segment, [Reader()]) and is_far_ahead(stretch, [Reader()])
