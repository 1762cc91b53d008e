"""Whether the program that waits for an answer is to end: which signals wait for it.

Used by `fuse.adapter`. The kernel says that a request is interrupted for every signal: for a child that
ended, a timer, a stop that `fg` continues. A local disk answers all the same; so `open` or `readdir` must not
fail with EINTR for one of these, or `cp -r` goes on without the file. Only a signal that is to end the
program ends its wait. Which ones wait for it, and which it ignores or has blocked, is in its
`/proc/PID/status` (proc(5)).
Threading: any thread; no state.
"""

from __future__ import annotations

import signal
from functools import reduce
from operator import or_

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


def _is_mask(name: bytes) -> bool:
    return name in (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigIgn")
