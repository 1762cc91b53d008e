"""Where the catalog and the bytes disagree: true sizes, and what is done about a digest that does not agree.

Used by `content.manager` and, through `TransferContext`, by all ways of fetching. The catalog's size and
digest can be wrong: the first answer corrects the size (kept in `Corrections`), and a digest that is wrong
twice over the same bytes is the catalog's error.
Threading: any thread, without a lock: each map is read and changed by single operations.
"""

from __future__ import annotations

import hashlib
import logging
import time

from xnatfs.cache.corrections import Corrections
from xnatfs.diagnostics import Diagnostics
from xnatfs.errors import Cause, Failure
from xnatfs.server.records import FileRecord

log = logging.getLogger(__name__)

# For so long a file with a wrong catalog digest is refused without fetching it again.
_REMEMBER_BAD_DIGEST_S = 600.0


def identity(record: FileRecord) -> str:
    """One file as one version of the catalog describes it: what is learnt holds until the catalog says
    something else.
    """
    return f"{record.resource_id}:{record.size}:{record.digest}:{record.path}"


class SizeCorrections:
    """The sizes of files, as true as they are known.

    Attributes:
        changes: rises whenever `of` may give another size for a file.
    """

    def __init__(self, learnt: Corrections) -> None:
        self.changes = 0
        self._learnt = learnt
        self._announced: dict[str, int] = {}
        self._any = bool(learnt.of("size"))  # whether any size differs from the catalog's

    def of(self, record: FileRecord) -> int:
        """The size in bytes: the catalog's, or the one learnt from the file itself."""
        if not self._any:  # nearly always; asked for every entry of every folder
            return record.size
        name = identity(record)
        announced = self._announced.get(name)
        if announced is not None:
            return announced
        learnt = self._learnt.get("size", name)
        return record.size if learnt is None else int(learnt)

    def announce(self, record: FileRecord, size: int) -> None:
        """An answer told this size; a whole, checked file has yet to prove it."""
        if size != record.size:
            self._any = True
        if self.of(record) != size:
            self.changes += 1
        self._announced[identity(record)] = size

    def forget_announced(self, record: FileRecord) -> None:
        """Nothing of this file is on its way any more."""
        announced = self._announced.pop(identity(record), None)
        if announced is not None and announced != self.of(record):
            self.changes += 1

    def learn(self, record: FileRecord, size: int) -> None:
        """A whole file has this size."""
        name = identity(record)
        if size != record.size and self._learnt.get("size", name) != str(size):
            log.info("%s has %d bytes, the catalog says %d", record.uri, size, record.size)
            self._any = True
            self.changes += 1
            self._learnt.put("size", name, str(size))


class DigestPolicy:
    """What becomes of a file whose MD5 is not the catalog's.

    Args:
        serve_bad: serve a file although the catalog's digest of it is wrong.
    """

    def __init__(
        self, learnt: Corrections, sizes: SizeCorrections, diagnostics: Diagnostics, *, serve_bad: bool
    ) -> None:
        self._learnt = learnt
        self._sizes = sizes
        self._diagnostics = diagnostics
        self._serve_bad = serve_bad
        self._suspects: dict[str, str] = {}  # MD5s of large files that differed from the catalog's once

    def key(self, record: FileRecord) -> str:
        """What names this version of this file in the cache: its digest where the catalog has one, else what
        the catalog says of it.
        """
        if record.digest and not self._learnt.get("bad digest", identity(record)):
            return f"{record.digest}-{record.size}"
        return hashlib.sha256(
            f"{record.resource_id}\0{record.size}\0{record.digest}\0{record.path}".encode(
                "utf-8", "surrogatepass"
            )
        ).hexdigest()

    def refuse_known_bad(self, record: FileRecord) -> None:
        """Nothing, unless the catalog's digest was found to be wrong a short time ago.

        Raises:
            Failure: BAD_DIGEST.
        """
        bad = self._learnt.get("bad digest", identity(record))
        if bad and not self._serve_bad and time.time() - float(bad.split()[1]) < _REMEMBER_BAD_DIGEST_S:
            raise Failure(
                Cause.BAD_DIGEST, record.uri, f"it is {bad.split()[0]}, the catalog says {record.digest}"
            )

    def wrong_twice(self, record: FileRecord, md5: str) -> str:
        """The same wrong MD5 twice, which is the catalog's error: how to keep the file.

        Raises:
            Failure: BAD_DIGEST if it must not be served.
        """
        self._learnt.put("bad digest", identity(record), f"{md5} {time.time():.0f}")
        if not self._serve_bad:
            raise Failure(Cause.BAD_DIGEST, record.uri, f"it is {md5}, the catalog says {record.digest}")
        return "bad digest"

    def check_served(self, record: FileRecord, size: int, md5: str) -> str:
        """How to keep a large file with this size and MD5, of which a part was served before it was whole.

        Raises:
            Failure: BAD_DIGEST if it must not be served.
        """
        if not record.digest or md5 == record.digest:
            self._sizes.learn(record, size)
            self._suspects.pop(identity(record), None)
            return "md5" if record.digest else "size"
        if self._suspects.get(identity(record)) == md5:
            self._sizes.learn(record, size)
            return self.wrong_twice(record, md5)
        # Part of it has been served: its readers must learn of it. The next one gets it fetched anew.
        self._suspects[identity(record)] = md5
        failure = Failure(Cause.BAD_DIGEST, record.uri, f"it came as {md5}, the catalog says {record.digest}")
        self._diagnostics.failed(failure)
        raise failure
