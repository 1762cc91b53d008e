"""When files changed, as far as this machine saw it: the mtime of a file that is no longer what it first was.

Used by `listing.service`, which compares a new file listing with the one before it, and by
`content.revalidation`, which finds contents overwritten behind an unchanged listing; read by the tree. XNAT
tells no time of change for a file (its listings have none, and `Last-Modified` costs a request each), so: the
date of insertion of its session until a change is seen, then the `last_modified` that came with the change
(design.md 4.5). Kept in the state directory, not in the cache: `rsync` after `cache clear` must find the same
times.
Threading: any thread; maps are only ever added to.
"""

from __future__ import annotations

import time

from xnatfs.cache.corrections import Corrections
from xnatfs.listing.snapshot import FileIndex
from xnatfs.server.records import FileRecord, parse_stamp

_KIND = "mtime"
_NONE: dict[str, float] = {}


class MtimeHistory:
    """The times of change, in seconds since the epoch, by numeric resource id and path.

    Attributes:
        changes: rises with each.
    """

    def __init__(self, learnt: Corrections) -> None:
        self.changes = 0
        self._learnt = learnt
        self._times: dict[int, dict[str, float]] = {}
        for key, value in learnt.of(_KIND).items():
            number, _, path = key.partition(":")
            self._times.setdefault(int(number), {})[path] = float(value)

    def of(self, resource_id: int) -> dict[str, float]:
        """The files of a resource that changed; not to be changed by the caller, and growing."""
        return self._times.get(resource_id) or _NONE

    def compare(self, before: FileIndex, after: FileIndex, old_stamp: str, new_stamp: str) -> int:
        """Note every file that has another size or digest than before; how many there were.

        A stamp that did not move with the change says nothing about it (xnat-rest.md 5): then it is the time
        of the discovery.
        """
        stamped = parse_stamp(new_stamp) if new_stamp != old_stamp else None
        count = 0
        for number, files in after.by_resource.items():
            old = before.by_resource.get(number)
            if old is None or old == files:
                continue
            known = {file.path: file for file in old}
            for file in files:
                if _differ(known.get(file.path), file):
                    self._note(file, stamped)
                    count += 1
        return count

    def overwritten(self, record: FileRecord) -> None:
        """The content was found changed although the listing says nothing of it."""
        self._note(record, None)

    def _note(self, file: FileRecord, stamped: float | None) -> None:
        times = self._times.setdefault(file.resource_id, {})
        when = float(int(time.time())) if stamped is None else stamped
        times[file.path] = max(when, times.get(file.path, 0.0) + 1.0)  # two changes never look like one
        self.changes += 1
        self._learnt.put(_KIND, f"{file.resource_id}:{file.path}", repr(times[file.path]))


def _differ(old: FileRecord | None, new: FileRecord) -> bool:
    """Whether the content is another one. A digest that appears or goes is only a catalog that was
    refreshed.
    """
    return old is not None and (
        old.size != new.size or (old.digest != new.digest and "" not in (old.digest, new.digest))
    )
