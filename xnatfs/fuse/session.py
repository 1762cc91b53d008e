"""libfuse's low-level interface, as far as it is used, by ctypes: sessions, answers, notifications.

Used by `lowlevel`. mfusepy binds the high-level interface only; the library is the one it has loaded. Of
libfuse's structures only those are touched whose layout is the same in all of libfuse 3.9 and later (tried
with 3.10, 3.14, 3.17 and 3.18): the table of operations up to `readdirplus`, two fields of `fuse_file_info`,
`fuse_bufvec`, `fuse_ctx`, and `fuse_conn_info`, which mfusepy knows for each version. Where a function is
missing (`missing`) the high-level interface is to be used.
Threading: `run` blocks its thread; the rest may be called from any.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import platform
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from xnatfs.fuse.library import LIBFUSE, THREADS, keep_thread_state, libfuse, mfusepy

log = logging.getLogger(__name__)

# From 3.5 on it passes the flags of folders on that the kernel may keep; but up to 3.9.0 each says it is 3.2.
_FIRST = (3, 9)
_FUNCTIONS = (
    "fuse_session_new",
    "fuse_session_mount",
    "fuse_session_loop_mt",
    "fuse_session_unmount",
    "fuse_session_destroy",
    "fuse_session_fd",
    "fuse_reply_buf",
    "fuse_reply_data",
    "fuse_reply_err",
    "fuse_reply_none",
    "fuse_req_ctx",
    "fuse_req_interrupted",
    "fuse_lowlevel_notify_inval_inode",
)
_CONFIGURE = (
    "fuse_loop_cfg_create",
    "fuse_loop_cfg_destroy",
    "fuse_loop_cfg_set_idle_threads",
    "fuse_loop_cfg_set_max_threads",
    "fuse_loop_cfg_set_clone_fd",
)
_LAST_S = 2.0  # seconds for those who notify when the mount ends
_INC_EPOCH = struct.pack("=IiQ", 16, 8, 0)  # fuse_out_header: length, FUSE_NOTIFY_INC_EPOCH, no request
_HANDLE_AT = 16  # of `fh` in fuse_file_info, behind `int flags`, the bit fields and the padding
_IS_FD, _FD_SEEK = 1 << 1, 1 << 2  # FUSE_BUF_...

_Pointer, _Node, _Size, _Offset = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_int64
_Name = ctypes.c_char_p
# The operations of `struct fuse_lowlevel_ops` in its order, with the arguments of those that are served.
_OPERATIONS: dict[str, tuple[Any, ...] | None] = {
    "init": (_Pointer, ctypes.POINTER(mfusepy.fuse_conn_info)),
    "destroy": (_Pointer,),
    "lookup": (_Pointer, _Node, _Name),
    "forget": (_Pointer, _Node, ctypes.c_uint64),
    "getattr": (_Pointer, _Node, _Pointer),
    **dict.fromkeys(
        ("setattr", "readlink", "mknod", "mkdir", "unlink", "rmdir", "symlink", "rename", "link")
    ),
    "open": (_Pointer, _Node, _Pointer),
    "read": (_Pointer, _Node, _Size, _Offset, _Pointer),
    **dict.fromkeys(("write", "flush")),
    "release": (_Pointer, _Node, _Pointer),
    "fsync": None,
    "opendir": (_Pointer, _Node, _Pointer),
    "readdir": (_Pointer, _Node, _Size, _Offset, _Pointer),
    "releasedir": (_Pointer, _Node, _Pointer),
    "fsyncdir": None,
    "statfs": (_Pointer, _Node),
    "setxattr": None,
    "getxattr": (_Pointer, _Node, _Name, _Size),
    "listxattr": (_Pointer, _Node, _Size),
    **dict.fromkeys(("removexattr", "access", "create", "getlk", "setlk", "bmap", "ioctl", "poll")),
    **dict.fromkeys(("write_buf", "retrieve_reply")),
    "forget_multi": (_Pointer, _Size, _Pointer),
    **dict.fromkeys(("flock", "fallocate")),
    "readdirplus": (_Pointer, _Node, _Size, _Offset, _Pointer),
}


_KINDS: dict[str, Any] = {
    name: ctypes.CFUNCTYPE(None, *arguments) if arguments else _Pointer
    for name, arguments in _OPERATIONS.items()
}


class _Operations(ctypes.Structure):
    _fields_ = tuple(_KINDS.items())


class _Arguments(ctypes.Structure):
    """`struct fuse_args`."""

    _fields_ = (("argc", ctypes.c_int), ("argv", ctypes.POINTER(_Name)), ("allocated", ctypes.c_int))


class _OldConfig(ctypes.Structure):
    """`struct fuse_loop_config` before libfuse 3.12."""

    _fields_ = (("clone_fd", ctypes.c_int), ("max_idle_threads", ctypes.c_uint))


class _Context(ctypes.Structure):
    """`struct fuse_ctx`."""

    _fields_ = (("uid", ctypes.c_uint32), ("gid", ctypes.c_uint32), ("pid", ctypes.c_int32))


class _Buffers(ctypes.Structure):
    """`struct fuse_bufvec` with one buffer, and room for what later versions put behind it."""

    _fields_ = (
        ("count", _Size),
        ("idx", _Size),
        ("off", _Size),
        ("size", _Size),
        ("flags", ctypes.c_int),
        ("mem", _Pointer),
        ("fd", ctypes.c_int),
        ("pos", _Offset),
        ("later", ctypes.c_uint64 * 4),
    )


def missing() -> str:
    """Why the low-level interface cannot be used; "" if it can."""
    version = ".".join(map(str, LIBFUSE))
    if not _FIRST <= LIBFUSE < (4, 0) or sys.maxsize < 1 << 32 or platform.system() != "Linux":
        return f"libfuse {version} on {platform.system()}"
    wanted = _FUNCTIONS + (_CONFIGURE if LIBFUSE >= (3, 12) else ())
    lacking = [name for name in wanted if not hasattr(libfuse, name)]
    return f"libfuse {version} has no {', '.join(lacking)}" if lacking else ""


def _declare() -> None:
    """Say what the functions take and return."""
    declared: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "fuse_session_new": (
            _Pointer,
            (ctypes.POINTER(_Arguments), ctypes.POINTER(_Operations), _Size, _Pointer),
        ),
        "fuse_session_mount": (ctypes.c_int, (_Pointer, _Name)),
        "fuse_session_loop_mt": (ctypes.c_int, (_Pointer, _Pointer)),
        "fuse_session_unmount": (None, (_Pointer,)),
        "fuse_session_destroy": (None, (_Pointer,)),
        "fuse_session_fd": (ctypes.c_int, (_Pointer,)),
        "fuse_reply_buf": (ctypes.c_int, (_Pointer, _Name, _Size)),
        "fuse_reply_data": (ctypes.c_int, (_Pointer, ctypes.POINTER(_Buffers), ctypes.c_int)),
        "fuse_reply_err": (ctypes.c_int, (_Pointer, ctypes.c_int)),
        "fuse_reply_none": (None, (_Pointer,)),
        "fuse_req_ctx": (ctypes.POINTER(_Context), (_Pointer,)),
        "fuse_req_interrupted": (ctypes.c_int, (_Pointer,)),
        "fuse_lowlevel_notify_inval_inode": (ctypes.c_int, (_Pointer, _Node, _Offset, _Offset)),
        "fuse_loop_cfg_create": (_Pointer, ()),
        "fuse_loop_cfg_destroy": (None, (_Pointer,)),
        "fuse_loop_cfg_set_idle_threads": (None, (_Pointer, ctypes.c_uint)),
        "fuse_loop_cfg_set_max_threads": (None, (_Pointer, ctypes.c_uint)),
        "fuse_loop_cfg_set_clone_fd": (None, (_Pointer, ctypes.c_uint)),
    }
    for name, (result, arguments) in declared.items():
        if hasattr(libfuse, name):
            function = getattr(libfuse, name)
            function.restype, function.argtypes = result, arguments


if not missing():
    _declare()


# --- answers: exactly one for each request, which is gone after it ------------------------------------------


# `request`: the one this thread serves, until libfuse has its answer. What fails before that, such as ctypes
# with an argument, is answered as an error: whoever asked would wait for ever, and could not be killed.
_current = threading.local()


def reply(request: int, data: bytes) -> bool:
    """Answer with these bytes; whether the kernel still waited for them."""
    failed = libfuse.fuse_reply_buf(request, data, len(data))
    _current.request = None
    return not failed


def reply_from(request: int, descriptor: int, offset: int, size: int) -> None:
    """Answer with bytes of an open file, not through Python."""
    buffers = _Buffers(1, 0, 0, size, _IS_FD | _FD_SEEK, None, descriptor, offset)
    libfuse.fuse_reply_data(request, ctypes.byref(buffers), 0)
    _current.request = None


def reply_error(request: int, number: int) -> None:
    """Answer with an error number; 0 for what has no other answer."""
    libfuse.fuse_reply_err(request, number)
    _current.request = None


def reply_nothing(request: int) -> None:
    """Be done with a request that has no answer."""
    libfuse.fuse_reply_none(request)
    _current.request = None


# --- requests -----------------------------------------------------------------------------------------------


def caller(request: int) -> int:
    """The thread that waits for a request; 0 where that cannot be seen."""
    return int(libfuse.fuse_req_ctx(request).contents.pid)


def interrupted(is_to_end: Callable[[int], bool]) -> bool:
    """Whether a signal reached the thread that waits for the request which this one serves, and `is_to_end`
    says so of it (0 where it cannot be seen).
    """
    request = getattr(_current, "request", None)
    if request is None or not libfuse.fuse_req_interrupted(request):
        return False
    return is_to_end(caller(request))


def handle_of(info: int) -> int:
    """The handle in a `fuse_file_info`."""
    return int(ctypes.c_uint64.from_address(info + _HANDLE_AT).value)


def flags_of(info: int) -> int:
    """The flags of `open` in a `fuse_file_info`."""
    return int(ctypes.c_int.from_address(info).value)


def forgotten(count: int, forgets: int) -> memoryview:
    """Pairs of a node and how often it is forgotten, one after the other."""
    return memoryview(ctypes.string_at(forgets, 16 * count)).cast("Q")


# --- the session --------------------------------------------------------------------------------------------


class Session:
    """One mount.

    Args:
        answer_error: called where an operation raised.
    """

    def __init__(self, answer_error: Callable[[int, BaseException], None]) -> None:
        self._answer_error = answer_error
        self._session: int | None = None  # while the kernel can be notified
        self._notifying = 0  # threads that are just doing that
        self._changed = threading.Condition()
        self._operations = _Operations()  # libfuse copies it, but not the functions

    def serve(self, served: dict[str, Callable[..., None]]) -> None:
        """Serve operations, by name. Each answers its request once, or raises; `init` and `destroy` get
        none.
        """
        for name, function in served.items():
            kind: Any = _KINDS[name]
            guarded = self._life(function) if name in ("init", "destroy") else self._guarded(function)
            setattr(self._operations, name, kind(guarded))

    def run(self, mountpoint: bytes, options: str) -> None:
        """Mount and serve until unmounted; blocks.

        Raises:
            RuntimeError: libfuse could not mount.
        """
        words = (_Name * 3)(b"xnatfs", b"-o", options.encode("utf-8", "surrogateescape"))
        arguments = _Arguments(len(words), words, 0)
        session = libfuse.fuse_session_new(
            ctypes.byref(arguments), ctypes.byref(self._operations), ctypes.sizeof(self._operations), None
        )
        if not session:
            raise RuntimeError("libfuse refused the options")
        if libfuse.fuse_session_mount(session, mountpoint):
            libfuse.fuse_session_destroy(session)
            raise RuntimeError(1)
        self._session = session
        try:
            code = _loop(session)
        finally:
            with self._changed:
                self._session = None
                # What is closed below is a number, which may be another file's next: nobody may write to it.
                self._changed.wait_for(lambda: not self._notifying, _LAST_S)
            # Not destroyed: a thread may still be notifying. The process ends soon.
            libfuse.fuse_session_unmount(session)
        if code:
            log.info("libfuse's loop ended with %d", code)

    def invalidate(self, node: int) -> None:
        """Make the kernel forget the attributes and pages of a node, its copy of a listing.

        Waits until pages of the node that somebody reads have arrived. So never from a thread that serves a
        request, which might be that one, or with a lock held that such a thread needs.
        """
        with self._notified() as session:
            if session is not None:
                libfuse.fuse_lowlevel_notify_inval_inode(session, node, 0, 0)

    def raise_epoch(self) -> bool:
        """Make the kernel ask for every name again when it is next used; False if it cannot (before Linux
        6.16). libfuse has no function for this before 3.18: the message is written as the kernel defines it.
        """
        with self._notified() as session:
            if session is None:
                return False
            try:
                os.write(libfuse.fuse_session_fd(session), _INC_EPOCH)
            except OSError:
                return False
        return True

    def control(self, request: int, argument: bytes) -> int:
        """An `ioctl` on the connection to the kernel; what it returns.

        Raises:
            OSError: the kernel refuses, or the mount has ended.
        """
        with self._notified() as session:
            if session is None:
                raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
            return int(fcntl.ioctl(libfuse.fuse_session_fd(session), request, bytearray(argument)))

    @contextmanager
    def _notified(self) -> Iterator[int | None]:
        """The session, which is not closed within this block; None if it is."""
        with self._changed:
            session = self._session
            self._notifying += 1
        try:
            yield session
        finally:
            with self._changed:
                self._notifying -= 1
                self._changed.notify_all()

    def _guarded(self, function: Callable[..., None]) -> Callable[..., None]:
        def call(request: int, *arguments: Any) -> None:
            keep_thread_state()
            _current.request = request
            try:
                function(request, *arguments)
            except BaseException as error:  # an exception cannot pass through C
                if _current.request is None:
                    log.exception("a request failed after its answer")
                else:
                    self._answer_error(request, error)

        return call

    @staticmethod
    def _life(function: Callable[..., None]) -> Callable[..., None]:
        def call(_: int | None, *arguments: Any) -> None:
            try:
                function(*arguments)
            except BaseException:
                log.exception("the mount could not begin or end as it should")

        return call


def _loop(session: int) -> int:
    if LIBFUSE < (3, 12):
        old = _OldConfig(0, THREADS)
        return int(libfuse.fuse_session_loop_mt(session, ctypes.byref(old)))
    config = libfuse.fuse_loop_cfg_create()
    try:
        libfuse.fuse_loop_cfg_set_clone_fd(config, 0)
        libfuse.fuse_loop_cfg_set_idle_threads(config, THREADS)
        libfuse.fuse_loop_cfg_set_max_threads(config, THREADS)
        return int(libfuse.fuse_session_loop_mt(session, config))
    finally:
        libfuse.fuse_loop_cfg_destroy(config)
