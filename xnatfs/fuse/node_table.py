"""The numbers by which the kernel knows paths, and how often it was told each (its lookup counts).

Used by `kernel_names`. The kernel asks about nodes, `vfs` about paths. Each path has a node of its own, while
the inode number shown is the file's, the same under each of its paths. A path gets a new node where another
version of it is open (`open_nodes`): the old one then is retired, and remains until the kernel forgets it.

A million files may be known to the kernel: each costs here one place in a list and four bytes, the names
being those of the listings. So a node is the number of its folder and a place in that folder's list; a folder
of which nothing is known any more goes as a whole. Neither folders' numbers nor places are used twice for
different names, so no number ever means another path (NFS, generation 0).
Threading: any thread; one lock, held only briefly.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable

ROOT = 1
_PLACES = 24  # bits
_MASK = (1 << _PLACES) - 1
_INDEXED = 100_000  # names that are also held in dictionaries


class _Names:
    """The names in one folder that the kernel knows."""

    __slots__ = ("counts", "first", "index", "known", "names", "node", "path", "retired")

    def __init__(self, node: int, path: str, number: int) -> None:
        self.node = node
        self.path = path  # without a slash at its end
        self.first = number << _PLACES
        self.names: list[str] = []
        self.counts = array("I")
        self.known = 0  # names with a count
        self.index: dict[str, int] | None = None
        self.retired: dict[int, str] = {}  # names by place, which is "" in `names`


class NodeTable:
    """Nodes and paths of one mount."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_number: dict[int, _Names] = {}
        self._by_node: dict[int, _Names] = {}
        self._indexed: dict[int, _Names] = {}  # by node
        self._numbers = 0

    def __len__(self) -> int:
        """How many paths the kernel knows."""
        with self._lock:
            return sum(one.known for one in self._by_number.values())

    def path(self, node: int) -> str:
        """The path of a node.

        Raises:
            KeyError: the kernel knows none of this number.
        """
        if node == ROOT:
            return "/"
        folder, place = self._by_number[node >> _PLACES], node & _MASK
        return f"{folder.path}/{folder.names[place] or folder.retired[place]}"

    def parent_path(self, node: int) -> str:
        """The path of a folder, to put a slash and a name behind.

        Raises:
            KeyError: the kernel knows none of this number.
        """
        return "" if node == ROOT else self.path(node)

    def count(self, parent: int, name: str) -> int:
        """The node of a name that the kernel is told now."""
        return self.count_all(parent, (name,))[0]

    def count_all(self, parent: int, names: Iterable[str], start: int = 0) -> list[int]:
        """The nodes of names that the kernel is told now, all in one folder.

        Args:
            start: the place of the first name in the folder's listing.

        Raises:
            KeyError: the kernel does not know the folder.
        """
        path = self.parent_path(parent)
        with self._lock:
            folder = self._by_node.get(parent)
            if folder is None:
                self._numbers += 1
                folder = self._by_node[parent] = _Names(parent, path, self._numbers)
                self._by_number[self._numbers] = folder
            places = self._places(folder, names, start)
            counts = folder.counts
            for place in places:
                if not counts[place]:
                    folder.known += 1
                counts[place] += 1
            first = folder.first
        return [first + place for place in places]

    def _places(self, folder: _Names, names: Iterable[str], start: int) -> list[int]:
        known = folder.names
        places: list[int] = []
        place = start - 1
        all_passed = not start  # whether every known name was met, in order
        for name in names:
            # A listing comes in the same order each time: mostly the next place is the one.
            place += 1
            if place < len(known) and known[place] == name:
                pass
            elif all_passed and place == len(known) and folder.index is None:
                self._add(folder, name)
            else:
                all_passed = False
                found = self._index(folder).get(name)
                place = self._add(folder, name) if found is None else found
            places.append(place)
        return places

    @staticmethod
    def _add(folder: _Names, name: str) -> int:
        place = len(folder.names)
        folder.names.append(name)
        folder.counts.append(0)
        if folder.index is not None:
            folder.index[name] = place
        return place

    def _index(self, folder: _Names) -> dict[str, int]:
        if folder.index is None:
            folder.index = {name: place for place, name in enumerate(folder.names)}
            self._indexed[folder.node] = folder
            held = sum(len(one.names) for one in self._indexed.values())
            while held > _INDEXED and len(self._indexed) > 1:
                oldest = self._indexed.pop(next(iter(self._indexed)))
                oldest.index = None
                held -= len(oldest.names)
        return folder.index

    def retire(self, node: int) -> None:
        """Have this number stand for its path no more, which gets another one when it is next looked up."""
        with self._lock:
            folder, place = self._by_number.get(node >> _PLACES), node & _MASK
            if folder is None or not folder.names[place]:
                return
            name = folder.retired[place] = folder.names[place]
            folder.names[place] = ""
            if folder.index is not None:
                del folder.index[name]

    def forget(self, node: int, times: int) -> set[int]:
        """The kernel forgot a node as often as this; see `forget_all`."""
        return self.forget_all(((node, times),))

    def forget_all(self, forgotten: Iterable[tuple[int, int]]) -> set[int]:
        """The kernel forgot nodes, each as often as this; the folders in which it knows a name less."""
        fewer: set[int] = set()
        with self._lock:
            for node, times in forgotten:
                folder = self._by_number.get(node >> _PLACES)
                place = node & _MASK
                if folder is None or place >= len(folder.names) or not folder.counts[place]:
                    continue
                left = max(0, folder.counts[place] - times)
                folder.counts[place] = left
                if left:
                    continue
                if folder.retired.pop(place, None) is None:
                    fewer.add(folder.node)
                folder.known -= 1
                if not folder.known:
                    del self._by_number[node >> _PLACES]
                    del self._by_node[folder.node]
                    self._indexed.pop(folder.node, None)
        return fewer
