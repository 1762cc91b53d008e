"""One cell of the matrix: an operation under a fault, and everything that has to hold of it (issue: never
lost, never hung).

1. A fault that a retry cures: the right bytes, no error. 2. Any other: the right bytes, or one of its
causes. 3. No call takes longer than its deadline. 4. Once the fault is gone the same operation works. 5.
Nothing is cached that is not true. 6. No thread and no descriptor is left; where there is no fault, no
warning is logged."""

from __future__ import annotations

import contextlib
import errno
import logging
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.faults.catalogue import Fault
from tests.faults.operations import OPERATIONS, Got, Operation
from tests.faults.world import AGAIN, SLACK, World
from tests.support import until
from xnatfs.errors import Cause, Failure

NOT_TOUCHED = "-"
RIGHT = "right"
RETRIED = "retried"
NEW = "new"
NAMED = "named"
STALE = "as listed"
_KEEPERS = ("xnatfs", "urllib3")


def run(world: World, operation: Operation, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything of one cell; what to write into the report."""
    with _logged() as logged:
        result = (
            _in_a_process(world, operation, fault)
            if fault.signal
            else _run(world, operation, fault, monkeypatch)
        )
        if fault.name == "no fault":
            assert not logged, f"logged although nothing is wrong: {logged}"
        world.unmount()
        world.check_leaks()
        world.check_cache()
    return result


@contextlib.contextmanager
def _logged() -> Iterator[list[str]]:
    """The texts of warnings. Only the texts: pytest keeps the failures too, and with them frames, and with
    these open connections.
    """
    found: list[str] = []

    class Texts(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    ours, handler = logging.getLogger("xnatfs"), Texts(logging.WARNING)
    ours.addHandler(handler)
    for name in _KEEPERS:
        logging.getLogger(name).propagate = False
    try:
        yield found
    finally:
        for name in _KEEPERS:
            logging.getLogger(name).propagate = True
        ours.removeHandler(handler)


def _run(world: World, operation: Operation, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> str:
    old = operation.truth(world.server.archive)
    got: Got | None = None
    failure: tuple[Cause, str] | None = None
    steps = operation.run(world)
    with contextlib.ExitStack() as stack:
        if fault.early:
            struck = stack.enter_context(fault.active(world, operation, monkeypatch))
        try:
            next(steps)
            world.slowest = 0.0
            if not fault.early:
                struck = stack.enter_context(fault.active(world, operation, monkeypatch))
            next(steps)
        except StopIteration as end:
            got = end.value
        except Failure as error:
            failure = error.cause, str(error)
        steps.close()
        times = struck()
    new = operation.truth(world.server.archive)
    result = _judged(operation, fault, times, got, failure, old, new)
    limits = world.limits
    patience = (limits.table_deadline if "table" in operation.name else limits.listing_deadline) + SLACK
    assert world.slowest < patience, f"a call took {world.slowest:.1f} s"
    _works_again(world, operation, fault, new)
    return result


def _in_a_process(world: World, operation: Operation, fault: Fault) -> str:
    """The same with the mount in a process of its own, which gets a signal while a request of it is under
    way.
    """
    truth = operation.truth(world.server.archive)
    command = [
        sys.executable,
        "-m",
        "tests.faults.worker",
        world.url,
        str(world.folder),
        str(OPERATIONS.index(operation)),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            asked = len(world.server.requests())
            world.switches.latency_ms = 200.0
            process.stdin.write("\n")
            process.stdin.flush()
            until(lambda: len(world.server.requests()) > asked, 30.0)
            process.send_signal(fault.signal)
            world.switches.latency_ms = 0.0
            if fault.signal == signal.SIGKILL:
                process.wait(10)
                came: object = truth  # nothing comes of it; what counts is the next mount
            else:
                time.sleep(1.5 * world.limits.progress_deadline)
                process.send_signal(signal.SIGCONT)
                came = pickle.loads(bytes.fromhex(process.stdout.readline()))
        finally:
            process.kill()
    got, failure = (None, (Cause[came[0]], came[1])) if isinstance(came, tuple) else (came, None)
    _works_again(world, operation, fault, truth)
    return _judged(operation, fault, 1, got, failure, truth, truth)


def _judged(
    operation: Operation,
    fault: Fault,
    times: int,
    got: Got | None,
    failure: tuple[Cause, str] | None,
    old: Got,
    new: Got,
) -> str:
    if failure is not None:
        cause, text = failure
        assert fault.causes_in(operation), f"a retry would have cured it: {cause.name}: {text}"
        causes = fault.causes_in(operation)
        assert cause in causes, f"{cause.name} is none of {[one.name for one in causes]}: {text}"
        # Where a time limit may come first, which of them it is depends on how busy the machine is.
        possible = fault.causes if cause in fault.causes and Cause.TIMED_OUT in fault.causes else (cause,)
        return " or ".join(sorted({errno.errorcode[one.errno] for one in possible}))
    assert got is not None
    if got == old:
        return NOT_TOUCHED if not times else RETRIED if fault.cured else RIGHT
    if fault.other_data and got == new:
        return NEW
    if fault.stale_sizes and operation.listing and got.keys() == old.keys():
        return STALE
    if fault.of_files and "problems" in got:
        problems = got.pop("problems")
        for label, cells in old.items():
            assert got.get(label) == cells or (label not in got and label in problems), (
                f"{label} lacks, and nothing says so"
            )
        return NAMED
    wrong = [name for name in old.keys() | got.keys() if got.get(name) != old.get(name)]
    raise AssertionError(
        f"wrong: {sorted(wrong)}: {[_short(got.get(name)) for name in wrong]}, not "
        f"{[_short(old.get(name)) for name in wrong]}"
    )


def _short(value: object) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)[:300]


def _works_again(world: World, operation: Operation, fault: Fault, truth: Got) -> None:
    if fault.refresh or fault.other_data:
        world.refreshing = True
        if world.mounted:
            world.mount().refresh()
    deadline = time.monotonic() + AGAIN
    while True:
        try:
            got = operation.again(world)
        except Failure as failure:
            assert time.monotonic() < deadline, f"it does not work again: {failure.cause.name}: {failure}"
            time.sleep(0.1)
            continue
        if got != truth and time.monotonic() < deadline and operation.listing:
            time.sleep(0.1)
            continue
        assert got == truth, "it gives something else afterwards"
        return
