"""One file of the tree, copied to this machine: whole and checked under its name, or not at all.

Used by `copying.copier`.
The bytes go to a temporary name in the same folder, and the file is renamed once all of them are there. They
agree with the server's digest where it has one: what is read from its beginning is checked on its way
(`content`). What an interrupted copy left is continued if there is a digest, by which the whole is checked
here; else the cache has what was fetched.
Threading: any thread; two may copy the same file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from xnatfs.concurrency.waiting import interruptible
from xnatfs.disk import copy_part, md5_of, write_all
from xnatfs.errors import Cause, Failure
from xnatfs.tree.node import UnknownSize
from xnatfs.vfs import XATTR_PREFIX, Attributes, Opened, Vfs

PREFIX = ".xnatfs-"  # of temporary names
_PIECE_BYTES = 2**20
_CACHED_PIECE_BYTES = 8 * 2**20  # of what is whole in the cache
_WORTH_KEEPING_BYTES = 2**20
_CLOSE_DATES_S = 2.0  # what FAT keeps of a date


class State(Enum):
    """What became of a file."""

    FETCHED = "fetched"
    SAME = "same"  # it was here
    DIFFERS = "differs"  # another file of this name is here, and was left alone
    FAILED = "failed"
    WANTED = "would be fetched"  # of a dry run


@dataclass(frozen=True)
class Source:
    """A file of the tree, and where its copy goes.

    Attributes:
        twin: another name of its folder differs only in case, or in how it is encoded.
    """

    path: str
    target: Path
    attributes: Attributes
    twin: bool = False

    @property
    def size(self) -> int:
        """In bytes; 0 for a table that is not built yet, whose size nobody knows."""
        return 0 if isinstance(self.attributes.size, UnknownSize) else self.attributes.size


class LocalProblem(Exception):
    """This machine cannot have the copy; the text is the reason. `fatal` if it can have no other either."""

    def __init__(self, text: str, *, fatal: bool = False) -> None:
        super().__init__(text)
        self.fatal = fatal


@dataclass(frozen=True)
class Copying:
    """How files are copied.

    Attributes:
        overwrite: replace a file that differs.
        by_digest: a file that is here is the same only if its digest is, not by size and date; and what is
            written is summed once more.
        progress: called with the number of bytes that were added.
        stopped: whether to give up, with INTERRUPTED.
    """

    vfs: Vfs
    overwrite: bool = False
    by_digest: bool = False
    progress: Callable[[int], None] = lambda _: None
    stopped: Callable[[], bool] = lambda: False

    def announce(self, unit: list[Source]) -> None:
        """All of these will be copied that are not here. What has the size and date of its original is not
        announced, so that no zip is fetched for the few that are missing.
        """
        if len(unit) > 1:
            self.vfs.announce(source.path for source in unit if not _looks_alike(source))

    def look(self, source: Source) -> State:
        """What `copy` would find, without fetching anything.

        Raises:
            LocalProblem: a folder is in the way.
        """
        there = _there(source)
        if there is None:
            return State.WANTED
        if not isinstance(source.attributes.size, UnknownSize) and self._same(source, there):
            return State.SAME
        return State.WANTED if self.overwrite else State.DIFFERS

    def copy(self, source: Source) -> State:
        """Copy a file, unless it is here.

        Raises:
            Failure: it cannot be had from the server, or `stopped`.
            LocalProblem: it cannot be written here.
        """
        try:
            there = _there(source)
            known = not isinstance(source.attributes.size, UnknownSize)
            if there is not None and known:
                if self._same(source, there):
                    return State.SAME
                if not self.overwrite:
                    return State.DIFFERS
            with interruptible(self.stopped):
                opened = self.vfs.open(source.path)
                try:
                    if not known:  # it is built by now
                        source = replace(source, attributes=self.vfs.attributes(source.path))
                        if there is not None and self._same(source, there):
                            return State.SAME
                        if there is not None and not self.overwrite:
                            return State.DIFFERS
                    self._write(source, opened)
                finally:
                    self.vfs.release(opened.handle)
            return State.FETCHED
        except Failure:
            raise
        except OSError as error:
            raise _local(error, source.target) from error

    def _same(self, source: Source, there: os.stat_result) -> bool:
        if not stat.S_ISREG(there.st_mode) or there.st_size != source.attributes.size:
            return False
        dated = _is_dated(source, there)
        if dated and not self.by_digest:
            return True
        digest = self._digest(source.path)
        if not digest:
            return dated
        with source.target.open("rb") as file:
            if md5_of(file.fileno()) != digest:
                return False
        os.utime(source.target, (there.st_atime, source.attributes.mtime))
        return True

    def _digest(self, path: str) -> str:
        try:
            return self.vfs.xattr(path, f"{XATTR_PREFIX}digest").decode()
        except Failure as failure:
            if failure.cause is Cause.NO_ATTRIBUTE:
                return ""
            raise

    def _write(self, source: Source, opened: Opened) -> None:
        digest, size = opened.digest, opened.size
        version = f"{size} {source.attributes.mtime} {digest}"
        with _temporary(source, version, keep=bool(digest)) as (fd, place):
            begun = os.fstat(fd).st_size
            if not digest or begun > size:
                begun = 0
            # What is read from its beginning is checked on its way, before its last bytes are given.
            summed = begun > 0 or (self.by_digest and bool(digest))
            agrees = self._fill(fd, opened, begun, digest if summed else "")
            if not agrees and begun:
                self.progress(-size)
                agrees = self._fill(fd, opened, 0, digest)
            if not agrees:
                raise Failure(Cause.BAD_DIGEST, source.path)
            os.utime(fd, (source.attributes.mtime, source.attributes.mtime))
            place.replace(source.target)

    def _fill(self, fd: int, opened: Opened, begin: int, digest: str) -> bool:
        """Write what is missing from `begin` on; whether all of it has this MD5, if one is given."""
        handle, size = opened.handle, opened.size
        os.ftruncate(fd, begin)
        summed = hashlib.md5(usedforsecurity=False)
        position = 0
        while position < begin:
            piece = os.pread(fd, min(_PIECE_BYTES, begin - position), position)
            summed.update(piece)
            position += len(piece)
        self.progress(begin)
        while position < size:
            if self.stopped():
                raise Failure(Cause.INTERRUPTED)
            if not digest and (cached := self.vfs.descriptor(handle, position, _CACHED_PIECE_BYTES)):
                # By the kernel, and without the interpreter's lock, which all threads of this process need.
                count = copy_part(cached[0], fd, position, cached[1])
            else:
                piece = self.vfs.read(handle, position, min(_PIECE_BYTES, size - position))
                if digest:
                    summed.update(piece)
                count = write_all(fd, piece, position) - position
            if not count:
                raise Failure(Cause.CUT_SHORT)
            position += count
            self.progress(count)
        return not digest or summed.hexdigest() == digest


@contextlib.contextmanager
def _temporary(source: Source, version: str, *, keep: bool) -> Iterator[tuple[int, Path]]:
    """An open file that nobody else writes, what an earlier copy left of this version in it, and its name.

    Args:
        keep: what is written is left for the next copy, if this one does not come to its end.
    """
    place = source.target.parent / (PREFIX + _short(source.target.name) + _short(version))
    fd = _locked(place)
    if fd is None:
        place = place.with_name(f"{place.name}-{os.getpid()}")
        fd = _locked(place)
    if fd is None:
        raise LocalProblem("it is being written by another program")
    try:
        yield fd, place
    except BaseException as error:
        unfit = isinstance(error, Failure) and error.cause is Cause.BAD_DIGEST
        if not keep or unfit or os.fstat(fd).st_size < _WORTH_KEEPING_BYTES:
            with contextlib.suppress(OSError):
                place.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _locked(place: Path) -> int | None:
    while True:
        fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError:
            pass  # a file system without locks
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), place.stat()):
                return fd
        os.close(fd)  # it was renamed by whoever wrote it: begin with one of our own


def discard(place: Path) -> None:
    """Remove a temporary file, unless somebody is writing it."""
    with contextlib.suppress(OSError):
        if place.exists() and (fd := _locked(place)) is not None:
            place.unlink()
            os.close(fd)


def _looks_alike(source: Source) -> bool:
    """Whether a file of its size and date is here."""
    try:
        there = os.stat(source.target)
    except OSError:
        return False
    return there.st_size == source.size and _is_dated(source, there)


def _is_dated(source: Source, there: os.stat_result) -> bool:
    return abs(there.st_mtime - source.attributes.mtime) < _CLOSE_DATES_S


def _there(source: Source) -> os.stat_result | None:
    target = source.target
    try:
        status = target.stat()
    except FileNotFoundError:
        if target.is_symlink():
            raise LocalProblem("a link that leads nowhere is in the way") from None
        return None
    except OSError as error:
        raise _local(error, target) from error
    if stat.S_ISDIR(status.st_mode):
        raise LocalProblem("a folder of this name is in the way")
    if source.twin and target.name not in os.listdir(target.parent):
        raise LocalProblem("the disk cannot hold it beside a file whose name differs only in case")
    return status


def _local(error: OSError, target: Path) -> LocalProblem:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LocalProblem(f"{target.parent}: {error.strerror}", fatal=True)
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
        return LocalProblem(f"the disk cannot hold a file of this name ({error.strerror})")
    return LocalProblem(f"it cannot be written: {error.strerror}")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
