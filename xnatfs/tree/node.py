"""The interface every node of the tree has: a folder with entries, or a file with a size and a content.

Used by the sections (which make nodes) and by `vfs` (which walks them).
Threading: any thread; nodes are immutable or renew themselves by replacing a whole value.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Protocol

from xnatfs.errors import Failure

EPOCH = 0.0


class OpenContent(Protocol):
    """An open content; `content.manager.ContentReader` is one.

    One that is whole and checked in a file has `descriptor(offset, length)`, too: that file, open, and how
    many bytes there are of this part.
    """

    size: int
    stamp: str  # tells two versions apart where `File.version` cannot

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset`, shorter only at the end."""
        ...

    def close(self) -> None:
        """No more reads."""
        ...


class Node(ABC):
    """A folder or a file. `mtime` in seconds since the epoch; `inode` stable from mount to mount.

    Attributes:
        settled: nothing that is shown of it changes while what lists it stays, but what is learnt of files.
    """

    __slots__ = ()

    settled = False

    @property
    @abstractmethod
    def inode(self) -> int:
        """The inode number, 64 bits."""

    @property
    def mtime(self) -> float:
        """When this was last known to change."""
        return EPOCH

    def xattrs(self) -> dict[str, str]:
        """Extended attributes without the prefix `user.xnat.`; from memory, never from the network."""
        return {}


class Folder(Node):
    """A directory. `of_files` is true inside resources, where names are the names of the server's files."""

    __slots__ = ()

    of_files = False
    settled = True

    @abstractmethod
    def entries(self) -> Mapping[str, Node]:
        """What it lists, in the order it lists it.

        Raises:
            Failure: what keeps the server from answering, or NO_ENTRY if this is gone.
        """

    def listed(self) -> None:
        """A reader listed it: it may go on to what is below."""
        return

    def walked(self) -> None:
        """A program that walks through whatever there is (`find`) is about to list it.

        Raises:
            Failure: that would cost more than listings.
        """
        return

    def lookup(self, name: str) -> Node | None:
        """The node of this name: a listed one, else an alias (an id), else None."""
        return self.entries().get(name) or self.alias(name)

    def alias(self, name: str) -> Node | None:
        """A node that can be looked up but is not listed."""
        return None


class File(Node):
    """A regular file."""

    __slots__ = ()

    @property
    @abstractmethod
    def size(self) -> int:
        """Size in bytes, as true as is known now; exact once `open` has returned."""

    @property
    def listed_size(self) -> int:
        """The size the server's listing gives: another mount, or the kernel under another path, may know only
        this one.
        """
        return self.size

    @property
    def version(self) -> str:
        """Names this version of the content: while it stays, the kernel may keep its pages. "" for a text
        that changes.
        """
        return ""

    @property
    def digest(self) -> str:
        """The MD5 that the server lists, as hex; "" if there is none."""
        return ""

    def announced(self) -> None:
        """A reader is going to open it soon, and to read all of it."""
        return

    @abstractmethod
    def open(self) -> OpenContent:
        """Open the content for reading.

        Raises:
            Failure: it is not available.
        """

    def outdated(self, failure: Failure) -> bool:
        """Whether it could not be opened because it is another file on the server by now; then it is looked
        up again.

        Raises:
            Failure: INTERRUPTED.
        """
        return False


class UnknownSize(int):
    """The size that is shown of a file that is made when it is opened, while nobody knows its true one:
    larger than any such file. A program that reads as many bytes as `stat` told then ends with an error; by a
    smaller size it would cut the file without one (tarfile, `git add`), and by 0 not even open it.
    """

    __slots__ = ()


# And larger than any file of ext4, which so refuses at once what it else spends all its free space on: rclone
# and others ask for room for the whole file before they copy it.
LARGER_THAN_ANY_TABLE = UnknownSize(1 << 44)


def inode_of(*identity: str) -> int:
    """A stable inode number for a folder or a resource: 43 bits of a hash, then 20 bits of zeros for the
    files of a resource.

    Numbers rise with the catalog's order inside a resource, because `cp -r` opens in inode order (measured:
    hashed numbers make it read a zip backwards). 43 bits: among 250,000 resources two share a number with a
    probability of 0.4 %, which harms no tool.
    """
    digest = hashlib.blake2b("\0".join(identity).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") & ((1 << 43) - 1) | 1) << 20


def inode_in_order(identity: str, *parent: str) -> int:
    """A stable inode number that rises with the number in an accession id (`XNAT_E00012`), for the folders in
    one parent.

    31 bits of a hash of the parent, 24 of the number, 8 of a hash of the id: two sites' ids with one number
    stay apart.
    """
    numbers = re.findall(r"\d+", identity)
    top = inode_of(*parent) >> 32 & 0x7FFFFFFF
    return (
        top << 32
        | (int(numbers[-1][-18:]) & 0xFFFFFF if numbers else 0) << 8
        | inode_of(identity) >> 20 & 0xFF
    )


def in_order(base: int, nodes: Mapping[str, Branch]) -> None:
    """Number the folders of one parent in the order it lists them: `cp -r` visits them in inode order, and a
    walk in the listed order is what fetching ahead understands.
    """
    for rank, node in enumerate(nodes.values()):
        node.renumber(base + 1 + rank)


class Branch(Folder):
    """A folder whose entries and aliases are computed by functions: the sections are made of these.

    Args:
        inode: see `inode_of`.
        entries: what it lists; called at each look, so it must be cheap once the listings are in memory.
        mtime: seconds since the epoch.
        alias: unlisted names.
        xattrs: without the prefix.
        listed: called when a reader listed it.
        walked: see `Folder.walked`.
    """

    __slots__ = ("_alias", "_entries", "_inode", "_listed", "_mtime", "_walked", "_xattrs")

    def __init__(
        self,
        inode: int,
        entries: Callable[[], Mapping[str, Node]],
        *,
        mtime: float | None = None,
        alias: Callable[[str], Node | None] | None = None,
        xattrs: Mapping[str, str] | None = None,
        listed: Callable[[], None] | None = None,
        walked: Callable[[], None] | None = None,
    ) -> None:
        self._inode = inode
        self._entries = entries
        self._listed = listed
        self._walked = walked
        self._mtime = EPOCH if mtime is None else mtime
        self._alias = alias
        self._xattrs = xattrs

    @property
    def inode(self) -> int:
        return self._inode

    def renumber(self, inode: int) -> None:
        """Give it another inode number (before anybody has seen it)."""
        self._inode = inode

    @property
    def mtime(self) -> float:
        return self._mtime

    def entries(self) -> Mapping[str, Node]:
        return self._entries()

    def listed(self) -> None:
        if self._listed is not None:
            self._listed()

    def walked(self) -> None:
        if self._walked is not None:
            self._walked()

    def alias(self, name: str) -> Node | None:
        return self._alias(name) if self._alias is not None else None

    def xattrs(self) -> dict[str, str]:
        return dict(self._xattrs or {})


class FileBranch(Branch):
    """A resource, or a folder inside one."""

    __slots__ = ()

    of_files = True


class BytesContent:
    """An open content that is in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)
        self.stamp = hashlib.blake2b(data, digest_size=16).hexdigest()

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    def close(self) -> None:
        """Nothing to close."""
