"""Running one mount: in the foreground, or in the background once it answers.

Used by `cli.mount`, `cli.demo` and `daemon.job`.
Threading: libfuse's loop has the main thread, where no Python signal handler can run while it waits in C; so
signals wake a watcher thread through a pipe (`signal.set_wakeup_fd`), and the watcher ends the mount.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from xnatfs.auth.credentials import Credentials
from xnatfs.config import Settings
from xnatfs.core import Core, compose
from xnatfs.daemon import gc_tuning, mount_registry, mount_table, service_manager
from xnatfs.daemon.control import ControlServer
from xnatfs.daemon.hardening import guard_process
from xnatfs.daemon.overlay import PROGRAM, Overlay
from xnatfs.errors import Failure, UsageError
from xnatfs.fuse.indexers import IndexerWatch
from xnatfs.fuse.overlay_lower import Lower

log = logging.getLogger(__name__)

_ENDING = (signal.SIGTERM, signal.SIGINT)
_HANDLED = (*_ENDING, signal.SIGHUP)
_GRACE = 5.0  # seconds for pending operations to end
_START = 180.0  # seconds after which starting a background mount counts as failed


def is_handed_over(mountpoint: str) -> bool:
    """Whether it is no folder but an open /dev/fuse, which whoever started this process has mounted, as
    Apptainer's --fusemount does.
    """
    return re.fullmatch(r"/dev/fd/[0-9]+", mountpoint) is not None


def foreground(
    settings: Settings,
    credentials: Credentials,
    mountpoint: str,
    *,
    allow_other: bool = False,
    overlay: Overlay | None = None,
    made: bool = False,
    deaf: bool = False,
    ready: Callable[[Core], None] | None = None,
) -> None:
    """Mount and serve until unmounted or ended by a signal.

    Args:
        overlay: to be mounted over it; the mountpoint is then the overlay's, and the mount itself is hidden.
        made: the mountpoint was made for this mount, and goes with it.
        deaf: signals do not end it; whoever started it does.
        ready: called once the mount answers.

    Raises:
        UsageError, Failure: it could not be mounted; the text says why.
    """
    from xnatfs.fuse import interface

    guard_process()
    gc_tuning.settle()
    mounted = compose(settings, credentials, mountpoint)
    collecting = gc_tuning.Collecting()
    control: ControlServer | None = None
    registration: Path | None = None
    base = mountpoint  # where the read-only mount goes
    failed: list[str] = []
    try:
        socket_path = mount_registry.socket_path(mountpoint)
        began = threading.Event()
        if overlay is not None:
            overlay.prepare()
            base = overlay.lower
            mounted.overlay = {"directory": str(overlay.directory), "kind": overlay.kind}
            if overlay.kind == PROGRAM and isinstance(mounted.vfs, Lower):
                mounted.vfs.for_program = True
        mounted.allow_other = allow_other
        watch = IndexerWatch(mountpoint)
        adapter = interface.make(
            settings,
            mounted.vfs,
            os.getuid(),
            os.getgid(),
            began.set,
            mountpoint if overlay is None and not is_handed_over(mountpoint) else "",
            mounted,
            watch,
        )
        mounted.on_refresh = adapter.drop_kept
        mounted.kernel = adapter.counts
        mounted.indexers = watch.report
        watcher = _Watcher(lambda: _unmount(mountpoint, overlay), adapter.ending, deaf=deaf)
        control = ControlServer(socket_path, _commands(mounted, watcher.end, overlay))
        one = mount_registry.Registration(
            mountpoint,
            os.getpid(),
            mounted.connection.server,
            mounted.connection.user,
            str(socket_path),
            str(mount_registry.log_path(mountpoint)),
            str(overlay.directory) if overlay is not None else "",
        )
        registration = mount_registry.register(one)
        watcher.read_again = mounted.token_renewal.hang_up
        mounted.token_renewal.start()
        watcher.leave = lambda: _leave(
            mounted, socket_path, registration, overlay, mountpoint if made else ""
        )
        with watcher:
            announcing = _Announcing(
                mounted, mountpoint, base, overlay, ready or (lambda _: None), failed, watcher.end
            )
            threading.Thread(target=announcing.run, args=(began,), name="announce", daemon=True).start()
            try:
                if overlay is not None or deaf:
                    adapter.keep_ctrl_c()  # the overlay has to be unmounted first
                adapter.run(base, settings.source, allow_other=allow_other and overlay is None)
            except RuntimeError as error:
                # After Ctrl-C the high-level interface reports the end of its loop as an error (code 8);
                # mounting failed only if the loop never began.
                if began.is_set():
                    log.info("libfuse ended with code %s", error)
                else:
                    raise UsageError(
                        f"libfuse could not mount {mountpoint} (code {error}); run `xnatfs "
                        f"doctor` to find out why"
                    ) from None
            if failed:
                raise UsageError(failed[0])
    finally:
        collecting.close()
        if control is not None:
            control.close()
        if registration is not None:
            registration.unlink(missing_ok=True)
        if overlay is not None:
            overlay.leave()
        if made:
            _remove(mountpoint)
        mounted.close()


def _remove(mountpoint: str) -> None:
    """Remove a mountpoint that was made for a mount; whatever else is in it now stays."""
    if mount_table.wait_gone(mountpoint, _GRACE):
        with contextlib.suppress(OSError):
            os.rmdir(mountpoint)


def background(
    settings: Settings,
    credentials: Credentials,
    mountpoint: str,
    *,
    allow_other: bool = False,
    overlay: Overlay | None = None,
    made: bool = False,
    deaf: bool = False,
) -> int:
    """Mount in a process of its own and return its pid once the mount answers.

    Raises:
        UsageError: it could not be mounted; the text says why. Nothing is left behind.
    """
    log_file = mount_registry.log_path(mountpoint)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(settings, credentials, mountpoint, allow_other, overlay, made, deaf, log_file, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        answer = _read_answer(stream.fileno())
    if answer.get("ready"):
        return int(answer["pid"])
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGTERM)
    reap(pid)
    if overlay is not None:
        overlay.leave()
    elif mount_table.at(mountpoint) is not None:
        mount_table.unmount(mountpoint, lazy=True)
    raise UsageError(
        answer.get("problem") or f"the mount ended before it answered; see {log_file}",
        exit_code=answer.get("code", 1),
    )


def _read_answer(descriptor: int) -> dict[str, Any]:
    import select

    data = b""
    deadline = time.monotonic() + _START
    while not data.endswith(b"\n"):
        readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(descriptor, 65536) if readable else b""
        if not piece:
            break
        data += piece
    try:
        answer = json.loads(data)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def reap(pid: int) -> None:
    """Wait until a mount in the background, a child of this process, has ended; kill it if it does not."""
    deadline = time.monotonic() + _GRACE + 2
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                time.sleep(0.05)
                continue
        return
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _child(
    settings: Settings,
    credentials: Credentials,
    mountpoint: str,
    allow_other: bool,
    overlay: Overlay | None,
    made: bool,
    deaf: bool,
    log_file: Path,
    writing: int,
) -> NoReturn:
    """The process of a mount in the background."""
    reported = False

    def report(answer: dict[str, Any]) -> None:
        nonlocal reported
        if not reported:
            reported = True
            with contextlib.suppress(OSError):
                os.write(writing, json.dumps(answer).encode() + b"\n")
                os.close(writing)

    status, begun = 1, 0
    try:
        os.setsid()
        os.chdir("/")
        output = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        os.fchmod(output, 0o600)
        begun = os.lseek(output, 0, os.SEEK_END)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        foreground(
            settings,
            credentials,
            mountpoint,
            allow_other=allow_other,
            overlay=overlay,
            made=made,
            deaf=deaf,
            ready=lambda _: report({"ready": True, "pid": os.getpid()}),
        )
        status = 0
    except (UsageError, Failure) as error:
        report({"problem": str(error) + _fusermount_said(log_file, begun), "code": error.exit_code})
    except BaseException as error:
        log.exception("the mount broke")
        report({"problem": f"{type(error).__name__}: {error}; see {log_file}"})
    finally:
        sys.stderr.flush()
        # Worker threads may be waiting on a socket; their work is no longer needed.
        os._exit(status)


def _fusermount_said(log_file: Path, begun: int) -> str:
    """fusermount's message on standard error, which is the log here, after its first `begun` bytes."""
    with contextlib.suppress(OSError), log_file.open("rb") as stream:
        stream.seek(begun)
        for line in stream.read(64 * 1024).decode("utf-8", "replace").splitlines():
            if line.startswith("fusermount"):
                return f": {line}"
    return ""


@dataclass
class _Announcing:
    """Announces that the mount is ready once it answers through the kernel and the overlay, if any, is
    mounted.
    """

    mounted: Core
    mountpoint: str
    base: str
    overlay: Overlay | None
    ready: Callable[[Core], None]
    failed: list[str]
    give_up: Callable[[], None]

    def run(self, began: threading.Event) -> None:
        """Wait for the mount, check that READDIRPLUS works there, mount the overlay over it, announce it, and
        keep the overlay up to date.
        """
        if not began.wait(_START):
            return
        if is_handed_over(self.mountpoint):  # where it shows is not known here
            self.ready(self.mounted)
            return
        for _ in range(100):
            with contextlib.suppress(OSError):
                if os.path.isfile(os.path.join(self.base, "README.txt")):
                    break
            time.sleep(0.05)
        with contextlib.suppress(OSError), os.scandir(self.base) as found:
            for entry in found:
                entry.stat()
        if not self.mounted.kernel["readdirplus"]:
            log.warning(
                "this kernel or libfuse does not use READDIRPLUS; `ls -l` and `find` of large folders "
                "will be slower"
            )
        if self.overlay is not None:
            try:
                self.overlay.mount(self.mounted.settings.source)
            except (UsageError, OSError) as error:
                self.failed.append(str(error))
                self.give_up()
                return
        service_manager.notify(f"{service_manager.READY}\nSTATUS=mounted at {self.mountpoint}")
        self.ready(self.mounted)
        if self.overlay is not None:
            # The daemon may know of a change that the kernel's cached names do not show yet.
            self.overlay.follow(
                lambda: self.mounted.listing_service.changed_within(
                    self.mounted.settings.limits.kernel_ttl + 10
                )
            )


def _unmount(mountpoint: str, overlay: Overlay | None) -> None:
    if overlay is not None:
        overlay.end()
    else:
        mount_table.unmount(mountpoint, lazy=True)


def _commands(
    mounted: Core, stop: Callable[[], None], overlay: Overlay | None
) -> dict[str, Callable[[dict[str, Any]], Any]]:
    def refresh(asked: dict[str, Any]) -> bool:
        mounted.refresh(str(asked.get("below", "")))
        if overlay is not None:
            overlay.drop_cached_names()
        return True

    def convert(asked: dict[str, Any]) -> dict[str, Any]:
        return mounted.convert(str(asked.get("below", "")))

    def end(_: dict[str, Any]) -> bool:
        stop()
        return True

    def credentials(asked: dict[str, Any]) -> str:
        try:
            return mounted.token_renewal.read_again(str(asked.get("place", "")))
        except (Failure, UsageError) as problem:
            raise ValueError(str(problem)) from None

    return {
        "status": lambda _: mounted.report(),
        "refresh": refresh,
        "convert": convert,
        "credentials": credentials,
        "stop": end,
    }


def _leave(
    mounted: Core, socket_path: Path, registration: Path | None, overlay: Overlay | None, made: str
) -> None:
    """The last step of a process that cannot end its loop in time. `made`: the mountpoint if it goes, too."""
    socket_path.unlink(missing_ok=True)
    if registration is not None:
        registration.unlink(missing_ok=True)
    if overlay is not None:
        overlay.leave()
    if made:
        _remove(made)
    mounted.connection.close()


class _Watcher:
    """Ends the mount on SIGTERM, SIGINT or on request. SIGHUP makes it reload its credentials.

    Closing a terminal sends SIGHUP too: a mount in its foreground then ends, as with Ctrl-C, unless it runs
    under `nohup`.

    Args:
        deaf: only a request ends it.
    """

    def __init__(self, unmount: Callable[[], None], ending: threading.Event, *, deaf: bool = False) -> None:
        self._handled = () if deaf else _HANDLED
        self._unmount = unmount
        self._ending = ending
        self._over = threading.Event()
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._bound = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        self.read_again: Callable[[], None] = lambda: None
        self.leave: Callable[[], None] = lambda: None

    def end(self) -> None:
        """Ask for the end, as a signal would."""
        os.write(self._writing, bytes([signal.SIGTERM]))

    def __enter__(self) -> None:
        for number in self._handled:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="watcher", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        signal.set_wakeup_fd(-1)
        for number in self._handled:
            signal.signal(number, signal.SIG_DFL)

    def _watch(self) -> None:
        while not self._ends(os.read(self._reading, 1024)):
            pass
        service_manager.notify(service_manager.STOPPING)
        # Unmount first, so that nothing new arrives. Pending operations end with EINTR; the loop returns once
        # the last file is closed.
        self._unmount()
        self._ending.set()
        if not self._over.wait(_GRACE):
            log.warning("files were still open; their readers get an error")
            self.leave()
            os._exit(0)

    def _ends(self, numbers: bytes) -> bool:
        """Whether the mount has to end. Other signals come, too: libfuse interrupts a handler by SIGUSR1."""
        if any(number in _ENDING for number in numbers):
            return True
        if signal.SIGHUP in numbers:
            if self._bound and not _has_terminal():
                return True
            threading.Thread(target=self.read_again, name="reloading credentials", daemon=True).start()
        return False


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
