"""Recognising walks."""

from __future__ import annotations

from xnatfs.listing.prefetch import WalkDetector, WalkOrder

IDS = [f"E{number:03d}" for number in range(100)]


def test_one_look_fetches_nothing_ahead() -> None:
    ahead, order = WalkDetector(), WalkOrder(IDS)
    assert ahead.window("p", order, "E050") == []
    assert ahead.window("p", order, "E020") == []
    assert ahead.window("p", order, "E050") == []


def test_a_walk_fetches_more_and_more_ahead_up_to_a_bound() -> None:
    ahead, order = WalkDetector(), WalkOrder(IDS)
    widths = [len(ahead.window("p", order, one)) for one in IDS[:8]]
    assert widths == [0, 4, 8, 16, 32, 32, 32, 32]
    assert ahead.window("p", order, "E008")[:2] == ["E009", "E010"]


def test_the_end_of_the_list_ends_the_window() -> None:
    ahead, order = WalkDetector(), WalkOrder(IDS)
    ahead.window("p", order, "E096")
    assert ahead.window("p", order, "E097") == ["E098", "E099"]
    assert ahead.window("p", order, "E098") == ["E099"]
    assert ahead.window("p", order, "E099") == []


def test_looking_twice_at_one_thing_does_not_break_the_walk() -> None:
    ahead, order = WalkDetector(), WalkOrder(IDS)
    ahead.window("p", order, "E000")
    assert len(ahead.window("p", order, "E001")) == 4
    assert len(ahead.window("p", order, "E001")) <= 4
    assert len(ahead.window("p", order, "E002")) == 8


def test_walks_side_by_side_do_not_mix() -> None:
    ahead, order = WalkDetector(), WalkOrder(IDS)
    for step in range(3):
        left = ahead.window("p", order, IDS[step])
        right = ahead.window("p", order, IDS[50 + step])
        other = ahead.window("q", order, IDS[0])
    assert (len(left), len(right), len(other)) == (8, 8, 0)


def test_walking_backwards_or_by_chance_fetches_nothing() -> None:
    ahead, order = WalkDetector(), WalkOrder(IDS)
    assert [ahead.window("p", order, one) for one in reversed(IDS[:20])] == [[]] * 20


def test_something_unknown_is_in_no_walk() -> None:
    assert WalkDetector().window("p", WalkOrder(IDS), "E999") == []
