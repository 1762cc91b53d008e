"""libfuse, found and loaded through mfusepy.

Used by `adapter` (the high-level interface, which mfusepy binds) and by `session` (the low-level one, which
it does not). mfusepy prefers libfuse 2 where both are installed, so libfuse 3 is forced here, before it is
imported.
Threading: imported once; the libraries may be called from any thread.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import threading
from typing import Any

if not (
    os.environ.get("FUSE_LIBRARY_PATH") or os.environ.get("FUSE_LIBRARY_NAME")
) and ctypes.util.find_library("fuse3"):
    os.environ["FUSE_LIBRARY_NAME"] = "fuse3"

import mfusepy as mfusepy

LIBFUSE = (mfusepy.fuse_version_major, mfusepy.fuse_version_minor)
CAP_READDIRPLUS = 1 << 13
CAP_READDIRPLUS_AUTO = 1 << 14
CAP_PASSTHROUGH = 1 << 29  # offered by libfuse from 3.17 on
THREADS = 256
BACKGROUND = 512  # requests the kernel may have under way: a dozen stuck reads must not starve the others

libfuse = mfusepy._libfuse
_thread = threading.local()


def keep_thread_state() -> None:
    """Keep Python's state for a thread of libfuse. Without this Python creates one for each call and destroys
    it afterwards, with a memory mapping each time: half the cost of a `find`. There are at most 256.
    """
    if not getattr(_thread, "stays", False):
        ctypes.pythonapi.PyGILState_Ensure()
        _thread.stays = True


def set_limits(connection: Any) -> None:
    """Set what the kernel is to do, in the `fuse_conn_info` of libfuse 3."""
    connection.max_background = connection.congestion_threshold = BACKGROUND
    # With AUTO the kernel asks for attributes only sometimes: 79,601 getattr calls for one find over 100,000
    # files, 1 without.
    connection.want = (connection.want | (connection.capable & CAP_READDIRPLUS)) & ~CAP_READDIRPLUS_AUTO


def mount_source(source: str) -> str:
    """A mount's source as libfuse's options are quoted."""
    return source.replace("\\", "\\\\").replace(",", "\\,")
