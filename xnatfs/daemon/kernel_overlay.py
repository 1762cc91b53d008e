"""The kernel's overlay file system, through mount(2), which gives its reason as an errno.

Used by `overlay`, which mounts with it, and by `upper_layer`, which tries whether it can.
Threading: plain functions without a state of their own, any thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from xnatfs.daemon import mount_table

_MS_NOSUID, _MS_NODEV, _MS_REMOUNT = 2, 4, 32
# redirect_dir: a folder of the server is renamed without fetching its contents. The other options are for
# layers that can be exported or never change; this lower layer changes.
_OPTIONS = "redirect_dir=on,index=off,metacopy=off,xino=off,nfs_export=off"

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, point: Path, lower: Path, directory: Path) -> None:
    """Mount an overlay of DIR/upper over `lower`.

    Raises:
        OSError: the kernel refuses it.
    """
    upper, work = escaped(directory / "upper"), escaped(directory / "work")
    data = f"lowerdir={escaped(lower)},upperdir={upper},workdir={work},{_OPTIONS}"
    _mount(source, point, data, _MS_NOSUID | _MS_NODEV)


def drop_unused_names(point: Path) -> None:
    """Remount without changes, upon which the kernel drops all unused names (measured with 6.18).

    Raises:
        OSError: the kernel refuses it.
    """
    _mount("", point, "", _MS_REMOUNT | _MS_NOSUID | _MS_NODEV)


def still_uses(directory: Path, lower: Path) -> bool:
    """Whether the kernel uses DIR/upper for an overlay that no longer shows as mounted. Tested with a mount
    that cannot succeed, since its work folder is invalid: the kernel checks that after the upper folder
    (measured with 6.18: EBUSY, else EINVAL).
    """
    upper = escaped(directory / "upper")
    data = f"index=on,lowerdir={escaped(lower)},upperdir={upper},workdir={upper}"
    try:
        _mount("probe", lower, data, 0)
    except OSError as error:
        return error.errno == errno.EBUSY
    mount_table.unmount(str(lower), lazy=True)
    return False


def escaped(path: Path) -> str:
    """A path, escaped for a mount option."""
    text = str(path)
    for char in ("\\", ",", ":"):
        text = text.replace(char, "\\" + char)
    return text


def _mount(source: str, point: Path, data: str, flags: int) -> None:
    if (
        _libc.mount(
            os.fsencode(source), os.fsencode(point), b"overlay", ctypes.c_ulong(flags), os.fsencode(data)
        )
        != 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
