"""Which mounts run on this machine: one small JSON file each, in the state directory.

Used by `run` (which registers) and by the commands (which look up). A registration whose process is gone is
removed when it is found.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from xnatfs.config import private_folder, state_home
from xnatfs.disk import write_private_json
from xnatfs.errors import UsageError

_LONGEST_SOCKET_PATH = 107  # bytes


@dataclass(frozen=True)
class Registration:
    """A running mount."""

    mountpoint: str
    pid: int
    server: str
    user: str
    socket: str
    log: str
    overlay: str = ""  # the folder of its upper layer; "" for a read-only mount

    @property
    def alive(self) -> bool:
        """Whether its process still runs."""
        with contextlib.suppress(OSError):
            os.kill(self.pid, 0)
            command = Path(f"/proc/{self.pid}/cmdline")
            return (
                not command.exists() or b"xnatfs" in command.read_bytes() or b"python" in command.read_bytes()
            )
        return False


def register(one: Registration) -> Path:
    """Write a registration; returns its file."""
    path = registrations() / f"{name_of(one.mountpoint)}.json"
    write_private_json(path, asdict(one))
    return path


def running() -> list[Registration]:
    """All mounts of this user on this machine."""
    found: list[Registration] = []
    for path in sorted(registrations().glob("*.json")):
        try:
            one = Registration(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
        if one.alive:
            found.append(one)
        else:
            path.unlink(missing_ok=True)
    return found


def of(mountpoint: str) -> Registration | None:
    """The mount at a mountpoint."""
    wanted = absolute(mountpoint)
    return next((one for one in running() if one.mountpoint == wanted), None)


def containing(path: str) -> Registration | None:
    """The mount that contains a path."""
    found = running()
    # First as written: resolving links in a path below a mount that hangs would hang too.
    for spelling in (lambda path: os.path.abspath(os.path.expanduser(path)), absolute):
        wanted = spelling(path)
        within = [
            one
            for one in found
            if wanted == one.mountpoint or wanted.startswith(one.mountpoint.rstrip("/") + "/")
        ]
        if within:
            return max(within, key=lambda one: len(one.mountpoint))
    return None


def absolute(path: str) -> str:
    """A path with symbolic links resolved except in its last part, which may be a dead mount and must not be
    accessed. A `~` that no shell has expanded is: nobody wants a folder of that name.
    """
    parent, name = os.path.split(os.path.abspath(os.path.expanduser(path)))
    return os.path.join(os.path.realpath(parent), name) if name else parent


def socket_path(mountpoint: str) -> Path:
    """The path of a mount's control socket: short, in a folder that only this user can enter.

    That is below XDG_RUNTIME_DIR, else in the state directory. Where its path is too long for a socket, it is
    a folder in /tmp of a name that nobody can guess: another user could make one of a known name first, and
    keep every mount from starting.

    Raises:
        UsageError: the folder belongs to another user, or is open to others.
    """
    name = f"{name_of(mountpoint)}.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "xnatfs" if runtime and os.path.isdir(runtime) else state_home() / "run"
    if len(os.fsencode(folder / name)) > _LONGEST_SOCKET_PATH:
        return _short_folder() / name
    if folder.parent == state_home():
        return private_folder(folder) / name
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    # Not repaired: others may have placed anything there while it was open.
    if not _is_private(folder):
        raise UsageError(f"{folder} is not a private folder of this user; remove it or set XDG_RUNTIME_DIR")
    return folder / name


def _short_folder() -> Path:
    """A folder of this user in /tmp, which the state directory names; another one if that is gone, or was
    replaced by somebody after /tmp was emptied.
    """
    record = private_folder(state_home()) / "socket-folder.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        folder = Path(json.loads(record.read_text(encoding="utf-8")))
        if folder.is_absolute() and _is_private(folder):
            return folder
    folder = Path(tempfile.mkdtemp(prefix="xnatfs-"))
    write_private_json(record, str(folder))
    return folder


def _is_private(folder: Path) -> bool:
    status = folder.lstat()
    mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return mine and stat.S_IMODE(status.st_mode) == 0o700


def log_path(mountpoint: str) -> Path:
    """The log file of a mount in the background."""
    return private_folder(state_home() / "logs") / f"{name_of(mountpoint)}.log"


def registrations() -> Path:
    """Where the registrations are."""
    return private_folder(state_home() / "mounts")


def name_of(mountpoint: str) -> str:
    """A file name for the data of a mountpoint."""
    return hashlib.sha256(mountpoint.encode("utf-8", "surrogateescape")).hexdigest()[:16]
