"""Values that age."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from xnatfs.concurrency.clock import Clock
from xnatfs.concurrency.refreshable import Kept, Refreshable
from xnatfs.concurrency.single_flight import SingleFlight, WorkerPool
from xnatfs.errors import Cause, Failure


class World:
    """Values of a server that can be away, and of a store."""

    def __init__(self, workers: WorkerPool) -> None:
        self.clock = Clock()
        self.stored: dict[str, Kept[str]] = {}
        self.failures: list[Failure] = []
        self.values: Refreshable[str, str] = Refreshable(
            "value",
            SingleFlight(workers),
            self.clock,
            deadline=5.0,
            patience=self.patience,
            on_stale=self.stale,
            stored=self.stored.get,
            again_after=10.0,
            capacity=100,
            sizeof=len,
        )

    def patience(self, *, held: bool) -> Callable[[], Failure | None]:
        return lambda: None

    def stale(self, value: str, failure: Failure) -> str:
        self.failures.append(failure)
        return f"{value} as it was"

    def ask(self, value: str | Cause, stamp: str = "") -> str:
        def work() -> str:
            if isinstance(value, Cause):
                raise Failure(value)
            self.values.put("k", value, epoch=self.values.epoch, stamp=stamp)
            return value

        return self.values.get("k", work, stamp=stamp)


@pytest.fixture
def world() -> Iterator[World]:
    workers = WorkerPool("test", 2)
    yield World(workers)
    workers.close()


def test_a_value_is_fresh_for_its_age_and_stamp(world: World) -> None:
    assert world.values.fresh("k", 60.0) is None
    assert world.ask("one", "s") == "one"
    assert world.values.fresh("k", 60.0, "s") == "one"
    assert world.values.fresh("k", 60.0, "t") is None
    world.clock.advance(61.0)
    assert world.values.fresh("k", 60.0, "s") is None
    assert world.values.latest("k") == Kept("one", "s", 0.0)


def test_what_expired_is_still_known(world: World) -> None:
    world.ask("one")
    world.values.expire("k")
    assert world.values.fresh("k", 60.0) is None
    assert world.ask(Cause.TIMED_OUT) == "one as it was"


def test_a_server_that_is_away_is_not_asked_again_at_once(world: World) -> None:
    world.ask("one")
    world.clock.advance(100.0)
    assert world.values.shown("k") is None
    assert world.ask(Cause.UNREACHABLE) == "one as it was"
    shown = world.values.shown("k")
    assert shown is not None and shown.value == "one as it was"
    assert [one.cause for one in world.failures] == [Cause.UNREACHABLE]
    world.clock.advance(11.0)
    assert world.values.shown("k") is None
    assert world.ask("two") == "two"
    assert world.values.fresh("k", 60.0) == "two"


@pytest.mark.parametrize("cause", [Cause.NO_ENTRY, Cause.NOT_ALLOWED, Cause.INTERRUPTED])
def test_an_answer_is_not_hidden_by_what_was(world: World, cause: Cause) -> None:
    world.ask("one")
    with pytest.raises(Failure) as caught:
        world.ask(cause)
    assert caught.value.cause is cause


def test_the_stored_copy_serves_where_nothing_is_held(world: World) -> None:
    world.stored["k"] = Kept("old", "s", 1000.0)
    assert world.ask(Cause.SERVER_ERROR) == "old as it was"
    assert world.values.fresh("k", 60.0, "s") is None, "it never agreed with the server"
    world.stored.clear()
    world.values.refresh()
    with pytest.raises(Failure):
        world.ask(Cause.SERVER_ERROR)


def test_what_was_stored_before_a_refresh_is_not_recalled(world: World) -> None:
    world.stored["k"] = Kept("old", "s", 1.0)
    assert world.values.recall("k", "s") == world.stored["k"]
    assert world.values.recall("k", "t") is None
    assert world.values.recall("k", "") is None
    world.values.refresh()
    assert world.values.recall("k", "s") is None


def test_what_was_asked_for_before_a_refresh_is_not_held_after_it(world: World) -> None:
    epoch = world.values.epoch
    world.values.refresh()
    assert not world.values.put("k", "late", epoch=epoch)
    assert world.values.held("k") is None
    assert world.values.put("k", "new", epoch=world.values.epoch)


def test_a_refresh_of_one_key_leaves_the_others(world: World) -> None:
    world.values.put("k", "one")
    world.values.put("l", "two")
    world.values.refresh("k")
    assert world.values.held("k") is None
    assert world.values.fresh("l", 60.0) == "two"


def test_one_request_serves_all_who_wait(world: World) -> None:
    asked: list[int] = []

    def work() -> str:
        asked.append(1)
        time.sleep(0.2)
        return "one"

    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.append(world.values.get("k", work))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (got, asked) == (["one"] * 5, [1])


def test_the_least_recently_used_goes_first(world: World) -> None:
    world.values.put("k", "x" * 60)
    world.values.put("l", "x" * 60)
    assert world.values.held("k") is None
    assert world.values.counts() == (1, 60)
    assert not world.values.put("k", "x" * 101), "larger than all that may be held"
    assert world.values.held("k") is None
