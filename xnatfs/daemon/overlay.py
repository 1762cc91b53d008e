"""A writable layer over the read-only mount: `mount --overlay DIR`. The server is never changed.

The read-only mount goes to a private folder, an overlay of DIR/upper over it to the mountpoint; then the
private mount is detached, so that only the overlay keeps it alive. Unmounting the overlay ends everything in
the right order, with and without the daemon, and no path leads into a second mount of the server. The overlay
is the kernel's where root mounts, otherwise the program fuse-overlayfs.

Used by `run` (which mounts) and by the commands (which look up and clean up). `upper_layer` claims DIR,
`kernel_overlay` speaks to the kernel.
Threading: `Overlay` is claimed by the command's thread, mounted by one thread of the daemon, ended by any.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from xnatfs.config import private_folder, state_home
from xnatfs.daemon import kernel_overlay, mount_registry, mount_table
from xnatfs.errors import UsageError

KERNEL, PROGRAM = "kernel", "fuse-overlayfs"
FORCE = "XNATFS_OVERLAY"  # one of the two; for tests and experts
_TYPES = {"overlay": KERNEL, "fuse.fuse-overlayfs": PROGRAM}
INSTALL = "install the package fuse-overlayfs"
_START = 30.0  # seconds for fuse-overlayfs to start
_LOOK = 5.0  # seconds between checks for changes on the server
_CAP_SYS_ADMIN = 21
# writeback=0: written data is in DIR even if fuse-overlayfs then dies. timeout=0: with any other value
# nothing new on the server shows (measured with 1.10).
_PROGRAM_OPTIONS = "writeback=0,timeout=0"


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
        else f"an overlay needs fuse-overlayfs (or root); {INSTALL}"
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


def records_folder() -> Path:
    """Where the records are."""
    return private_folder(state_home() / "overlays")


def _record_path(mountpoint: str) -> Path:
    return records_folder() / f"{mount_registry.name_of(mountpoint)}.json"


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
                    kernel_overlay.mount(source, Path(self._mountpoint), Path(self.lower), self.directory)
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
        lower = kernel_overlay.escaped(Path(self.lower))
        options = f"lowerdir={lower},upperdir=upper,workdir=work,{_PROGRAM_OPTIONS}"
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
        exist, and reports a name that the server removed as stale.
        """
        if self.kind == KERNEL and self._mounted and not self._ended.is_set():
            entry = mount_table.at(self._mountpoint)
            if entry is not None and entry.kind == "overlay":
                with contextlib.suppress(OSError):
                    kernel_overlay.drop_unused_names(Path(self._mountpoint))

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
