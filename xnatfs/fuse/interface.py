"""Which of libfuse's interfaces a mount uses: the low-level one, or the high-level one where that is not to
be had or not wanted, and below an overlay. An overlay holds on to the nodes that it has looked up, which on
the low-level interface are others once a file changes.

Used by `daemon`.
Threading: none of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from xnatfs.config import LOW_LEVEL, Settings
from xnatfs.fuse import adapter, lowlevel, session
from xnatfs.fuse.indexers import IndexerWatch
from xnatfs.fuse.kernel_names import Knowledge
from xnatfs.vfs import Vfs

log = logging.getLogger(__name__)


class KernelSide(Protocol):
    """A mount's side of the kernel.

    Attributes:
        counts: requests of the kernel by kind.
        ending: set once the mount ends; whoever waits is then interrupted.
    """

    counts: dict[str, int]
    ending: threading.Event

    def run(self, mountpoint: str, source: str, *, allow_other: bool = False) -> None:
        """Mount and serve until unmounted; blocks.

        Raises:
            RuntimeError: libfuse could not mount.
        """
        ...

    def keep_ctrl_c(self) -> None:
        """Keep SIGINT for this process; libfuse would end its loop and unmount by itself."""
        ...

    def drop_kept(self) -> None:
        """Let the kernel ask for what it keeps of listings again."""
        ...


def make(
    settings: Settings,
    vfs: Vfs,
    uid: int,
    gid: int,
    started: Callable[[], None],
    mountpoint: str,
    knowledge: Knowledge,
    watch: IndexerWatch,
) -> KernelSide:
    """The adapter of a mount.

    Args:
        uid, gid: the owner shown.
        started: called once, when the kernel has begun to send requests.
        mountpoint: where the kernel can be made to drop pages; "" below an overlay, which would keep them.
        knowledge: tells what changed.
        watch: is notified of who opens folders and files.
    """
    if settings.fuse == LOW_LEVEL:
        why = "an overlay lies upon it" if settings.lower else session.missing()
        if not why:
            return lowlevel.LowLevel(
                vfs, settings.limits, uid, gid, started, watch, knowledge, inode32=settings.inode32
            )
        log.info("the high-level interface of libfuse is used: %s", why)
    return adapter.Adapter(
        vfs, settings.limits, uid, gid, started, mountpoint, watch=watch, inode32=settings.inode32
    )
