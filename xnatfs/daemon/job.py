"""A mount for the life of one command, in namespaces of its own: `xnatfs run`.

Three processes besides the command. The one that was called (`run`) starts the others, forwards signals to
the command and ends with its exit code. The first one of the new process namespace (`_First`) starts the
mount's daemon, and looks after orphans. It dies with the one that was called, and the kernel then kills all
others: that is what leaves nothing behind after SIGKILL.

A scheduler sends SIGTERM to every process of a job: only the command heeds it, so that it can still read and
write what it wants before it ends.
Threading: none; each process has one thread until the daemon starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from xnatfs.auth.credentials import Credentials
from xnatfs.config import Settings
from xnatfs.daemon import control, mount_registry, namespace, overlay
from xnatfs.daemon.overlay import Overlay
from xnatfs.daemon.run import background, reap
from xnatfs.errors import Failure, UsageError
from xnatfs.text import printable

VARIABLE = "XNATFS_MOUNT"  # has the mountpoint, for the command
# What is passed on where a process sent it. What a terminal sends reaches the command anyway.
_FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)
_BY_THE_KERNEL = 0x80  # SI_KERNEL (asm-generic/siginfo.h)
_LOOK_S = 1.0  # between two looks for orphans
_STOP_S = 3.0  # for the daemon to answer that it ends


def default_place() -> str:
    """Where a command's mount is unless somebody says: below a folder that stays, so that nothing has to be
    removed.
    """
    return str(mount_registry.socket_path("/").parent / "mnt")


def run(
    settings: Settings, credentials: Credentials, place: str, upper: Overlay | None, command: Sequence[str]
) -> int:
    """Mount, run a command, unmount. Its exit code; 128 + N where signal N ended it, 126 or 127 where it
    could not be started, as shells have it.

    Raises:
        UsageError: it could not be mounted; the text says why. Nothing was run.
    """
    # Read before /proc and the state's folders are those of the namespace.
    kept = [
        mount_registry.registrations(),
        mount_registry.socket_path(place).parent,
        overlay.records_folder(),
    ]
    namespace.enter()
    ours, theirs = socket.socketpair()
    first = os.fork()
    if first == 0:
        ours.close()
        _First(settings, credentials, place, upper, kept, theirs).run()
    theirs.close()
    with ours:
        with ours.makefile("rb") as stream:
            line = stream.readline()
        try:
            answer = json.loads(line)
        except ValueError:
            answer = {"problem": "the mount ended before it answered"}
        if "problem" in answer:
            os.waitpid(first, 0)
            raise UsageError(str(answer["problem"]), exit_code=int(answer.get("code", 1)))
        code = _supervise(command, {**os.environ, VARIABLE: place})
    os.waitpid(first, 0)  # which has the kernel end whatever the command left
    return code


def _supervise(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a command to its end, with the signals this process gets."""
    heeded = {*_FORWARDED, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
    child = os.fork()
    if child == 0:
        _become(command, environment, before)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        told = signal.sigwaitinfo(heeded)
        if told.si_signo in _FORWARDED and told.si_code != _BY_THE_KERNEL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, told.si_signo)


def _become(command: Sequence[str], environment: dict[str, str], mask: set[int | signal.Signals]) -> NoReturn:
    """Be this command from here on, with what of signals a shell would have given it."""
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvpe(command[0], list(command), environment)
    except OSError as error:
        print(f"xnatfs: {printable(command[0])}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _children() -> list[int]:
    """The processes whose parent this one is, or has become; none where a container hides them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found.append(int(process.name))
    return found


class _First:
    """The first process of the namespace."""

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        place: str,
        upper: Overlay | None,
        kept: Sequence[Path],
        caller: socket.socket,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._place = place
        self._upper = upper
        self._kept = kept
        self._caller = caller

    def run(self) -> NoReturn:
        """Mount, say so, look after orphans until the caller hangs up, unmount."""
        try:
            daemon = self._start()
            self._say({"ready": True})
            self._wait()
            self._stop(daemon)
        except (UsageError, Failure) as error:
            self._say({"problem": str(error), "code": error.exit_code})
        except BaseException as error:
            self._say({"problem": f"{type(error).__name__}: {error}"})
        finally:
            os._exit(0)

    def _start(self) -> int:
        """Start the daemon; its process id."""
        namespace.die_with_parent()
        os.setsid()
        for number in _FORWARDED:  # for the daemon, too
            signal.signal(number, signal.SIG_IGN)
        namespace.settle()
        try:
            for folder in self._kept:
                namespace.cover(folder)
        except OSError as error:
            raise UsageError(
                f"this machine does not let you mount in a namespace of your own ({error.strerror}); "
                f"{namespace.WITHOUT_A_MOUNT}"
            ) from None
        os.makedirs(self._place, mode=0o700, exist_ok=True)
        return background(self._settings, self._credentials, self._place, overlay=self._upper, deaf=True)

    def _say(self, answer: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            self._caller.sendall(json.dumps(answer).encode() + b"\n")

    def _wait(self) -> None:
        while not select.select([self._caller], [], [], _LOOK_S)[0]:
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass

    def _stop(self, daemon: int) -> None:
        """Have the daemon unmount and end its session with the server. First what the command left goes: it
        could keep the mount.
        """
        while left := [child for child in _children() if child != daemon]:
            for child in left:
                with contextlib.suppress(OSError):
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
        one = mount_registry.of(self._place)
        if one is not None:
            with contextlib.suppress(UsageError):
                control.ask(one.socket, "stop", timeout=_STOP_S)
        reap(daemon)
