"""The FUSE adapter: `vfs` for the kernel, through mfusepy. Translation only.

Used by `daemon`. Forces libfuse 3 where it is installed (mfusepy would prefer libfuse 2), with the settings
that measurements showed to matter: READDIRPLUS (one request per folder instead of one per file), 256 threads
and 512 background requests (otherwise a dozen stuck reads starve everything else), interrupts, and the page
cache (never plain direct_io: mmap readers such as MRtrix fail on it).
Threading: libfuse calls from up to 256 threads of its own.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import logging
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from xnatfs.concurrency.waiting import wait_until
from xnatfs.config import Limits
from xnatfs.fuse.caller import is_to_end
from xnatfs.fuse.indexers import IndexerWatch
from xnatfs.fuse.page_cache import Pages
from xnatfs.fuse.page_revocation import PageRevocation
from xnatfs.vfs import XATTR_PREFIX, Attributes, Vfs

if not (
    os.environ.get("FUSE_LIBRARY_PATH") or os.environ.get("FUSE_LIBRARY_NAME")
) and ctypes.util.find_library("fuse3"):
    os.environ["FUSE_LIBRARY_NAME"] = "fuse3"

import mfusepy

log = logging.getLogger(__name__)

LIBFUSE = (mfusepy.fuse_version_major, mfusepy.fuse_version_minor)
_CAP_READDIRPLUS = 1 << 13
_CAP_READDIRPLUS_AUTO = 1 << 14
_READDIR_PLUS = 1  # the kernel asks for attributes with the names
_FILL_DIR_PLUS = 2  # and the reply has them
_NO_ATTRIBUTE = errno.ENODATA
_SPREAD = 0x9E3779B1  # odd, and about 2**32 divided by the golden ratio
_BLOCK = 131072  # bytes of one read of the kernel
_STATFS_BLOCK = 4096  # bytes

_thread = threading.local()
_library = mfusepy._libfuse
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
        self._number = folded if inode32 else _as_it_is

    def as_dict(self, attributes: Attributes) -> dict[str, Any]:
        """All fields, for one `stat`."""
        stamp = _nanoseconds(attributes.mtime)
        return {
            "st_mode": attributes.mode,
            "st_ino": self._number(attributes.inode),
            "st_size": attributes.size,
            "st_blocks": attributes.blocks,
            "st_blksize": _BLOCK,
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
            whole, nanoseconds = divmod(_nanoseconds(attributes.mtime), 10**9)
            for stamp in (st.st_mtimespec, st.st_ctimespec, st.st_atimespec):
                stamp.tv_sec = whole
                stamp.tv_nsec = nanoseconds

    def new(self) -> Any:
        """A `struct stat` with the fields that all nodes share, for `fill`."""
        st = mfusepy.c_stat()
        st.st_uid, st.st_gid, st.st_blksize = self._owner["st_uid"], self._owner["st_gid"], _BLOCK
        return st


def _as_it_is(inode: int) -> int:
    return inode


def folded(inode: int) -> int:
    """An inode number in 32 bits, the same in every mount. The low 20 bits count the files of a resource
    (`tree.node.inode_of`), which stay all different and, but for one wrap, in order; the rest is spread.
    """
    return ((inode >> 20) * _SPREAD + (inode & 0xFFFFF)) & 0xFFFFFFFF or 1


def _nanoseconds(mtime: float) -> int:
    """A time for the kernel, to the microsecond. In one place, because a nanosecond's difference between a
    listing and a `stat` invalidates the page cache.
    """
    return round(mtime * 1e6) * 1000


class Adapter(mfusepy.Operations):  # type: ignore[misc]  # mfusepy is untyped in parts
    """FUSE operations on a `Vfs`.

    Args:
        vfs: the file system.
        limits: how long the kernel may keep names and attributes.
        uid, gid: the owner shown: the mounting user.
        started: called once, when the kernel has begun to send requests.
        mountpoint: where the kernel can be made to drop pages; "" below an overlay, which would keep them.
        inode32: fold inode numbers into 32 bits.
        watch: is notified of who opens folders and files.
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
        self._vfs = vfs
        self._limits = limits
        self.stat_format = StatFormat(uid, gid, inode32=inode32)
        self._started = started
        self._watch = watch or IndexerWatch(mountpoint)
        self._lock = threading.Lock()
        self._folders: dict[int, _Listed] = {}
        self._next_folder = 0
        self._pages = Pages()
        self._revocation = PageRevocation(self._pages, mountpoint, limits.progress_deadline)
        self.ending = threading.Event()
        self.counts = {
            "getattr": 0,
            "readdirplus": 0,
            "open": 0,
            "read": 0,
        }  # for `status` and for tests; races may lose a few counts

    # --- life -----------------------------------------------------------------------------------------------

    def init_with_config(self, conn: Any, config: Any) -> None:
        """Set the options that have no libfuse mount option."""
        if conn is not None and LIBFUSE[0] == 3:
            conn.max_background = conn.congestion_threshold = 512
            # With AUTO the kernel asks for attributes only sometimes: 79,601 getattr calls for one find over
            # 100,000 files, 1 without.
            conn.want = (conn.want | (conn.capable & _CAP_READDIRPLUS)) & ~_CAP_READDIRPLUS_AUTO
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
        with self._operation():
            attributes = self._pages.to_report(path, self._vfs.attributes(path))
        reported = self.stat_format.as_dict(attributes)
        if self._revocation.reported_as_socket(path):
            reported["st_mode"] = stat.S_IFSOCK
        return reported

    def opendir(self, path: str) -> int:
        """List a folder; the snapshot serves all `readdir` calls of this handle, so that offsets mean the
        same in each.
        """
        self._watch.opened(mfusepy.fuse_get_context()[2], folder=True)
        listed = self._list(path)
        with self._lock:
            self._next_folder += 1
            self._folders[self._next_folder] = _Listed(path, listed)
            return self._next_folder

    def _list(self, path: str) -> list[tuple[bytes, Attributes]]:
        with self._operation():
            entries = self._vfs.entries(path)
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
        self._watch.opened(mfusepy.fuse_get_context()[2], folder=False)
        with self._operation():
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
        if opened.size_changed:
            # The size in the kernel may be older than this content: from an earlier listing, or from before a
            # correction under another path of the same file. The kernel would cut every read at that size.
            try:
                self._invalidate_soon(path)
            except OSError:
                self.release(path, fi)
                raise
        return 0

    def read(self, path: str, size: int, offset: int, fi: Any) -> bytes:
        """Read."""
        self.counts["read"] += 1
        with self._operation():
            data = self._vfs.read(fi.fh, offset, size)
        if self._pages.overtaken(fi.fh):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return data

    def release(self, path: str, fi: Any) -> int:
        """Close."""
        self._vfs.release(fi.fh)
        if self._pages.closed(path, fi.fh):
            self.invalidate(path)
        return 0

    # --- the rest -------------------------------------------------------------------------------------------

    def statfs(self, path: str) -> dict[str, int]:
        """`df`: the space of the cache, which is where what is read goes; never asks the server, which has no
        such figures. No number of inodes, as on btrfs: nobody has counted the server's files.
        """
        size, free = self._vfs.room()
        return {
            "f_bsize": _STATFS_BLOCK,
            "f_frsize": _STATFS_BLOCK,
            "f_blocks": size // _STATFS_BLOCK,
            "f_bfree": free // _STATFS_BLOCK,
            "f_bavail": free // _STATFS_BLOCK,
            "f_namemax": 255,
        }

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        """One attribute. `ls -l` asks for three of its own per file: those are refused without looking up the
        path.
        """
        if not name.startswith(XATTR_PREFIX):
            raise OSError(_NO_ATTRIBUTE, os.strerror(_NO_ATTRIBUTE))
        with self._operation():
            return self._vfs.xattr(path, name)

    def listxattr(self, path: str) -> list[str]:
        """The names of the attributes."""
        with self._operation():
            return self._vfs.xattrs(path)

    def invalidate(self, path: str) -> None:
        """Make the kernel ask for the attributes of a path again (measured to work from inside `open`,
        kernel.md 4).
        """
        context = _library.fuse_get_context()
        if LIBFUSE >= (3, 2) and context:
            _library.fuse_invalidate_path(context.contents.fuse, path.encode("utf-8", "surrogateescape"))

    def _invalidate_soon(self, path: str) -> None:
        """The same, but interruptible: the kernel waits until pages of the file that another program is
        reading have arrived, which takes until that program's deadline if the server has fallen silent.

        Raises:
            Failure: INTERRUPTED, or TIMED_OUT.
        """
        context = _library.fuse_get_context()
        if LIBFUSE < (3, 2) or not context:
            return
        fuse, name, condition = (
            context.contents.fuse,
            path.encode("utf-8", "surrogateescape"),
            threading.Condition(),
        )
        done: list[bool] = []

        def invalidate() -> None:
            _library.fuse_invalidate_path(fuse, name)
            with condition:
                done.append(True)
                condition.notify_all()

        threading.Thread(target=invalidate, name="invalidate", daemon=True).start()
        with self._operation(), condition:
            wait_until(condition, lambda: bool(done), 2 * self._limits.progress_deadline)

    @contextmanager
    def _operation(self) -> Iterator[None]:
        with self._vfs.operation(self._interrupted):
            try:
                yield
            except OSError as error:
                # `cat` and others retry after EINTR, and would keep the mount from ending.
                if error.errno == errno.EINTR and self.ending.is_set():
                    raise OSError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED)) from None
                raise

    def _interrupted(self) -> bool:
        if self.ending.is_set():
            return True
        return bool(_library.fuse_interrupted()) and is_to_end(mfusepy.fuse_get_context()[2])


class _Fuse(mfusepy.FUSE):  # type: ignore[misc]  # mfusepy has no types
    """mfusepy's loop with READDIRPLUS.

    It needs three things together (measured): non-zero offsets, flag 2 where the kernel asks, and AUTO
    cleared (`init_with_config`). libfuse before 3.17 drops the attributes of an entry whose offset is 0.
    """

    def _wrapper(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        if not getattr(_thread, "stays", False):
            # Without this, Python creates a thread state for each call from a libfuse thread and destroys it
            # afterwards, with a memory mapping each time: half the cost of a `find`. The state stays with the
            # thread; there are at most 256.
            ctypes.pythonapi.PyGILState_Ensure()
            _thread.stays = True
        return super()._wrapper(func, *args, **kwargs)

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


def keep_ctrl_c() -> None:
    """Keep SIGINT for this process: mfusepy hands it to libfuse, which ends its loop and unmounts by
    itself.
    """
    mfusepy.signal = lambda number, handler: signal.getsignal(number)


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
        "fsname": source.replace("\\", "\\\\").replace(",", "\\,"),  # as libfuse's options are quoted
        "subtype": "xnatfs",
        "intr": True,
        "use_ino": True,
    }
    if LIBFUSE >= (3, 12):
        options |= {"max_threads": 256, "max_idle_threads": 256}
    if LIBFUSE[0] == 2:
        # libfuse 2 cannot correct a size in the kernel, so the kernel must not cache any.
        options |= {"attr_timeout": 0, "entry_timeout": limits.kernel_ttl, "negative_timeout": 0}
    if allow_other:
        options["allow_other"] = True
    _Fuse(adapter, mountpoint, raw_fi=True, **options)
