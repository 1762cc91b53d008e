"""The FUSE adapter over libfuse's high-level interface, through mfusepy. Translation only, but for open
files, whose pages in the kernel belong to paths (`page_cache`).

Used by `daemon`, by way of `interface`, which says where. With the settings that measurements showed to
matter: READDIRPLUS (one request per folder instead of one per file), 256 threads and 512 background requests
(otherwise a dozen stuck reads starve everything else), interrupts, and the page cache (never plain direct_io:
mmap readers such as MRtrix fail on it).
Threading: libfuse calls from up to 256 threads of its own.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xnatfs.config import Limits
from xnatfs.fuse.caller import is_to_end
from xnatfs.fuse.indexers import IndexerWatch
from xnatfs.fuse.library import (
    LIBFUSE,
    THREADS,
    keep_thread_state,
    mfusepy,
    mount_source,
    set_limits,
)
from xnatfs.fuse.library import libfuse as _library
from xnatfs.fuse.operations import BLOCK_SIZE, MAX_NAME, READ_SIZE, Operations, nanoseconds, shown_inode
from xnatfs.fuse.page_cache import Pages
from xnatfs.fuse.page_revocation import PageRevocation
from xnatfs.vfs import Attributes, Vfs

log = logging.getLogger(__name__)

_READDIR_PLUS = 1  # the kernel asks for attributes with the names
_FILL_DIR_PLUS = 2  # and the reply has them

_library.fuse_interrupted.restype = ctypes.c_int
if LIBFUSE >= (3, 2):
    _library.fuse_invalidate_path.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    _library.fuse_invalidate_path.restype = ctypes.c_int


@dataclass
class _Listed:
    """An open folder: its entries, and whether any program has read them."""

    path: str
    entries: list[tuple[bytes, Attributes]]
    begun: bool = False


class StatFormat:
    """Attributes as the kernel takes them: as a dict for `stat`, as a `struct stat` for READDIRPLUS.

    Args:
        uid, gid: the owner shown.
        inode32: fold inode numbers into 32 bits.
    """

    def __init__(self, uid: int, gid: int, *, inode32: bool = False) -> None:
        self._owner = {"st_uid": uid, "st_gid": gid}
        self._number = shown_inode(inode32=inode32)

    def as_dict(self, attributes: Attributes) -> dict[str, Any]:
        """All fields, for one `stat`."""
        stamp = nanoseconds(attributes.mtime)
        return {
            "st_mode": attributes.mode,
            "st_ino": self._number(attributes.inode),
            "st_size": attributes.size,
            "st_blocks": attributes.blocks,
            "st_blksize": READ_SIZE,
            "st_nlink": attributes.links,
            "st_mtime": stamp,
            "st_ctime": stamp,
            "st_atime": stamp,
            **self._owner,
        }

    def fill(self, st: Any, attributes: Attributes, before: Attributes | None) -> None:
        """Fill a `struct stat` for READDIRPLUS that still has the attributes `before`. Only fields that
        differ are set: mfusepy's loop over a dict costs 15 us per entry, setting all fields 5 us, this 1
        us.
        """
        st.st_ino = self._number(attributes.inode)
        st.st_size = attributes.size
        st.st_blocks = attributes.blocks
        if before is None or before.mode != attributes.mode:
            st.st_mode = attributes.mode
            st.st_nlink = attributes.links
        if before is None or before.mtime != attributes.mtime:
            whole, rest = divmod(nanoseconds(attributes.mtime), 10**9)
            for stamp in (st.st_mtimespec, st.st_ctimespec, st.st_atimespec):
                stamp.tv_sec = whole
                stamp.tv_nsec = rest

    def new(self) -> Any:
        """A `struct stat` with the fields that all nodes share, for `fill`."""
        st = mfusepy.c_stat()
        st.st_uid, st.st_gid, st.st_blksize = self._owner["st_uid"], self._owner["st_gid"], READ_SIZE
        return st


class Adapter(Operations, mfusepy.Operations):  # type: ignore[misc]  # mfusepy is untyped in parts
    """FUSE operations on a `Vfs`.

    Args:
        vfs, limits, started, watch: see `Operations`.
        uid, gid: the owner shown: the mounting user.
        mountpoint: where the kernel can be made to drop pages; "" below an overlay, which would keep them.
        inode32: fold inode numbers into 32 bits.
    """

    use_ns = True

    def __init__(
        self,
        vfs: Vfs,
        limits: Limits,
        uid: int,
        gid: int,
        started: Callable[[], None],
        mountpoint: str = "",
        *,
        inode32: bool = False,
        watch: IndexerWatch | None = None,
    ) -> None:
        super().__init__(vfs, limits, started, watch or IndexerWatch(mountpoint))
        self._pages = Pages()
        self._revocation = PageRevocation(self._pages, mountpoint, limits.progress_deadline)
        self.stat_format = StatFormat(uid, gid, inode32=inode32)
        self._lock = threading.Lock()
        self._folders: dict[int, _Listed] = {}
        self._next_folder = 0

    # --- life -----------------------------------------------------------------------------------------------

    def init_with_config(self, conn: Any, config: Any) -> None:
        """Set the options that have no libfuse mount option."""
        if conn is not None and LIBFUSE[0] == 3:
            set_limits(conn)
        if config is not None:
            config.attr_timeout = config.entry_timeout = self._limits.kernel_ttl
            # New data on the server must appear at once after `xnatfs refresh`; answering from memory costs
            # 30 us.
            config.negative_timeout = 0.0
            config.use_ino = 1
            config.intr = 1
        self._started()

    def destroy(self, path: str) -> None:
        """The last call."""
        self.ending.set()

    # --- names ----------------------------------------------------------------------------------------------

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """`stat`."""
        self.counts["getattr"] += 1
        with self.operation():
            attributes = self._pages.to_report(path, self._vfs.attributes(path))
        if self._revocation.reported_as_socket(path):
            attributes = attributes._replace(mode=stat.S_IFSOCK)
        return self.stat_format.as_dict(attributes)

    def opendir(self, path: str, flags: int = 0) -> int:
        """List a folder; the snapshot serves all `readdir` calls of this handle, so that offsets mean the
        same in each.
        """
        walking = self.opened_by_walk(mfusepy.fuse_get_context()[2], flags)
        listed = self._list(path, walking=walking)
        with self._lock:
            self._next_folder += 1
            self._folders[self._next_folder] = _Listed(path, listed)
            return self._next_folder

    def _list(self, path: str, *, walking: bool = False) -> list[tuple[bytes, Attributes]]:
        with self.operation():
            entries = self._vfs.entries(path, walking=walking)
        if names := self._pages.open_below(path):
            above = path.rstrip("/")
            entries = [
                (name, self._pages.to_report(f"{above}/{name}", attributes) if name in names else attributes)
                for name, attributes in entries
            ]
        return [(name.encode("utf-8", "surrogateescape"), attributes) for name, attributes in entries]

    def fill(
        self, handle: int, offset: int, flags: int, add: Callable[[bytes, Attributes | None, int], bool]
    ) -> None:
        """Pass the entries from `offset` on to `add` until it reports that its buffer is full."""
        if flags & _READDIR_PLUS:
            self.counts["readdirplus"] += 1
        folder = self._folders[handle]
        if offset == 0 and folder.begun:  # `rewinddir`: the current listing (POSIX)
            folder.entries = self._list(folder.path)
        folder.begun = True
        listed = folder.entries
        for number in range(offset, len(listed) + 2):
            name, attributes = (b"." if number == 0 else b"..", None) if number < 2 else listed[number - 2]
            if not add(name, attributes, number + 1):
                return

    def readdir(self, path: str, fh: int) -> list[str]:
        """Names only. `_Fuse` calls `fill`; mfusepy registers the callback only where this method exists."""
        return [name.decode("utf-8", "surrogateescape") for name, _ in self._folders[fh].entries]

    def releasedir(self, path: str, fh: int) -> int:
        """Forget a snapshot."""
        with self._lock:
            self._folders.pop(fh, None)
        return 0

    # --- contents -------------------------------------------------------------------------------------------

    def open(self, path: str, fi: Any) -> int:
        """Open; a size that turned out to be wrong is corrected in the kernel before this returns."""
        self.counts["open"] += 1
        self.opened_by(mfusepy.fuse_get_context()[2], folder=False)
        with self.operation():
            revoked = self._revocation.count(path)
            opened = self._vfs.open(path, fi.flags & ~getattr(os, "O_NOFOLLOW", 0))
        fi.fh = opened.handle
        keep, past = self._pages.opened(path, opened)
        if (past and self._revocation.revoke(path, opened)) or self._revocation.count(path) != revoked:
            self._pages.closed(path, opened.handle)
            self._vfs.release(opened.handle)
            # Upon which the kernel looks the path up and opens it again.
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        fi.keep_cache, fi.direct_io = int(keep), int(past)
        work = self._invalidation(path)
        if opened.size_changed and work is not None:
            # The size in the kernel may be older than this content: from an earlier listing, or from before a
            # correction under another path of the same file. The kernel would cut every read at that size.
            try:
                self.elsewhere(work)
            except OSError:
                self.release(path, fi)
                raise
        return 0

    def read(self, path: str, size: int, offset: int, fi: Any) -> bytes:
        """Read."""
        self.counts["read"] += 1
        with self.operation():
            data = self._vfs.read(fi.fh, offset, size)
        if self._pages.overtaken(fi.fh):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return data

    def release(self, path: str, fi: Any) -> int:
        """Close."""
        self._vfs.release(fi.fh)
        if self._pages.closed(path, fi.fh):
            work = self._invalidation(path)
            if work is not None:
                work()
        return 0

    # --- the rest -------------------------------------------------------------------------------------------

    def statfs(self, path: str) -> dict[str, int]:
        """`df`."""
        blocks, free = self.space()
        return {
            "f_bsize": BLOCK_SIZE,
            "f_frsize": BLOCK_SIZE,
            "f_blocks": blocks,
            "f_bfree": free,
            "f_bavail": free,
            "f_namemax": MAX_NAME,
        }

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        """One attribute."""
        return self.xattr(path, name)

    def listxattr(self, path: str) -> list[str]:
        """The names of the attributes."""
        return self.xattrs(path)

    def _invalidation(self, path: str) -> Callable[[], object] | None:
        """A function for any thread that makes the kernel forget the size and pages of the path whose request
        this thread serves (measured to work from inside `open`, docs/internals/kernel.md 4); None where that
        cannot be done.
        """
        context = _library.fuse_get_context()
        if LIBFUSE < (3, 2) or not context:
            return None
        fuse, name = context.contents.fuse, path.encode("utf-8", "surrogateescape")
        return lambda: _library.fuse_invalidate_path(fuse, name)

    def run(self, mountpoint: str, source: str, *, allow_other: bool = False) -> None:
        """See `interface`."""
        run(self, mountpoint, source, self._limits, allow_other=allow_other)

    def keep_ctrl_c(self) -> None:
        """mfusepy hands SIGINT to libfuse, which ends its loop and unmounts by itself: not here."""
        mfusepy.signal = lambda number, handler: signal.getsignal(number)

    def drop_kept(self) -> None:
        """Nothing: the kernel keeps no listings."""

    def caller_interrupted(self) -> bool:
        """See `Operations`."""
        return bool(_library.fuse_interrupted()) and is_to_end(mfusepy.fuse_get_context()[2])


class _Fuse(mfusepy.FUSE):  # type: ignore[misc]  # mfusepy has no types
    """mfusepy's loop with READDIRPLUS.

    It needs three things together (measured): non-zero offsets, flag 2 where the kernel asks, and AUTO
    cleared (`init_with_config`). libfuse before 3.17 drops the attributes of an entry whose offset is 0.
    """

    def _wrapper(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        keep_thread_state()
        return super()._wrapper(func, *args, **kwargs)

    def opendir(self, path: bytes, fip: Any) -> int:
        """As mfusepy's, which keeps the flags to itself."""
        fip.contents.fh = self.operations.opendir(path.decode(self.encoding, self.errors), fip.contents.flags)
        return 0

    def readdir_fuse_3(self, path: Any, buf: Any, filler: Any, offset: int, fip: Any, flags: int) -> int:
        st = None
        before: Attributes | None = None
        plus = _FILL_DIR_PLUS if flags & _READDIR_PLUS else 0

        def add(name: bytes, attributes: Attributes | None, next_offset: int) -> bool:
            nonlocal st, before
            if attributes is None:
                return bool(filler(buf, name, None, next_offset, 0) == 0)
            if st is None:
                st = self.operations.stat_format.new()
            self.operations.stat_format.fill(st, attributes, before)
            before = attributes
            return bool(filler(buf, name, st, next_offset, plus) == 0)

        self.operations.fill(fip.contents.fh, offset, flags, add)
        return 0

    def readdir_fuse_2(self, path: Any, buf: Any, filler: Any, offset: int, fip: Any) -> int:
        st = self.operations.stat_format.new()

        def add(name: bytes, attributes: Attributes | None, next_offset: int) -> bool:
            if attributes is not None:
                self.operations.stat_format.fill(st, attributes, None)
            return bool(filler(buf, name, None if attributes is None else st, next_offset) == 0)

        self.operations.fill(fip.contents.fh, offset, 0, add)
        return 0


def run(adapter: Adapter, mountpoint: str, source: str, limits: Limits, *, allow_other: bool = False) -> None:
    """Mount and serve until unmounted; blocks. `source` is what the kernel's list of mounts shows.

    Raises:
        RuntimeError: libfuse could not mount.
    """
    # libfuse interrupts a waiting handler with SIGUSR1 but installs no handler on this path: the default
    # would kill the daemon.
    signal.signal(signal.SIGUSR1, lambda *_: None)
    options: dict[str, Any] = {
        "foreground": True,
        "ro": True,
        "default_permissions": True,
        "fsname": mount_source(source),
        "subtype": "xnatfs",
        "intr": True,
        "use_ino": True,
    }
    if LIBFUSE >= (3, 12):
        options |= {"max_threads": THREADS, "max_idle_threads": THREADS}
    if LIBFUSE[0] == 2:
        # libfuse 2 cannot correct a size in the kernel, so the kernel must not cache any.
        options |= {"attr_timeout": 0, "entry_timeout": limits.kernel_ttl, "negative_timeout": 0}
    if allow_other:
        options["allow_other"] = True
    _Fuse(adapter, mountpoint, raw_fi=True, **options)
