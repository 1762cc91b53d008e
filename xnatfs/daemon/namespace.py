"""Namespaces of one's own: what is mounted in them nobody else sees, and it is gone with the last process in
them, however that ends.

Used by `daemon.job`. Through ctypes: Python has `os.unshare` from 3.12 on, and mount(2) not at all.
Threading: `enter` needs a process without other threads, as the kernel does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

from xnatfs.errors import UsageError

# linux/sched.h, linux/mount.h, linux/prctl.h, linux/capability.h
_NEWNS, _NEWUSER, _NEWPID = 0x0002_0000, 0x1000_0000, 0x2000_0000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_SLAVE = 2, 4, 8, 0x4000, 0x8_0000
_PR_SET_PDEATHSIG, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 47, 2
_CAP_SYS_ADMIN, _CAPABILITIES_VERSION_3 = 21, 0x2008_0522

WITHOUT_A_MOUNT = "without a mount, `xnatfs get` copies files, and fsspec (xnat://) reads them"

_libc = ctypes.CDLL(None, use_errno=True)


def enter() -> None:
    """Put this process into a mount namespace of its own, and its children into a process namespace, where
    the next one is the first: when that ends, the kernel kills all others. Whoever may not do that gets it
    within a user namespace, in which they keep their numbers.

    What the machine mounts and unmounts later is followed (autofs).

    Raises:
        UsageError: the kernel, or what this container may do, forbids it.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        try:
            _unshare(_NEWNS | _NEWPID)
        except PermissionError:
            _unshare(_NEWUSER | _NEWNS | _NEWPID)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        mount("none", "/", "", _MS_REC | _MS_SLAVE)
    except OSError as error:
        raise UsageError(
            f"this machine does not let you mount in a namespace of your own ({error.strerror}); "
            f"{WITHOUT_A_MOUNT}"
        ) from None


def settle() -> None:
    """For the first process of a process namespace: show its processes in /proc, as far as a container allows
    that, and let the programs started from here mount as well.
    """
    with contextlib.suppress(OSError):
        mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    if os.geteuid() != 0:
        with contextlib.suppress(OSError):
            _pass_on(_CAP_SYS_ADMIN)


def cover(folder: Path) -> None:
    """An empty folder of this namespace's in place of this one.

    Raises:
        OSError: it cannot be mounted.
    """
    mount("none", str(folder), "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0700,size=16m")


def die_with_parent() -> None:
    """Have this process killed when the one that forked it ends, whatever of."""
    _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), *(ctypes.c_ulong(0),) * 3)


def mount(source: str, point: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2).

    Raises:
        OSError: the kernel refuses it.
    """
    texts = (os.fsencode(source), os.fsencode(point), kind.encode())
    _check(_libc.mount(*texts, ctypes.c_ulong(flags), data.encode()))


def _unshare(flags: int) -> None:
    _check(_libc.unshare(flags))


def _pass_on(capability: int) -> None:
    """Let programs have a capability of this process, as fuse-overlayfs needs to mount."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the same for numbers from 32 on
    _check(_libc.capget(header, sets))
    sets[2] |= 1 << capability
    _check(_libc.capset(header, sets))
    arguments = (ctypes.c_ulong(_PR_CAP_AMBIENT_RAISE), ctypes.c_ulong(capability))
    _check(_libc.prctl(_PR_CAP_AMBIENT, *arguments, ctypes.c_ulong(0), ctypes.c_ulong(0)))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
