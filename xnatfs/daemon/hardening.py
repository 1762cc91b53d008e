"""Protects the daemon's memory, which contains a password and patients' data.

Used by `run`. Called once, before the login.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def guard_process() -> None:
    """No core file, no access to this process (or to its initial environment) by other processes of the same
    user, and no file it creates is readable by others; as in ssh-agent.
    """
    os.umask(0o077)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(
        _PR_SET_DUMPABLE, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)
    )
