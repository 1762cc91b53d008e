"""One worker: jobs in random order until it is told to stop, each told of to the command through a pipe.

Runs in a forked process with a session of its own, so that the command can end it and its tools. Messages are
tuples: `("begin", job)`, `("end", job, seconds, bytes, outcome, detail)`, `("timed", kind, [seconds, ...])`,
`("fact", name, digest)`, `("slow", text)`."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from soaking.jobs import JOBS, Desk, StuckError, WrongError
from soaking.truth import Truth

# of the jobs are followed by the kernel's pages of their files being dropped: else it would answer everything
# itself
_FORGET = 0.7
_FORGOTTEN = 60  # files at most
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def work(
    pipe: Connection,
    seed: int,
    truth: Truth,
    point: Path,
    scratch: Path,
    limit: float,
    environment: dict[str, str],
    references: dict[str, str],
    only: frozenset[str],
) -> NoReturn:
    """Work until the other end of the pipe says so or is gone."""
    os.setsid()
    ctypes.CDLL(None).prctl(
        _DIE_WITH_PARENT, signal.SIGKILL
    )  # the command may be killed in a way that leaves it no time
    signal.signal(
        signal.SIGINT, lambda *_: None
    )  # the command's Ctrl-C; not ignored, or the tools would ignore it too
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    status = 1
    try:
        timed: dict[str, list[float]] = defaultdict(list)
        desk = Desk(
            truth,
            point,
            scratch,
            random.Random(seed),
            limit,
            environment,
            references,
            lambda kind, seconds: timed[kind].append(seconds),
        )
        jobs = {job: weight for job, weight in JOBS.items() if not only or job.__name__ in only}
        while not pipe.poll():
            (job,) = desk.chance.choices(list(jobs), list(jobs.values()))
            pipe.send(("begin", job.__name__))
            desk.compared = 0
            begin = time.perf_counter()
            outcome, detail = _outcome(desk, job)
            pipe.send(("end", job.__name__, time.perf_counter() - begin, desk.compared, outcome, detail))
            for kind, seconds in timed.items():
                pipe.send(("timed", kind, seconds))
            for name, digest in desk.facts.items():
                pipe.send(("fact", name, digest))
            for text in desk.slow:
                pipe.send(("slow", text))
            desk.slow.clear()
            timed.clear()
            desk.facts.clear()
            for detail in _forget(desk):
                pipe.send(("end", "open again", 0.0, 0, *detail))
        status = 0
    except (EOFError, BrokenPipeError):
        pass  # the command is gone
    except BaseException:
        pipe.send(("broken", traceback.format_exc()))
    finally:
        sys.stderr.flush()
        os._exit(status)


def _outcome(desk: Desk, job: Callable[[Desk], None]) -> tuple[str, str]:
    try:
        job(desk)
        return "", ""
    except WrongError as error:
        return "wrong", str(error)
    except (StuckError, subprocess.TimeoutExpired) as error:
        return "stuck", str(error)
    except OSError as error:
        return _told(error)


def _told(error: OSError) -> tuple[str, str]:
    return errno.errorcode.get(
        error.errno or 0, str(error.errno)
    ), f"{error.strerror}: {error.filename or ''}".rstrip(": ")


def _forget(desk: Desk) -> list[tuple[str, str]]:
    """Have the kernel drop the pages of the files of this job, of some of them where they are many; the
    errors met.
    """
    touched, desk.touched = desk.touched, []
    failed: list[tuple[str, str]] = []
    if desk.chance.random() >= _FORGET:
        return failed
    for path in desk.chance.sample(touched, min(len(touched), _FORGOTTEN)):
        try:
            descriptor = os.open(desk.path(path), os.O_RDONLY)
        except OSError as error:
            failed.append(_told(error))
            continue
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    return failed
