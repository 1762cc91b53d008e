"""The kernel's requests about folders, through libfuse's low-level interface: opendir, readdir, closedir.

Used by `lowlevel`. An open folder shows what it listed when it was opened, from the daemon or from the
kernel's own copy (`kept_folders`).
Threading: any thread; one lock guards the table of open folders, held only briefly.
"""

from __future__ import annotations

import itertools
import stat
import threading
from collections.abc import Mapping

from xnatfs.fuse import session, wire
from xnatfs.fuse.kernel_names import LONG, KernelNames
from xnatfs.fuse.operations import Operations
from xnatfs.tree.node import Node
from xnatfs.vfs import Attributes, Vfs

_DOTS = (b".", b"..")


class _OpenFolder:
    """An open folder: what it was and listed when it was opened, and whether any program has read it."""

    __slots__ = ("attributes", "begun", "entries", "listing", "node", "since", "valid")

    def __init__(self, node: int, attributes: Attributes, listing: Mapping[str, Node], since: int) -> None:
        self.node = node
        self.attributes = attributes
        self.listing = listing
        self.since = since  # what the mount knew before it was listed
        self.valid = wire.NOT_AT_ALL
        self.entries: list[tuple[str, Attributes]] | None = None  # once they are read
        self.begun = False


class FolderRequests:
    """The folders that are open in one mount.

    Args:
        vfs: the file system.
        operations: what is reported of open files, and when waiting ends.
        names: what the kernel knows.
        packer: packs answers.
    """

    def __init__(self, vfs: Vfs, operations: Operations, names: KernelNames, packer: wire.Packer) -> None:
        self._vfs = vfs
        self._operations = operations
        self._names = names
        self._packer = packer
        self._lock = threading.Lock()
        self._open: dict[int, _OpenFolder] = {}
        self._handles = itertools.count(1)

    def when_opened(self, node: int) -> Attributes | None:
        """What a folder was that is gone, for who has it open still."""
        with self._lock:
            return next((one.attributes for one in self._open.values() if one.node == node), None)

    def opendir(self, request: int, node: int, info: int) -> None:
        """List a folder; the listing serves all reading by this handle, so that offsets mean the same. What
        the kernel keeps and is watched is hardly looked at: a second `find` does nothing else.
        """
        self._operations.counts["opendir"] += 1
        handle, since = next(self._handles), self._names.since()
        copy = self._names.still_kept(node, handle)
        if copy is not None:
            folder = _OpenFolder(node, *copy, since)
            flags = wire.CACHE_DIR | wire.KEEP_CACHE
        else:
            walking = self._operations.opened_by_walk(session.caller(request), session.flags_of(info))
            with self._operations.operation():
                path = self._names.nodes.path(node)
                attributes, listing = self._vfs.folder(path, walking=walking)
            self._names.looked(path)
            folder = _OpenFolder(node, attributes, listing, since)
            flags = self._names.kept.opened(node, handle, listing)
        folder.begun = bool(flags & wire.KEEP_CACHE)  # for all that is known: the kernel does not ask
        with self._lock:
            self._open[handle] = folder
        if not session.reply(request, wire.opened(handle, flags)):
            self._close(node, handle)

    def releasedir(self, request: int, node: int, info: int) -> None:
        """Forget a listing."""
        self._close(node, session.handle_of(info))
        session.reply_error(request, 0)

    def readdirplus(self, request: int, node: int, size: int, offset: int, info: int) -> None:
        """Names with attributes."""
        self._operations.counts["readdirplus"] += 1
        entries, valid = self._read(node, offset, session.handle_of(info))
        head = b"".join(wire.bare_plus(_DOTS[number], number + 1) for number in range(offset, 2))
        start = max(0, offset - 2)
        wanted = entries[start : start + size // wire.SMALLEST_PLUS + 1]
        told = self._names.told(node, wanted, start)
        data, count = self._packer.listing_plus(
            [
                (name.encode("utf-8", "surrogateescape"), shown, number)
                for (name, _), (number, shown) in zip(wanted, told, strict=True)
            ],
            start + 2,
            size - len(head),
            valid,
            self._names.short,
        )
        unused = told[count:] if session.reply(request, head + data) else told
        if unused:  # not all fitted, or nobody waits any more
            self._names.nodes.forget_all((number, 1) for number, _ in unused)

    def readdir(self, request: int, node: int, size: int, offset: int, info: int) -> None:
        """Names only, for a kernel that does not ask for attributes with them."""
        entries, _ = self._read(node, offset, session.handle_of(info))
        parts: list[bytes] = []
        left = size
        for number in range(offset, len(entries) + 2):
            if number < 2:
                part = wire.bare(_DOTS[number], 0, stat.S_IFDIR >> 12, number + 1)
            else:
                name, one = entries[number - 2]
                shown = self._packer.number(one.inode)
                part = wire.bare(name.encode("utf-8", "surrogateescape"), shown, one.mode >> 12, number + 1)
            left -= len(part)
            if left < 0:
                break
            parts.append(part)
        session.reply(request, b"".join(parts))

    def _read(
        self, node: int, offset: int, handle: int
    ) -> tuple[list[tuple[str, Attributes]], wire.Validity]:
        """The entries of an open folder, of which the kernel reads from `offset` on; how long they hold."""
        folder, kept = self._open[handle], self._names.kept
        path = self._names.nodes.path(node)
        with self._operations.operation():
            if offset == 0 and folder.begun:  # `rewinddir`: the current listing (POSIX)
                folder.since = self._names.since()
                folder.attributes, folder.listing = self._vfs.folder(path)
            if offset == 0 or folder.entries is None:
                folder.entries = self._vfs.described(path, folder.listing)
        folder.begun = True
        valid = self._names.validity(path, folder.since)
        if offset == 0:
            folder.valid = valid
            settled = all(one.settled for one in folder.listing.values())
            watched = self._names.watched(path, folder.attributes) if valid == LONG else None
            kept.read(node, handle, folder.listing, valid.seconds, settled=settled, watched=watched)
        elif valid != folder.valid:
            kept.forget((node,))  # some of its names hold longer than others
        if offset and kept.in_conflict(node, handle):
            self._operations.elsewhere(lambda: self._names.drop_copy(node))
        return folder.entries, valid

    def _close(self, node: int, handle: int) -> None:
        with self._lock:
            self._open.pop(handle, None)
        self._names.kept.closed(node, handle)
