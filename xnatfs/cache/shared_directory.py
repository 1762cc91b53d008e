"""The shared tier in a folder that all machines see: Lustre, GPFS, NFS.

Made by `shared_place.open_tier`. An object is written under `drafts/`, and renamed once it is whole. Who may
read it is whoever may read the folder: objects have its mode. Clocks are not compared, since each machine has
its own: a lease that does not change for a while is dead.
Threading: any thread; no state.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from xnatfs.cache.shared_tier import StoredObject, object_path, relative
from xnatfs.config import make_folder
from xnatfs.disk import write_all
from xnatfs.errors import UsageError

LISTINGS = "listings"
PARTS = ("objects", "leases", "drafts", LISTINGS)
_PIECE_BYTES = 2**20
_DAY_S = 86400.0
_README = """Files that xnatfs shares between the machines of a cluster (mount --shared-cache): objects/ has
their contents, named by MD5 and size, listings/ what each user's machines have listed, for that user alone.
Anything in here may be deleted at any time; the date of an object is, to the day, that of its last use:

    find objects -type f -mtime +30 -delete
"""


class SharedDirectory:
    """A folder as a shared tier; made if it is missing, for this user alone.

    Raises:
        UsageError: it cannot be used, or everybody could read it.
    """

    def __init__(self, where: str) -> None:
        self._folder = folder = Path(where).expanduser().absolute()
        self.name = str(folder)
        try:
            make_folder(folder)
            mode = folder.stat().st_mode
            if not stat.S_ISDIR(mode):
                raise UsageError(f"{folder} cannot be the shared cache: it is not a folder")
            if mode & (stat.S_IROTH | stat.S_IXOTH):
                raise UsageError(
                    f"{folder}, the shared cache, is open to every user, who could read what is stored "
                    f"there; run `chmod o-rwx` on it"
                )
            self._mode = stat.S_IMODE(mode)
            self._file_mode = self._mode & 0o440 | 0o400
            for part in PARTS:
                self._make(folder / part)
                if not os.access(folder / part, os.W_OK | os.X_OK):
                    raise UsageError(f"you cannot write in {folder / part}, which the shared cache requires")
        except OSError as error:
            raise UsageError(f"{folder} cannot be the shared cache: {error.strerror}") from None
        self._sweep()

    def has(self, key: str) -> bool:
        """See `SharedTier`."""
        return (self._folder / object_path(key)).exists()

    def open(self, key: str, *, fresh: bool = False) -> StoredObject | None:
        """See `SharedTier`."""
        path = self._folder / object_path(key)
        if fresh:
            # An NFS client remembers for half a minute that there was none, unless the folder has changed.
            with contextlib.suppress(OSError):
                os.utime(path.parent)
        try:
            # What others of the group put there may be a pipe: that is not waited for.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with contextlib.suppress(OSError):  # another's object, or a disk that is read-only
            if time.time() - os.fstat(fd).st_mtime > _DAY_S:
                os.utime(fd)
        return StoredObject(_pieces(fd))

    def many(self, keys: Iterable[str]) -> Iterator[tuple[str, StoredObject]]:
        """See `SharedTier`."""
        for key in keys:
            found = self.open(key)
            if found is not None:
                yield key, found

    def put(self, key: str, fd: int, size: int) -> None:
        """See `SharedTier`."""
        path = self._folder / object_path(key)
        draft = self._folder / "drafts" / uuid.uuid4().hex
        self._make(path.parent)
        to = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                position = 0
                while position < size:
                    piece = os.pread(fd, min(_PIECE_BYTES, size - position), position)
                    if not piece:
                        raise OSError(0, "it is shorter than it was", str(path))
                    position = write_all(to, piece, position)
                os.fchmod(to, self._file_mode)
            finally:
                os.close(to)
            os.rename(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise

    def remove(self, key: str) -> None:
        """See `SharedTier`."""
        (self._folder / object_path(key)).unlink(missing_ok=True)

    def claim(self, name: str, holder: str) -> bool:
        """See `SharedTier`."""
        try:
            fd = os.open(self._lease(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return False
        try:
            os.fchmod(fd, self._mode & 0o660 | 0o600)
            os.write(fd, holder.encode())
        finally:
            os.close(fd)
        return True

    def lease(self, name: str) -> str:
        """See `SharedTier`."""
        try:
            found = os.stat(self._lease(name))
        except FileNotFoundError:
            return ""
        return f"{found.st_ino} {found.st_mtime_ns}"

    def holder(self, name: str) -> str:
        """See `SharedTier`."""
        try:
            return self._lease(name).read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return ""

    def renew(self, name: str, holder: str) -> None:
        """See `SharedTier`."""
        os.utime(self._lease(name))

    def ages(self, begin: str) -> dict[str, float]:
        """See `SharedTier`."""
        renewed: dict[str, float] = {}
        for entry in os.scandir(self._folder / "leases"):
            if entry.name.startswith(begin):
                with contextlib.suppress(FileNotFoundError):
                    renewed[entry.name] = entry.stat().st_mtime
        return relative(renewed)

    def release(self, name: str, holder: str) -> None:
        """See `SharedTier`."""
        if self.holder(name) == holder:
            self._lease(name).unlink(missing_ok=True)

    def bury(self, name: str, state: str) -> None:
        """See `SharedTier`. Several may do it at once, and the first of them leave a lease of its own."""
        path, aside = self._lease(name), self._folder / "drafts" / uuid.uuid4().hex
        if self.lease(name) != state:
            return
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, aside)
            found = aside.stat()
            if f"{found.st_ino} {found.st_mtime_ns}" != state:
                with contextlib.suppress(FileExistsError):
                    os.link(aside, path)
            aside.unlink()

    def _lease(self, name: str) -> Path:
        return self._folder / "leases" / name

    def _make(self, folder: Path) -> None:
        """A folder in it, with its mode (and, where that says so, its group)."""
        if not folder.exists():
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                folder.chmod(self._mode)

    def _sweep(self) -> None:
        """Remove what machines that died left, and say what this is."""
        with contextlib.suppress(OSError):
            for part in ("drafts", "leases"):
                for entry in os.scandir(self._folder / part):
                    with contextlib.suppress(OSError):
                        if time.time() - entry.stat().st_mtime > _DAY_S:
                            os.unlink(entry.path)
        with contextlib.suppress(OSError), open(self._folder / "README.txt", "x", encoding="ascii") as readme:
            readme.write(_README)
            os.fchmod(readme.fileno(), self._file_mode)


def _pieces(fd: int) -> Iterator[bytes]:
    try:
        while piece := os.read(fd, _PIECE_BYTES):
            yield piece
    finally:
        os.close(fd)
