"""Single flight, workers, and waiting with deadlines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support import until
from xnatfs.concurrency.single_flight import SingleFlight, WorkerPool
from xnatfs.concurrency.waiting import interruptible, wait_until
from xnatfs.errors import Cause, Failure


@pytest.fixture
def workers() -> Iterator[WorkerPool]:
    made = WorkerPool("test", 4)
    yield made
    made.close()


def together(count: int, work: Callable[[], object]) -> list[object]:
    """Results (or what was raised) of so many threads that do the same."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(results) == count
    return results


def test_of_many_callers_one_fetches_and_all_get_it(workers: WorkerPool) -> None:
    calls = SingleFlight(workers)
    go, runs = threading.Event(), []

    def work() -> str:
        runs.append(1)
        go.wait(10)
        return "result"

    call = calls.start("key", work)
    until(lambda: runs)
    timer = threading.Timer(0.2, go.set)
    timer.start()
    assert together(8, lambda: calls.get("key", work, 10)) == ["result"] * 8
    assert call.wait(1) == "result"
    assert len(runs) == 1
    timer.join()


def test_the_next_caller_after_the_landing_fetches_anew(workers: WorkerPool) -> None:
    calls = SingleFlight(workers)
    runs: list[int] = []

    def work() -> int:
        runs.append(1)
        return len(runs)

    assert calls.get("key", work, 10) == 1
    until(lambda: not calls._under_way)
    assert calls.get("key", work, 10) == 2
    assert calls.get("other", work, 10) == 3


def test_an_error_reaches_every_caller_and_is_not_remembered(workers: WorkerPool) -> None:
    calls = SingleFlight(workers)
    go = threading.Event()

    def fail() -> str:
        go.wait(10)
        raise Failure(Cause.SERVER_ERROR, "here")

    first = calls.start("key", fail)
    timer = threading.Timer(0.2, go.set)
    timer.start()
    results = together(4, lambda: calls.get("key", lambda: "joined too late", 10))
    assert {type(result) for result in results} == {Failure}
    with pytest.raises(Failure):
        first.wait(1)
    until(lambda: not calls._under_way)
    assert calls.get("key", lambda: "better", 10) == "better"
    timer.join()


def test_a_caller_who_gives_up_leaves_the_work_to_the_others(workers: WorkerPool) -> None:
    calls = SingleFlight(workers)
    go = threading.Event()

    def work() -> str:
        go.wait(10)
        return "late"

    with pytest.raises(Failure) as caught:
        calls.get("key", work, 0.05)
    assert caught.value.cause is Cause.TIMED_OUT
    waiting = calls.start("key", lambda: "a second flight")
    go.set()
    assert waiting.wait(10) == "late"


def test_what_is_urgent_goes_before_what_is_not() -> None:
    workers = WorkerPool("test", 1)
    go, done = threading.Event(), []
    workers.submit(lambda: go.wait(10) and None)
    for name in ("ahead 1", "ahead 2"):
        workers.submit(lambda name=name: done.append(name), urgent=False)
    for name in ("urgent 1", "urgent 2"):
        workers.submit(lambda name=name: done.append(name))
    go.set()
    until(lambda: len(done) == 4)
    assert done == ["urgent 1", "urgent 2", "ahead 1", "ahead 2"]
    workers.close()


def test_no_more_threads_run_than_allowed_and_all_of_them_are_used() -> None:
    workers = WorkerPool("counted", 3)
    inside, peak, lock, go = [0], [0], threading.Lock(), threading.Event()
    done: list[int] = []

    def work() -> None:
        with lock:
            inside[0] += 1
            peak[0] = max(peak[0], inside[0])
        go.wait(10)
        with lock:
            inside[0] -= 1
            done.append(1)

    for _ in range(12):
        workers.submit(work)
    until(lambda: inside[0] == 3)
    go.set()
    until(lambda: len(done) == 12)
    assert peak[0] == 3
    workers.close()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("counted")])


def test_nothing_starts_after_the_end() -> None:
    workers = WorkerPool("test", 1)
    workers.close()
    calls = SingleFlight(workers)
    with pytest.raises(Failure) as caught:
        calls.start("key", lambda: 1)
    assert "ending" in str(caught.value)
    assert calls._under_way == {}


def test_waiting_ends_when_what_is_waited_for_is_there() -> None:
    condition = threading.Condition()
    with condition:
        wait_until(condition, lambda: True, 0)


def test_waiting_ends_after_its_patience() -> None:
    condition = threading.Condition()
    with condition, pytest.raises(Failure) as caught:
        wait_until(condition, lambda: False, 0.05)
    assert caught.value.cause is Cause.TIMED_OUT


def test_progress_renews_the_patience() -> None:
    condition = threading.Condition()
    started = time.monotonic()
    with condition:
        # Progress at each look, for four times the patience.
        wait_until(condition, lambda: time.monotonic() - started > 1.2, 0.3, time.monotonic)
    assert time.monotonic() - started > 1.2


def test_an_interrupt_ends_the_waiting_of_its_own_thread_only() -> None:
    condition = threading.Condition()
    with interruptible(lambda: True):
        with condition, pytest.raises(Failure) as caught:
            wait_until(condition, lambda: False, 60)
        assert caught.value.cause is Cause.INTERRUPTED
        other: list[object] = []

        def elsewhere() -> None:
            mine = threading.Condition()
            with mine:
                try:
                    wait_until(mine, lambda: False, 0.05)
                except Failure as failure:
                    other.append(failure.cause)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(20)
        assert other == [Cause.TIMED_OUT]
    with condition, pytest.raises(Failure) as caught:
        wait_until(condition, lambda: False, 0.05)
    assert caught.value.cause is Cause.TIMED_OUT


def test_interrupts_nest() -> None:
    condition = threading.Condition()
    with interruptible(lambda: True):
        with interruptible(lambda: False), condition, pytest.raises(Failure) as inner:
            wait_until(condition, lambda: False, 0.05)
        with condition, pytest.raises(Failure) as outer:
            wait_until(condition, lambda: False, 60)
    assert (inner.value.cause, outer.value.cause) == (Cause.TIMED_OUT, Cause.INTERRUPTED)


@pytest.mark.parametrize("attempt", range(20))
def test_what_is_submitted_in_a_burst_is_all_begun(attempt: int) -> None:
    """A thread that has taken its work but has not said so yet is not there for the next."""
    workers, warm, block, begun = (
        WorkerPool("burst", 8),
        threading.Barrier(4),
        threading.Event(),
        threading.Semaphore(0),
    )
    for _ in range(3):
        workers.submit(lambda: warm.wait(10) and None)
    warm.wait(10)
    until(lambda: workers.spare == 8)

    def work() -> None:
        begun.release()
        block.wait(10)

    for _ in range(8):
        workers.submit(work)
    assert all(begun.acquire(timeout=5) for _ in range(8)), "work waits although threads could be started"
    block.set()
    workers.close()


def test_a_pool_takes_more_or_fewer_threads_while_it_works() -> None:
    """Would fail if idle threads went on as before, if work were lost with a thread that ends, or if nothing
    began before the next piece of work came.
    """
    pool, gate, lock = WorkerPool("resized", 4), threading.Event(), threading.Lock()
    running, most, done = 0, 0, 0

    def work() -> None:
        nonlocal running, most, done
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(10)
        with lock:
            running -= 1
            done += 1

    for _ in range(4):
        pool.submit(work)
    until(lambda: running == 4)
    gate.set()
    until(lambda: done == 4)
    gate.clear()
    pool.resize(1)  # while four are idle
    most = 0
    for _ in range(6):
        pool.submit(work)
    until(lambda: running == 1)
    time.sleep(0.05)
    assert most == 1
    pool.resize(3)
    until(lambda: running == 3)
    gate.set()
    until(lambda: done == 10)
    assert most == 3
    pool.close()
