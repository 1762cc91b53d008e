"""What keeps the daemon's memory to itself: it holds a password, and patients' data.

Used by `run`. Called once, before the login.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def guard_process() -> None:
    """No core file, no look into this process by others of the same user (also not into the environment it
    was started with), and nothing it makes is readable by others. As ssh-agent does."""
    os.umask(0o077)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(
        _PR_SET_DUMPABLE, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)
    )
