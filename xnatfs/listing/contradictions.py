"""Where two listings name one resource differently, the object itself is asked which is right.

Used by `listing.files`, which has both at hand: the resource as a listing of the project or of its session
names it, and the rows of its files, which name it too. No request where they agree. Where they do not, the
resources of the one object it hangs on are listed (a third form), and that decides: a line in `oddities` says
so, and a name that is wrong is never shown on.
Threading: any thread; one lock guards the maps, never held over I/O.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from cachetools import LRUCache

from xnatfs.diagnostics import Diagnostics
from xnatfs.errors import Cause, Failure
from xnatfs.listing.snapshot import same_owner
from xnatfs.server.records import FileRecord, Owner, ResourceRecord

_REMEMBERED = 4096  # resources in doubt
_Evidence = tuple[int, Owner, str, Owner, str]


class Contradictions:
    """The doubts about one server's resources.

    Args:
        ask: lists the resources of one object.

    Attributes:
        changes: rises whenever something is found to be otherwise than it was listed, or is again as listed.
    """

    def __init__(self, diagnostics: Diagnostics, ask: Callable[[Owner], list[ResourceRecord]]) -> None:
        self.changes = 0
        self._diagnostics = diagnostics
        self._ask = ask
        self._lock = threading.Lock()
        self._verdicts: LRUCache[_Evidence, bool] = LRUCache(_REMEMBERED)
        self._right: dict[str, dict[int, ResourceRecord]] = {}  # by session or subject: as it was asked for

    def stands(self, resource: ResourceRecord, files: list[FileRecord]) -> bool:
        """Whether a resource is what its listing says although its files may say otherwise.

        Raises:
            Failure: what keeps the server from answering, where they differ.
        """
        if resource.id is None or not files:
            return True
        owner, label = files[0].owner, files[0].resource_label
        same_label = label in ("", resource.label)  # not every server tells it with the files
        if same_label and same_owner(owner, resource.owner):
            return True
        evidence = (resource.id, resource.owner, resource.label, owner, label)
        with self._lock:
            verdict = self._verdicts.get(evidence)
        if verdict is None:
            verdict = self._settle(resource, owner, label)
            with self._lock:
                self._verdicts[evidence] = verdict
        return verdict

    def corrected(self, whose: str) -> dict[int, ResourceRecord]:
        """The resources of a session or subject that had to be asked for singly, as they are, by number."""
        with self._lock:
            return dict(self._right.get(whose, {}))

    def settled(self, whose: str, resources: Iterable[ResourceRecord]) -> bool:
        """Whether a session's or subject's resources, just listed, are as they were found to be singly: then
        that is over.
        """
        listed = {one.id: (one.owner[:3], one.label) for one in resources}
        with self._lock:
            right = self._right.get(whose, {})
            if any(listed.get(number) != (one.owner[:3], one.label) for number, one in right.items()):
                return False
            self.changes += self._right.pop(whose, None) is not None
        return True

    def refresh(self) -> None:
        """Ask again about everything."""
        with self._lock:
            self.changes += bool(self._right)
            self._verdicts.clear()
            self._right.clear()

    def _settle(self, resource: ResourceRecord, owner: Owner, label: str) -> bool:
        found = self._asked(resource.owner, resource.id)
        stands = found is not None and found.label == resource.label
        said = f"resource {resource.id} is {resource.label!r} of {_name(resource.owner)} in one listing"
        if stands:
            self._diagnostics.odd(f"{said}; its files are listed as those of {label!r} of {_name(owner)}")
            return True
        if found is None and not same_owner(owner, resource.owner):
            found = self._asked(owner, resource.id)
        self._diagnostics.odd(
            f"{said}; asked for singly it is "
            + (f"{found.label!r} of {_name(found.owner)}" if found is not None else "not there")
        )
        if found is not None and resource.id is not None:
            with self._lock:
                self.changes += 1
                self._right.setdefault(_whose(resource.owner), {})[resource.id] = found
        return False

    def _asked(self, owner: Owner, number: int | None) -> ResourceRecord | None:
        try:
            return {one.id: one for one in self._ask(owner)}.get(number)
        except Failure as failure:
            # There may be no object of this id, which is why its listing is in doubt.
            if failure.away or failure.cause is not Cause.UNPROVEN:
                raise
            return None


def _whose(owner: Owner) -> str:
    return owner.part if owner.level == "assessor" else owner.id


def _name(owner: Owner) -> str:
    return owner.uri.removeprefix("/data/")
