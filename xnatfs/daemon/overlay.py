"""A writable layer over the read-only mount: `mount --overlay DIR`. The server is never changed.

The read-only mount goes to a private folder, an overlay of DIR/upper over it to the mountpoint; then the
private mount is detached, so that only the overlay keeps it alive. Unmounting the overlay ends everything in
the right order, with and without the daemon, and no path leads into a second mount of the server. The overlay
is the kernel's where root mounts, otherwise the program fuse-overlayfs.

Used by `run` (which mounts) and by the commands (which look up and clean up).
Threading: `Overlay` is claimed by the command's thread, mounted by one thread of the daemon, ended by any.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import logging
import os
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xnatfs.config import make_folder, private_folder, state_home
from xnatfs.daemon import mount_registry, mount_table
from xnatfs.errors import UsageError

log = logging.getLogger(__name__)

KERNEL, PROGRAM = "kernel", "fuse-overlayfs"
FORCE = "XNATFS_OVERLAY"  # one of the two; for tests and experts
_TYPES = {"overlay": KERNEL, "fuse.fuse-overlayfs": PROGRAM}
_NOTEBOOK = "overlay.json"  # in DIR: how its layer was made; also the lock against a second user
_OPAQUE = (".wh..opq", ".wh..wh..opq")  # mark a folder that hides the server's
_INSTALL = "install the package fuse-overlayfs"
_START = 30.0  # seconds for fuse-overlayfs to start
_LOOK = 5.0  # seconds between checks for changes on the server
# seconds to wait for the users of an overlay just unmounted: fuse-overlayfs, the last reader, the kernel's
# cleanup
_LETS_GO = 5.0
_MS_NOSUID, _MS_NODEV, _MS_REMOUNT = 2, 4, 32
_CAP_SYS_ADMIN = 21
# redirect_dir: a folder of the server is renamed without fetching its contents. The other options are for
# layers that can be exported or never change; this lower layer changes.
_KERNEL_OPTIONS = "redirect_dir=on,index=off,metacopy=off,xino=off,nfs_export=off"
# writeback=0: written data is in DIR even if fuse-overlayfs then dies. timeout=0: with any other value
# nothing new on the server shows (measured with 1.10).
_PROGRAM_OPTIONS = "writeback=0,timeout=0"

_libc = ctypes.CDLL(None, use_errno=True)


# --- what this machine supports -----------------------------------------------------------------------------


def kinds() -> list[str]:
    """The kinds of overlay that this user can mount on this machine, the better one first."""
    found = [KERNEL] if _may_mount() else []
    found += [PROGRAM] if shutil.which(PROGRAM) else []
    forced = os.environ.get(FORCE)
    return [kind for kind in found if forced in (None, "", kind)]


def what_lacks() -> str:
    """What to do if `kinds` is empty."""
    forced = os.environ.get(FORCE)
    return (
        f"{FORCE}={forced} is not possible here"
        if forced
        else f"an overlay needs fuse-overlayfs (or root); {_INSTALL}"
    )


def _may_mount() -> bool:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        capable = int(next(line.split()[1] for line in lines if line.startswith("CapEff:")), 16)
        known = (
            "\toverlay\n" in Path("/proc/filesystems").read_text(encoding="ascii")
            or shutil.which("modprobe") is not None
        )
        return os.geteuid() == 0 and bool(capable >> _CAP_SYS_ADMIN & 1) and known
    return False


# --- persistent records -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OverlayRecord:
    """An overlay at a mountpoint, until it is cleaned up: it outlives a daemon that was killed."""

    mountpoint: str
    directory: str
    kind: str
    lower: str


def record(mountpoint: str) -> OverlayRecord | None:
    """The overlay that was mounted at a mountpoint."""
    try:
        return OverlayRecord(**json.loads(_record_path(mountpoint).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def is_ours(entry: mount_table.MountEntry) -> bool:
    """Whether an entry is a mount of xnatfs."""
    if entry.kind == "fuse.xnatfs":
        return True
    known = record(entry.mountpoint)
    return known is not None and known.kind == _TYPES.get(entry.kind)


def clear(mountpoint: str) -> None:
    """Remove what a killed daemon left besides its overlay: the private mount, the record. The overlay itself
    is already gone.
    """
    known = record(mountpoint)
    if known is not None:
        _clear_lower(known.lower)
        _record_path(mountpoint).unlink(missing_ok=True)


def _clear_lower(lower: str) -> None:
    if mount_table.at(lower) is not None:
        mount_table.unmount(lower, lazy=True)
    with contextlib.suppress(OSError):
        os.rmdir(lower)


def _record_path(mountpoint: str) -> Path:
    return private_folder(state_home() / "overlays") / f"{mount_registry.name_of(mountpoint)}.json"


# --- what is in the upper layer -----------------------------------------------------------------------------


def contents(directory: str) -> dict[str, Any]:
    """The user's changes: files written, their bytes, names deleted. Reads names and sizes only."""
    files = size = deleted = 0
    todo = [os.path.join(directory, "upper")]
    while todo:
        try:
            with os.scandir(todo.pop()) as found:
                for entry in found:
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        todo.append(entry.path)
                    elif entry.name.startswith(".wh.") or (
                        stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
                    ):
                        deleted += entry.name not in _OPAQUE
                    else:
                        files += 1
                        size += status.st_size
        except OSError:
            continue  # removed meanwhile
    return {"directory": directory, "files": files, "bytes": size, "deleted": deleted}


# --- claiming a folder --------------------------------------------------------------------------------------


def claim(directory: str, place: str, server: str, cache_dir: Path, *, allow_other: bool = False) -> Overlay:
    """Check that DIR can be the upper layer of a mount of this server at this place, and keep others from
    using it.

    Raises:
        UsageError: it cannot; the text says why. Nothing was changed, except that DIR may have been created.
    """
    possible = kinds()
    if not possible:
        raise UsageError(what_lacks())
    path = Path(os.path.realpath(os.path.expanduser(directory)))
    _check_place(path, place, cache_dir)
    try:
        make_folder(path)
        filled = set(os.listdir(path))
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{path} is not a folder") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be the upper layer of an overlay: {error.strerror}") from None
    if filled and _NOTEBOOK not in filled:
        raise UsageError(
            f"{path} is not empty and was not created by `xnatfs mount --overlay`; name a new folder"
        )
    lock = _lock(path)
    try:
        noted = _noted(path)
        if noted.get("server", server) != server:
            raise UsageError(
                f"{path} has changes made over {noted['server']}; name another folder for {server}"
            )
        kind = _choose(path, possible, noted.get("kind"))
        for name in ("upper", "work"):
            (path / name).mkdir(mode=0o700, exist_ok=True)
        # The overlay's top folder has this mode. Otherwise the kernel's overlay would let every user read
        # with the rights of the user who mounted it.
        (path / "upper").chmod(0o755 if allow_other else 0o700)
        (path / _NOTEBOOK).write_text(json.dumps({"server": server, "kind": kind}) + "\n", encoding="utf-8")
    except OSError as error:
        os.close(lock)
        raise UsageError(f"{path} cannot be the upper layer of an overlay: {error.strerror}") from None
    except UsageError:
        os.close(lock)
        raise
    return Overlay(path, place, kind, lock, allow_other)


def _check_place(path: Path, place: str, cache_dir: Path) -> None:
    point = Path(os.path.realpath(place))
    if path == point or path.is_relative_to(point) or point.is_relative_to(path):
        raise UsageError(
            f"the folder for changes ({path}) and the mountpoint ({point}) must not contain each other"
        )
    for what, folder in (("the cache", cache_dir), ("the state", state_home())):
        kept = Path(os.path.realpath(folder))
        if path.is_relative_to(kept) or kept.is_relative_to(path):
            raise UsageError(
                f"the folder for changes ({path}) and {what} of xnatfs ({kept}) must not contain each other"
            )
    if mount_registry.containing(str(path)) is not None:
        raise UsageError(f"{path} is in an xnatfs mount; changes must be stored elsewhere")
    with contextlib.suppress(OSError):
        owner = path.stat().st_uid
        if owner != os.geteuid():
            raise UsageError(f"{path} belongs to another user; name a folder of your own")
    uppers = [f",upperdir={spelt}," for spelt in (path / "upper", _escaped(path / "upper"))]
    for entry in mount_table.entries():
        if entry.kind == "overlay" and any(upper in f"{entry.options}," for upper in uppers):
            raise UsageError(
                f"{path} is in use by the mount at {entry.mountpoint}; `xnatfs unmount "
                f"{entry.mountpoint}` ends it"
            )


def _lock(path: Path) -> int:
    """Lock DIR: fuse-overlayfs inherits the lock, so it lasts as long as anything may write there."""
    try:
        descriptor = os.open(path / _NOTEBOOK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UsageError(f"{path} cannot be the upper layer of an overlay: {error.strerror}") from None
    deadline = time.monotonic() + _LETS_GO
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise UsageError(
                    f"{path} is in use by another mount (or a program still has files of an ended one open)"
                ) from None
            time.sleep(0.1)
        except OSError:
            return descriptor  # a file system without locks


def _noted(path: Path) -> dict[str, str]:
    text = (path / _NOTEBOOK).read_text(encoding="utf-8")
    try:
        noted = json.loads(text) if text else {}
    except ValueError:
        noted = None
    if not isinstance(noted, dict):
        raise UsageError(
            f"{path / _NOTEBOOK} cannot be parsed; it records which server the changes beside it belong to"
        )
    return noted


def _choose(path: Path, possible: list[str], before: str | None) -> str:
    """The kind of overlay to mount. The two record deletions and renames differently, so DIR stays with the
    one it was created by.
    """
    if before is not None and before not in possible:
        raise UsageError(
            f"the changes in {path} were made with {_spoken(before)}, which this user cannot use here"
        )
    problem = ""
    for kind in possible if before is None else [before]:
        problem = _try_kernel(path) if kind == KERNEL else _try_folder(path)
        if not problem:
            return kind
    more = "" if PROGRAM in possible or before else f"; it may be with fuse-overlayfs: {_INSTALL}"
    raise UsageError(f"{path} cannot be the upper layer of an overlay: {problem}{more}")


def _spoken(kind: str) -> str:
    return "the kernel's overlay (as root)" if kind == KERNEL else "fuse-overlayfs"


@contextlib.contextmanager
def _probe(path: Path) -> Iterator[Path]:
    folder = path / "probe"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _try_kernel(path: Path) -> str:
    """Try a small overlay there; "" if it works."""
    with _probe(path) as folder:
        for name in ("lower", "upper", "work", "mnt"):
            (folder / name).mkdir()
        (folder / "lower" / "name").touch()
        try:
            deadline = time.monotonic() + _LETS_GO
            while (path / "upper").exists() and _held_by_kernel(path, folder / "lower"):
                if time.monotonic() > deadline:
                    return "a program still has files of an ended mount with it open"
                time.sleep(0.1)
            _mount_kernel("probe", folder / "mnt", folder / "lower", folder)
        except OSError as error:
            return f"the kernel refuses one on {mount_table.kind_of(path)} ({error.strerror})"
        try:
            (folder / "mnt" / "name").unlink()  # leaves a whiteout
            return ""
        except OSError as error:
            return f"a deletion cannot be stored on {mount_table.kind_of(path)} ({error.strerror})"
        finally:
            mount_table.unmount(str(folder / "mnt"), lazy=True)


def _held_by_kernel(path: Path, lower: Path) -> bool:
    """Whether the kernel uses DIR/upper for an overlay that no longer shows as mounted. Tested with a mount
    that cannot succeed, since its work folder is invalid: the kernel checks that after the upper folder
    (measured with 6.18: EBUSY, else EINVAL).
    """
    upper = _escaped(path / "upper")
    data = f"index=on,lowerdir={_escaped(lower)},upperdir={upper},workdir={upper}"
    try:
        _mount("probe", lower, data, 0)
    except OSError as error:
        return error.errno == errno.EBUSY
    mount_table.unmount(str(lower), lazy=True)
    return False


def _try_folder(path: Path) -> str:
    """Whether files there support what an upper layer needs; "" if so."""
    if ":" in str(path):
        return "fuse-overlayfs accepts no path with a colon"  # it splits there, escaped or not (1.10)
    with _probe(path) as folder:
        try:
            file = folder / "file"
            file.touch()
            file.chmod(0o400)
            file.rename(folder / "renamed")
            (folder / "link").symlink_to("file")
            if stat.S_IMODE((folder / "renamed").stat().st_mode) != 0o400:
                return f"{mount_table.kind_of(path)} stores no file modes"
        except OSError as error:
            return f"{mount_table.kind_of(path)} cannot store what it needs ({error.strerror})"
    return ""


# --- mounting -----------------------------------------------------------------------------------------------


class Overlay:
    """A claimed folder, and the overlay mounted with it."""

    def __init__(self, directory: Path, mountpoint: str, kind: str, lock: int, allow_other: bool) -> None:
        self.directory = directory
        self.kind = kind
        self.lower = str(mount_registry.socket_path(mountpoint).with_suffix(".lower"))
        self._mountpoint = mountpoint
        self._lock = lock
        self._allow_other = allow_other
        self._program: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._changing = threading.Lock()
        self._mounted = False

    def prepare(self) -> None:
        """Make the private folder for the read-only mount, and remove whatever a killed daemon left there."""
        _clear_lower(self.lower)
        os.mkdir(self.lower, 0o700)
        path = _record_path(self._mountpoint)
        known = OverlayRecord(self._mountpoint, str(self.directory), self.kind, self.lower)
        path.write_text(json.dumps(asdict(known), indent=2) + "\n", encoding="utf-8")

    def mount(self, source: str) -> None:
        """Mount the overlay over the read-only mount, which answers already.

        Raises:
            UsageError: it cannot be mounted.
        """
        with self._changing:
            if self._ended.is_set():
                return
            if self.kind == KERNEL:
                try:
                    _mount_kernel(source, Path(self._mountpoint), Path(self.lower), self.directory)
                except OSError as error:
                    raise UsageError(
                        f"the kernel refuses an overlay of {self.directory}: {error.strerror}"
                    ) from None
            else:
                self._start_program()
            self._mounted = True
        mount_table.unmount(self.lower, lazy=True)  # the overlay keeps it alive

    def _start_program(self) -> None:
        # Relative to DIR, whose path may contain commas.
        options = f"lowerdir={_escaped(Path(self.lower))},upperdir=upper,workdir=work,{_PROGRAM_OPTIONS}"
        options += ",allow_other" if self._allow_other else ""
        with tempfile.TemporaryFile() as said:
            # A session of its own, so that Ctrl-C on a terminal reaches only the daemon.
            self._program = subprocess.Popen(
                [PROGRAM, "-f", "-o", options, self._mountpoint],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=(self._lock,),
                start_new_session=True,
                cwd=self.directory,
            )
            deadline = time.monotonic() + _START
            while True:
                entry = mount_table.at(self._mountpoint)
                if entry is not None and _TYPES.get(entry.kind) == PROGRAM:
                    return
                if self._program.poll() is not None or time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            self._program.kill()
            self._program.wait(5)
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").strip().splitlines()
            raise UsageError(
                f"fuse-overlayfs could not mount {self._mountpoint}: "
                f"{lines[-1] if lines else 'it did not say why'}"
            )

    def drop_cached_names(self) -> None:
        """Make the kernel drop the names it cached for the overlay: it caches for ever that a name does not
        exist, and reports a name that the server removed as stale. A remount without changes drops all
        unused names (measured with 6.18).
        """
        if self.kind == KERNEL and self._mounted and not self._ended.is_set():
            entry = mount_table.at(self._mountpoint)
            if entry is not None and entry.kind == "overlay":
                with contextlib.suppress(OSError):
                    _mount("", Path(self._mountpoint), "", _MS_REMOUNT | _MS_NOSUID | _MS_NODEV)

    def follow(self, changed: Callable[[], bool]) -> None:
        """Call `drop_cached_names` whenever `changed()` says that the server changed, until the end."""
        if self.kind == KERNEL:
            while not self._ended.wait(_LOOK):
                if changed():
                    self.drop_cached_names()

    def end(self) -> None:
        """Unmount the overlay, and with it the read-only mount. Programs with open files in DIR can go on
        writing; nothing in DIR is touched.
        """
        self._ended.set()
        with self._changing:
            entry = mount_table.at(self._mountpoint)
            if entry is not None and entry.kind in _TYPES and is_ours(entry):
                mount_table.unmount(self._mountpoint, lazy=True)
            _clear_lower(self.lower)

    def leave(self) -> None:
        """The mount has ended: clean up everything."""
        self.end()
        _record_path(self._mountpoint).unlink(missing_ok=True)
        if self._program is not None:
            # It ends when the last file is closed. Never killed: a program may still be writing.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._program.wait(2)
            self._program.returncode = self._program.returncode or 0  # no ResourceWarning if it keeps running


def _mount_kernel(source: str, point: Path, lower: Path, directory: Path) -> None:
    upper, work = _escaped(directory / "upper"), _escaped(directory / "work")
    data = f"lowerdir={_escaped(lower)},upperdir={upper},workdir={work},{_KERNEL_OPTIONS}"
    _mount(source, point, data, _MS_NOSUID | _MS_NODEV)


def _mount(source: str, point: Path, data: str, flags: int) -> None:
    """mount(2): unlike the command, it gives the reason as an errno."""
    if (
        _libc.mount(
            os.fsencode(source), os.fsencode(point), b"overlay", ctypes.c_ulong(flags), os.fsencode(data)
        )
        != 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _escaped(path: Path) -> str:
    """A path, escaped for a mount option."""
    text = str(path)
    for char in ("\\", ",", ":"):
        text = text.replace(char, "\\" + char)
    return text
