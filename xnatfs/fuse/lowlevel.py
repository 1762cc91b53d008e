"""The FUSE adapter over libfuse's low-level interface: nodes in place of paths. Translation only.

Used by `daemon`. Beside what `adapter` does over the high-level interface, the kernel keeps listings, and
names for an hour while they are watched (`kernel_names`), listings are packed at once (`wire`), and whole,
checked files are answered from their descriptor, or read by the kernel itself (`backing_files`).
Threading: libfuse calls from up to 256 threads of its own.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from typing import Any

from xnatfs.config import Limits
from xnatfs.fuse import session, wire
from xnatfs.fuse.backing_files import BackingFiles
from xnatfs.fuse.caller import is_to_end
from xnatfs.fuse.folder_requests import FolderRequests
from xnatfs.fuse.indexers import IndexerWatch
from xnatfs.fuse.kernel_names import KernelNames, Knowledge
from xnatfs.fuse.library import mount_source, set_limits
from xnatfs.fuse.operations import Operations, shown_inode
from xnatfs.vfs import Vfs

log = logging.getLogger(__name__)


class LowLevel(Operations):
    """FUSE operations on a `Vfs`, by node.

    Args:
        vfs, limits, started, watch: see `Operations`.
        uid, gid: the owner shown: the mounting user.
        inode32: fold inode numbers into 32 bits.
        knowledge: tells what changed.
    """

    def __init__(
        self,
        vfs: Vfs,
        limits: Limits,
        uid: int,
        gid: int,
        started: Callable[[], None],
        watch: IndexerWatch,
        knowledge: Knowledge,
        *,
        inode32: bool = False,
    ) -> None:
        super().__init__(vfs, limits, started, watch)
        self.counts |= {"lookup": 0, "opendir": 0, "forget": 0, "passthrough": 0}
        self._session = session.Session(self._answer_error)
        self._backing = BackingFiles(self._session)
        self._packer = wire.Packer(uid, gid, shown_inode(inode32=inode32))
        self._names = KernelNames(vfs, self._session, limits.ttl, limits.kernel_ttl, knowledge)
        self._nodes = self._names.nodes
        self._folders = FolderRequests(vfs, self, self._names, self._packer)
        mine = ("init", "destroy", "lookup", "forget", "forget_multi", "getattr", "open", "read", "release")
        self._session.serve({name: getattr(self, f"_{name}") for name in mine})
        self._session.serve({name: getattr(self, f"_{name}") for name in ("statfs", "getxattr", "listxattr")})
        folders = ("opendir", "readdir", "readdirplus", "releasedir")
        self._session.serve({name: getattr(self._folders, name) for name in folders})

    def run(self, mountpoint: str, source: str, *, allow_other: bool = False) -> None:
        """Mount and serve until unmounted; blocks. `source` is what the kernel's list of mounts shows.

        Raises:
            RuntimeError: libfuse could not mount.
        """
        options = ["ro", "default_permissions", f"fsname={mount_source(source)}", "subtype=xnatfs"]
        if allow_other:
            options.append("allow_other")
        self._names.run(self.ending)
        try:
            self._session.run(os.fsencode(mountpoint), ",".join(options))
        finally:
            self.ending.set()

    def keep_ctrl_c(self) -> None:
        """Nothing: this interface takes no signals."""

    def drop_kept(self) -> None:
        """Let the kernel ask again for each folder's listing, and for each name that it keeps for long."""
        self._names.drop()

    def caller_interrupted(self) -> bool:
        """See `Operations`."""
        return session.interrupted(is_to_end)

    # --- life -----------------------------------------------------------------------------------------------

    def _init(self, connection: Any) -> None:
        set_limits(connection.contents)
        self._backing.begin(connection.contents)
        self._names.begin()
        self._started()

    def _destroy(self) -> None:
        self.ending.set()

    def _answer_error(self, request: int, error: BaseException) -> None:
        number = errno.EIO
        if isinstance(error, OSError) and error.errno:
            number = error.errno
        elif isinstance(error, KeyError):  # a node that is not known (any more)
            number = errno.ESTALE
        else:
            log.error("a request failed", exc_info=error)
        session.reply_error(request, number)

    # --- names ----------------------------------------------------------------------------------------------

    def _lookup(self, request: int, parent: int, raw: bytes) -> None:
        self.counts["lookup"] += 1
        name = raw.decode("utf-8", "surrogateescape")
        folder, since = self._nodes.parent_path(parent), self._names.since()
        with self.operation():
            attributes = self._vfs.attributes(f"{folder}/{name}")
        ((node, attributes),) = self._names.told(parent, ((name, attributes),))
        valid = self._names.validity(folder, since, attributes)
        if not session.reply(request, self._packer.entry(node, attributes, valid)):
            self._names.forgotten(((node, 1),))

    def _getattr(self, request: int, node: int, _: int | None) -> None:
        self.counts["getattr"] += 1
        path, since = self._nodes.path(node), self._names.since()
        shown = self._names.open.shown(node)
        if shown is not None:  # also if that is gone: whoever has it open still has it
            session.reply(request, self._packer.attributes(shown, self._names.short))
            return
        try:
            with self.operation():
                attributes = self._vfs.attributes(path)
            valid = self._names.validity(path.rpartition("/")[0], since, attributes)
        except OSError as error:
            opened = self._folders.when_opened(node) if error.errno == errno.ENOENT else None
            if opened is None:
                raise
            attributes, valid = opened, wire.NOT_AT_ALL
        session.reply(request, self._packer.attributes(attributes, valid))

    def _forget(self, request: int, node: int, times: int) -> None:
        session.reply_nothing(request)
        self.counts["forget"] += 1
        self._names.forgotten(((node, times),))

    def _forget_multi(self, request: int, count: int, forgets: int) -> None:
        numbers = session.forgotten(count, forgets)
        session.reply_nothing(request)
        self.counts["forget"] += count
        self._names.forgotten(zip(numbers[::2], numbers[1::2], strict=True))

    # --- contents -------------------------------------------------------------------------------------------

    def _open(self, request: int, node: int, info: int) -> None:
        self.counts["open"] += 1
        path = self._nodes.path(node)
        self._names.since()
        self.opened_by(session.caller(request), folder=False)
        with self.operation():
            opened = self._vfs.open(path, session.flags_of(info) & ~os.O_NOFOLLOW)
        way = self._names.open.opened(node, opened, lambda: self._register(opened.handle))
        if way is None:  # another version is open there
            self._vfs.release(opened.handle)
            self._nodes.retire(node)
            # Upon which the kernel looks the path up and opens what it finds.
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        if opened.size_changed:
            # The size in the kernel may be older than this content: from an earlier listing, or from before a
            # correction under another path of the same file. The kernel would cut every read at that size.
            try:
                self.elsewhere(lambda: self._session.invalidate(node))
            except OSError:
                self._close(node, opened.handle)
                raise
        if way[1]:
            self.counts["passthrough"] += 1
        if not session.reply(request, wire.opened(opened.handle, *way)):
            self._close(node, opened.handle)  # the kernel will not: who asked is gone

    def _register(self, handle: int) -> int:
        whole = self._vfs.descriptor(handle, 0, 0)
        return self._backing.register(whole[0]) if whole is not None else 0

    def _read(self, request: int, _: int, size: int, offset: int, info: int) -> None:
        self.counts["read"] += 1
        handle = session.handle_of(info)
        part = self._vfs.descriptor(handle, offset, size)
        if part is not None:
            session.reply_from(request, part[0], offset, part[1])
            return
        with self.operation():
            data = self._vfs.read(handle, offset, size)
        session.reply(request, data)

    def _release(self, request: int, node: int, info: int) -> None:
        self._close(node, session.handle_of(info))
        session.reply_error(request, 0)

    def _close(self, node: int, handle: int) -> None:
        self._vfs.release(handle)
        self._backing.forget(self._names.open.closed(node, handle))

    # --- the rest -------------------------------------------------------------------------------------------

    def _statfs(self, request: int, _: int) -> None:
        session.reply(request, wire.statfs(*self.space()))

    def _getxattr(self, request: int, node: int, name: bytes, size: int) -> None:
        path = self._nodes.path(node)
        _answer_xattr(request, self.xattr(path, name.decode("utf-8", "surrogateescape")), size)

    def _listxattr(self, request: int, node: int, size: int) -> None:
        names = self.xattrs(self._nodes.path(node))
        _answer_xattr(request, b"".join(name.encode() + b"\0" for name in names), size)


def _answer_xattr(request: int, value: bytes, size: int) -> None:
    if not size:
        session.reply(request, wire.xattr_size(len(value)))
    elif len(value) > size:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    else:
        session.reply(request, value)
