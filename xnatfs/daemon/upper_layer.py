"""The folder that takes the changes of an overlay, `--overlay DIR`: whether it can, who may use it, and what
is in it.

DIR/upper has the changes, DIR/work is the overlay's own, DIR/overlay.json says how both came to be.

Used by the commands: `claim` before a mount, `contents` to report.
Threading: plain functions without a state of their own, any thread. A lock on DIR keeps other processes out.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xnatfs.config import make_folder, state_home
from xnatfs.daemon import kernel_overlay, mount_registry, mount_table, overlay
from xnatfs.errors import UsageError

_NOTEBOOK = "overlay.json"  # in DIR: how its layer was made; also the lock against a second user
_OPAQUE = (".wh..opq", ".wh..wh..opq")  # mark a folder that hides the server's
# seconds to wait for the users of an overlay just unmounted: fuse-overlayfs, the last reader, the kernel's
# cleanup
_LETS_GO = 5.0


def claim(
    directory: str, place: str, server: str, cache_dir: Path, *, allow_other: bool = False
) -> overlay.Overlay:
    """Check that DIR can be the upper layer of a mount of this server at this place, and keep others from
    using it.

    Raises:
        UsageError: it cannot; the text says why. Nothing was changed, except that DIR may have been created.
    """
    possible = overlay.kinds()
    if not possible:
        raise UsageError(overlay.what_lacks())
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
    return overlay.Overlay(path, place, kind, lock, allow_other)


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
    uppers = [f",upperdir={spelt}," for spelt in (path / "upper", kernel_overlay.escaped(path / "upper"))]
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
        problem = _try_kernel(path) if kind == overlay.KERNEL else _try_folder(path)
        if not problem:
            return kind
    more = (
        "" if overlay.PROGRAM in possible or before else f"; it may be with fuse-overlayfs: {overlay.INSTALL}"
    )
    raise UsageError(f"{path} cannot be the upper layer of an overlay: {problem}{more}")


def _spoken(kind: str) -> str:
    return "the kernel's overlay (as root)" if kind == overlay.KERNEL else "fuse-overlayfs"


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
            while (path / "upper").exists() and kernel_overlay.still_uses(path, folder / "lower"):
                if time.monotonic() > deadline:
                    return "a program still has files of an ended mount with it open"
                time.sleep(0.1)
            kernel_overlay.mount("probe", folder / "mnt", folder / "lower", folder)
        except OSError as error:
            return f"the kernel refuses one on {mount_table.kind_of(path)} ({error.strerror})"
        try:
            (folder / "mnt" / "name").unlink()  # leaves a whiteout
            return ""
        except OSError as error:
            return f"a deletion cannot be stored on {mount_table.kind_of(path)} ({error.strerror})"
        finally:
            mount_table.unmount(str(folder / "mnt"), lazy=True)


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
