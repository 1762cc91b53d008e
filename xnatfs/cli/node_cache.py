"""Where a node of a cluster keeps its own cache: on a disk of its own.

Used by `cli.options`, where there is a shared cache and nobody says where the node's is. A home is often on
NFS there: every node's cache in it would be read over the same network as the shared cache, and the locks of
SQLite, which the index needs, are slow there or not to be relied on.
"""

from __future__ import annotations

import os
from pathlib import Path

from xnatfs.cli.format import say
from xnatfs.config import private_folder
from xnatfs.daemon import mount_table
from xnatfs.errors import UsageError

_REMOTE = {
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "panfs", "wekafs", "pvfs2", "orangefs"),
    *("afs", "cifs", "smb3", "9p", "glusterfs"),
}
_MEMORY = {"tmpfs", "ramfs"}


def node_cache(usual: Path) -> Path:
    """The folder for a node's own cache: the usual one unless that is on another machine's disk and this one
    has one. Says so on standard error.
    """
    kind = mount_table.kind_of(usual)
    if not _is_remote(kind):
        return usual
    for place in (os.environ.get("SLURM_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/tmp"):
        if place and os.path.isdir(place) and not _is_remote(there := mount_table.kind_of(place)):
            if there in _MEMORY:
                continue
            try:
                folder = private_folder(Path(place).absolute() / f"xnatfs-{os.geteuid()}")
            except (OSError, UsageError):
                continue
            say(f"xnatfs: this node's cache is in {folder}: {usual} is on another machine ({kind})", err=True)
            return folder
    say(
        f"xnatfs: warning: this node's cache is in {usual}, which is on another machine ({kind}); name a "
        f"disk of this node with --cache-dir if there is one",
        err=True,
    )
    return usual


def _is_remote(kind: str) -> bool:
    return kind in _REMOTE or kind.startswith("fuse.")
