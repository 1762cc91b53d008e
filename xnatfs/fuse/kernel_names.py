"""What the kernel knows of a mount's names: their numbers, how long they hold, its copies of listings.

Used by `lowlevel` and `folder_requests`. Puts together `node_table`, `open_nodes`, `kept_folders` and
`name_watch`, whose work begins with what the kernel forgets, keeps too long, or is to be told.
Threading: any thread; `run` starts three. None of them serves a request or holds a lock while it makes the
kernel drop something (`Session.invalidate`), which waits for whoever reads that in the kernel.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Protocol

from xnatfs.fuse import wire
from xnatfs.fuse.kept_folders import KeptFolders, Listing, Watched
from xnatfs.fuse.name_watch import HOLDS, NameWatch
from xnatfs.fuse.node_table import NodeTable
from xnatfs.fuse.open_nodes import OpenNodes
from xnatfs.fuse.session import Session
from xnatfs.vfs import Attributes, Vfs

LONG = wire.Validity.of(HOLDS)
_SWEEP = 5.0  # seconds between two looks at folders that stay open


class Knowledge(Protocol):
    """What a mount knows of the server; `core.Core` is one."""

    def version(self) -> int:
        """A number that changes with whatever is known."""
        ...

    def learnt_count(self) -> int:
        """A number that changes whenever attributes change of files whose listing does not."""
        ...

    def watchable(self, folder: str) -> str:
        """The folder to look at to notice any change below another one; "" where that is not enough."""
        ...


class KernelNames:
    """The names of one mount.

    Args:
        vfs: the file system.
        session: how the kernel is told.
        ttl: seconds for which a listing is not asked for again.
        kernel_ttl: seconds for which names hold that are not watched.
        knowledge: tells what changed.

    Attributes:
        nodes: the numbers of paths.
        open: the files that are open.
        kept: the kernel's copies of listings.
        short: how long names hold that are not watched.
    """

    def __init__(
        self, vfs: Vfs, session: Session, ttl: float, kernel_ttl: float, knowledge: Knowledge
    ) -> None:
        self.nodes = NodeTable()
        self.open = OpenNodes()
        self._session = session
        self.short = wire.Validity.of(kernel_ttl)
        self._watch = watch = NameWatch(
            knowledge.watchable,
            knowledge.version,
            lambda top: vfs.folder(top, reading=False),
            self._raise_epoch,
            ttl,
        )
        self.kept = KeptFolders(lambda: (watch.epoch, knowledge.learnt_count()))

    def begin(self) -> None:
        """The mount begins."""
        self._watch.begin()

    def run(self, ending: threading.Event) -> None:
        """Start what looks after the kernel's names, until the mount ends."""
        for work in (self._sweep, self._watch.run, self._watch.run_looks):
            threading.Thread(target=work, args=(ending,), name="kernel's names", daemon=True).start()

    # --- telling the kernel ---------------------------------------------------------------------------------

    def since(self) -> int:
        """What the mount knows before it looks something up for the kernel."""
        self._watch.asked()
        return self._watch.version()

    def validity(self, folder: str, since: int, attributes: Attributes | None = None) -> wire.Validity:
        """For how long names in a folder hold that were looked up just now, or the attributes of one."""
        if attributes is not None and not attributes.settled:
            return self.short
        return LONG if self._watch.holds(folder, since) else self.short

    def still_kept(self, node: int, handle: int) -> tuple[Attributes, Listing] | None:
        """A folder was opened: what the kernel may go on showing of it without anybody's looking at it; else
        None, and nothing is noted.
        """
        return self.kept.reopened(node, handle, self._watch.steady)

    def looked(self, folder: str) -> None:
        """A program looked at a folder just now."""
        self._watch.looked(folder)

    def watched(self, folder: str, attributes: Attributes) -> Watched:
        """What is known of a folder whose names hold long."""
        return Watched(self._watch.top(folder), attributes)

    def told(
        self, folder: int, entries: Sequence[tuple[str, Attributes]], start: int = 0
    ) -> list[tuple[int, Attributes]]:
        """Names that the kernel is told now, all in one folder: the node of each, and the attributes to tell.
        What is open stays as it was opened; a path that is not so any more has another node.

        Args:
            start: the place of the first name in the folder's listing.

        Raises:
            KeyError: the kernel does not know the folder.
        """
        nodes = self.nodes.count_all(folder, [name for name, _ in entries], start)
        told = [(node, attributes) for node, (_, attributes) in zip(nodes, entries, strict=True)]
        if len(self.open):
            for place, (node, attributes) in enumerate(told):
                shown = self.open.shown(node)
                if shown is None:
                    continue
                if self.open.outdated(node, attributes):
                    self.nodes.retire(node)
                    self.nodes.forget(node, 1)
                    told[place] = self.nodes.count(folder, entries[place][0]), attributes
                else:
                    told[place] = node, shown
        return told

    def forgotten(self, nodes: Iterable[tuple[int, int]]) -> None:
        """The kernel forgot nodes, each as often as this."""
        fewer = self.nodes.forget_all(nodes)
        if fewer:
            self.kept.forget(fewer)

    # --- making it ask again --------------------------------------------------------------------------------

    def drop(self) -> None:
        """Let the kernel ask again for each folder's listing, and for each name that it keeps for long."""
        self._watch.drop()

    def drop_copy(self, node: int) -> None:
        """Make the kernel drop its copy of a folder's listing."""
        self._session.invalidate(node)

    def _raise_epoch(self) -> bool:
        able = self._session.raise_epoch()
        for node in self.kept.drop_all():
            self._session.invalidate(node)
        return able

    def _sweep(self, ending: threading.Event) -> None:
        while not ending.wait(_SWEEP):
            for node in self.kept.outdated():
                self._session.invalidate(node)
