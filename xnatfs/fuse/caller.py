"""The program that waits for an answer: whether it is to end (which signals wait for it), and which it is.

Used by `fuse.adapter` and `fuse.indexers`. The kernel says that a request is interrupted for every signal:
for a child that ended, a timer, a stop that `fg` continues. A local disk answers all the same; so `open` or
`readdir` must not fail with EINTR for one of these, or `cp -r` goes on without the file. Only a signal that
is to end the program ends its wait. Which ones wait for it, and which it ignores or has blocked, is in its
`/proc/PID/status` (proc(5)).
Threading: any thread; no state.
"""

from __future__ import annotations

import os
import signal
from functools import reduce
from operator import or_
from typing import NamedTuple

_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGKILL)
_MASK = reduce(or_, (1 << (number - 1) for number in _ENDING))


def is_to_end(task: int, proc: str = "/proc") -> bool:
    """Whether a signal that ends programs waits for a task (the kernel's word for a thread), or the task is
    gone. True also where that cannot be seen: a caller in another PID namespace has the number 0, and with
    hidepid the processes of others are not shown. Deaf to Ctrl-C would be worse.

    A program that has a handler of its own for such a signal sees EINTR, as it would of a pipe.
    """
    try:
        with open(f"{proc}/{task}/status", "rb") as status:
            lines = status.read().splitlines()
    except OSError:
        return True
    masks = {
        name: int(value, 16)
        for name, _, value in (line.partition(b":\t") for line in lines)
        if _is_mask(name)
    }
    pending = masks.get(b"SigPnd", 0) | masks.get(b"ShdPnd", 0)
    return bool(pending & _MASK & ~masks.get(b"SigBlk", 0) & ~masks.get(b"SigIgn", 0))


class Program(NamedTuple):
    """A process: its name (the kernel keeps 15 letters of it), and the path of its program, "" if hidden."""

    name: str
    path: str


def program_of(task: int, proc: str = "/proc") -> Program | None:
    """The process of a task, which may be one of its threads with a name of its own; None if it cannot be
    seen.

    Not its command line: reading that waits for the process's memory map, which a page fault in this very
    mount may hold.
    """
    try:
        with open(f"{proc}/{task}/status", "rb") as status:
            leader = next(line for line in status if line.startswith(b"Tgid:")).split()[1].decode()
        with open(f"{proc}/{leader}/comm", "rb") as file:
            name = file.read().strip().decode(errors="replace")
    except (OSError, StopIteration, IndexError):
        return None
    try:
        return Program(name, os.readlink(f"{proc}/{leader}/exe"))
    except OSError:  # of another user
        return Program(name, "")


def _is_mask(name: bytes) -> bool:
    return name in (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigIgn")
