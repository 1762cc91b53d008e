"""Fetching a file whole: checked before its first byte is served, again where that can cure what went wrong.

Used by `content.manager`, which runs it in a worker. What is checked, and when (design.md 4.4): files up to 8
MiB by their MD5 before the first byte is served; larger ones by their MD5 as they are read (`whole_file`);
files without a digest by their size. A digest that is wrong twice over the same bytes is the catalog's error,
and so is a size where the server tells no length. With a shared tier it is looked for there first.
Threading: one worker a transfer; what its readers see is the `WholeFile`.
"""

from __future__ import annotations

import hashlib
import logging
import time

from xnatfs import retry
from xnatfs.content.context import TransferContext
from xnatfs.content.shared_content import SharedClaim
from xnatfs.content.stream_tuner import StreamMeter
from xnatfs.content.whole_file import WholeFile
from xnatfs.errors import Cause, Failure
from xnatfs.server.downloads import NOT_IN_ZIP, Stream, only_in_zip
from xnatfs.server.records import FileRecord

log = logging.getLogger(__name__)

_SLACK = 64 * 2**20  # bytes that an object of the shared tier may have more than twice what is listed


class Transfer:
    """One file being fetched.

    Args:
        size: as the catalog (or what was learnt) says.
        entries: in the catalogue of its resource.
    """

    def __init__(self, context: TransferContext, record: FileRecord, size: int, entries: int) -> None:
        self._context = context
        self._entries = entries
        self._expected = size
        self._record = record
        self._claim = SharedClaim()  # in the shared tier
        self.file = WholeFile(context, record, size)

    def run(self) -> None:
        """Fetch, check, keep; whatever fails is left in the file's `failure`. Nothing if all who wanted it
        have gone meanwhile.
        """
        if self.file.close_if_unused():
            return
        try:
            if not self._taken():
                self._fetch()
        except Failure as failure:
            self.file.fail(failure)
        except BaseException as error:
            log.exception("the transfer of %s failed unexpectedly", self._record.path)
            self.file.fail(Failure(Cause.SERVER_ERROR, self._record.uri, repr(error)))
        finally:
            self._claim.close()
            self.file.close_if_unused()

    def _taken(self) -> bool:
        """Whether it came from the shared tier; waits while another machine is fetching it."""
        context, file = self._context, self.file
        if context.shared is None:
            return False

        def progress() -> None:
            context.progress += 1

        self._claim = context.shared.claim(
            self._record, lambda: file.readers > 0 and not context.workers.closed, progress
        )
        if self._claim.found is None:
            return False
        buffer, digest = file.buffer, hashlib.md5(usedforsecurity=False)
        try:
            buffer.begin(self._record.size, file.size)
            for piece in self._claim.found.pieces:
                buffer.write(piece, file.size)
                digest.update(piece)
                progress()
                if buffer.written > 2 * self._record.size + _SLACK:
                    break  # which no wrong size in a catalog is
        except Failure:
            raise  # of the cache
        except Exception as error:  # of the tier's store
            log.info("%s could not be had from the shared cache: %s", self._record.uri, error)
            return False
        if digest.hexdigest() != self._record.digest:
            context.shared.tampered(self._record)
            return False
        file.size = buffer.written
        context.shared.came(buffer.written)
        self._keep("md5", mixed=False)
        return True

    def _fetch(self) -> None:
        """Again where that can cure what went wrong."""
        record, file = self._record, self.file
        with retry.Attempts(retry.CONTENTS) as attempts:
            wrong_md5 = served_md5 = ""
            while True:
                try:
                    md5 = self._receive()
                except Failure as failure:
                    if not attempts.may_cure(failure) or not file.still_wanted():
                        raise
                    log.info("%s: %s; fetching it again", record.uri, failure)
                    attempts.pause()
                    continue
                if file.available:
                    served_md5 = served_md5 or md5
                mixed = served_md5 not in ("", md5)
                if record.digest:
                    if md5 == record.digest:
                        self._keep("md5", mixed=mixed)
                        self._claim.publish()
                        return
                    if md5 == wrong_md5:
                        self._keep(self._context.digests.wrong_twice(record, md5), mixed=mixed)
                        return
                    detail = f"it came as {md5}, the catalog says {record.digest}"
                    problem = Failure(Cause.BAD_DIGEST, record.uri, detail)
                # A chunked answer that a proxy ends early looks whole, and so does one with a wrong
                # Content-Length; only what was expected tells. Twice alike it is the catalog's error.
                elif file.size == self._expected or md5 == wrong_md5:
                    self._keep("size", mixed=mixed)
                    return
                else:
                    detail = f"it came with {file.size} bytes, {self._expected} were expected"
                    problem = Failure(Cause.CUT_SHORT, record.uri, detail)
                log.log(logging.WARNING if record.digest else logging.INFO, "%s; fetching it again", problem)
                if not attempts.again(problem):
                    raise problem
                wrong_md5 = md5

    def _receive(self) -> str:
        """One download of the whole file into its buffer, by itself or from the resource's zip; returns its
        MD5.
        """
        if not only_in_zip(self._record.path):
            return self._receive_alone()
        try:
            with retry.Attempts(retry.REFUSABLE):
                return self._receive_alone()
        except Failure as failure:
            if failure.status in (400, 403, 404, 500):
                return self._receive_from_zip()
            raise

    def _receive_alone(self) -> str:
        activity = self.file.activity
        asked = activity.asked()
        with self._context.contents.file(self._record, activity.scope) as stream:
            self._context.link.answered(time.monotonic() - asked, self._entries)
            with self._context.stream() as meter:
                return self._fill(stream, meter)

    def _receive_from_zip(self) -> str:
        found: str | None = None
        context, activity = self._context, self.file.activity
        with context.contents.zip(self._record, activity.scope) as members, context.stream() as meter:
            for path, size, pieces in members:
                if path == self._record.path and found is None:
                    found = self._fill(Stream(size, "", pieces), meter)
                else:
                    for _ in pieces:  # the stream has to be read past it
                        activity.pieces += 1
                        context.progress += 1
        if found is None:
            raise Failure(Cause.GONE, self._record.uri, NOT_IN_ZIP, 404)
        context.refuses_names = True  # the next one of such a name comes with all its neighbours
        return found

    def _fill(self, stream: Stream, meter: StreamMeter) -> str:
        file, buffer, uri = self.file, self.file.buffer, self._record.uri
        buffer.begin(stream.size, file.size)
        large = file.begin(stream.size, stream.last_modified)
        digest = hashlib.md5(usedforsecurity=False)
        for piece in stream.pieces:
            buffer.write(piece, file.size)
            digest.update(piece)
            file.activity.received()
            self._context.received(len(piece), meter)
            self._claim.moved()
            if self._context.workers.closed:
                raise Failure(Cause.INTERRUPTED, uri, "the mount is ending")
            if large:
                if not self._claim.held and not file.still_wanted():
                    raise Failure(Cause.INTERRUPTED, uri, "no reader is left")
                file.advance()
        if stream.size is not None and buffer.written != stream.size:
            raise Failure(Cause.CUT_SHORT, uri, f"{buffer.written} of {stream.size} bytes")
        file.size = buffer.written
        return digest.hexdigest()

    def _keep(self, verified: str, *, mixed: bool) -> None:
        """Keep the content and let its readers have it; `mixed` if they already read a part of other bytes
        than these.
        """
        self._context.sizes.learn(self._record, self.file.size)
        self.file.buffer.commit(self.file.last_modified, verified, reopen=not mixed)
        if mixed:
            raise Failure(Cause.CHANGED, self._record.uri, "the bytes read first had been damaged in transit")
        self.file.complete()
