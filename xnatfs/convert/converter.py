"""Running dcm2niix, so that nothing but the files decides what it writes, and nothing of it is left behind.

Used by `conversion`. The program is that of the Python package (`xnatfs[convert]`), never one that happens to
be on PATH: another version gives other bytes.
Threading: any thread; one process a call.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import resource
import select
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xnatfs.convert.headers import digest_of
from xnatfs.convert.refusal import Refusal
from xnatfs.disk import disk_failure
from xnatfs.errors import Cause, Failure
from xnatfs.extras import load

# A sidecar without names and dates; no gzip (pigz gives other bytes than its own); no settings of the user;
# no second image under a name that is taken; neither cropped nor without derived ones (`split` sees to that).
OPTIONS = (*("-b", "y", "-ba", "y", "-z", "n", "-g", "i", "-w", "0", "-x", "n", "-i", "n"), *("-f", "img"))
_MEMORY_FACTOR, _MEMORY_BYTES = 4, 300 * 2**20  # measured: at most 2.8 times the pixels
_LIMIT_S = 600.0
_LAST_LINES = 3
# Reasons dcm2niix ends with, in its own numbers (its ERRORS.md).
_CODES = {2: "it found no image in them", 4: "a file is damaged", 8: "it converted just some of them"}


@dataclass(frozen=True)
class Converter:
    """The program.

    Attributes:
        limit_s: seconds after which it is stopped.
    """

    program: Path
    version: str
    digest: str
    limit_s: float = _LIMIT_S

    def run(self, files: Sequence[Path], work: Path, data_bytes: int) -> list[Path]:
        """Convert files of one image; returns what it wrote, by name.

        Args:
            files: in an order that does not depend on their names.
            work: an empty folder of ours, on the disk of the files.
            data_bytes: of their pixels.

        Raises:
            Refusal: it ended with an error, or was stopped.
            Failure: NO_SPACE, NOT_INSTALLED, or CACHE_BROKEN: nothing that the files can be blamed for.
        """
        source, target, home = work / "in", work / "out", work / "home"
        try:
            for folder in (source, target, home):
                folder.mkdir(mode=0o700)
            for number, file in enumerate(files, 1):
                _stage(file, source / f"{number:06d}.dcm")
            code, said = self._call(source, target, home, data_bytes)
            if code and shutil.disk_usage(target).free < data_bytes:
                raise Failure(Cause.NO_SPACE, str(work))
            if code:
                raise Refusal(_why(code, said))
            return sorted(target.iterdir())
        except OSError as error:
            raise error if isinstance(error, Failure) else disk_failure(error, str(work)) from error

    def _call(self, source: Path, target: Path, home: Path, data_bytes: int) -> tuple[int, str]:
        memory = _MEMORY_FACTOR * data_bytes + _MEMORY_BYTES
        with (home / "output").open("w+b") as output:  # a pipe that nobody empties would stop it
            try:
                process = subprocess.Popen(
                    [self.program, *OPTIONS, "-o", target, source],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=home,
                    # An empty PATH: no pigz. A fixed zone and language: the same bytes everywhere.
                    env={"PATH": "", "HOME": str(home), "TMPDIR": str(home), "TZ": "UTC0", "LC_ALL": "C"},
                    start_new_session=True,
                )
            except OSError as error:
                if error.errno in (errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE):
                    raise Failure(Cause.NO_RESOURCES, "dcm2niix", error.strerror or "") from error
                raise Failure(
                    Cause.NOT_INSTALLED, "dcm2niix", f"it cannot be started: {error.strerror}"
                ) from error
            try:
                with contextlib.suppress(ProcessLookupError):  # it may be done already
                    resource.prlimit(process.pid, resource.RLIMIT_AS, (memory, memory))
                    resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
                    seconds = math.ceil(self.limit_s)  # nobody ends it if this process is killed meanwhile
                    resource.prlimit(process.pid, resource.RLIMIT_CPU, (seconds, seconds))
                if not _ended(process, self.limit_s):
                    raise Refusal(f"dcm2niix was not done after {self.limit_s:g} s, and was stopped")
                code = process.wait()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # and what it may have started
                process.wait()
            output.seek(0)
            return code, output.read(2**16).decode("utf-8", "replace").replace(f"{source}{os.sep}", "")


def _ended(process: subprocess.Popen[bytes], limit_s: float) -> bool:
    """Whether a process ends within some seconds. `Popen.wait` looks just twenty times a second."""
    try:
        fd = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # an old kernel; or no descriptor left
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(limit_s)
        return process.poll() is not None
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(limit_s * 1000))
    finally:
        os.close(fd)


def find_converter() -> Converter:
    """The program of the installed package.

    Raises:
        MissingExtra: it is not installed.
    """
    package = load("dcm2niix", "convert")
    program = Path(package.bin)
    try:
        state = program.stat()
        return _identified(program, str(package.__version__), state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise Failure(Cause.NOT_INSTALLED, "dcm2niix", error.strerror or "") from error


@functools.lru_cache(maxsize=4)
def _identified(program: Path, version: str, _changed: int, _size: int) -> Converter:
    return Converter(program, version, digest_of(program))


def _stage(file: Path, name: Path) -> None:
    """A hard link where the disk has them."""
    try:
        os.link(file, name)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES):
            raise
        shutil.copyfile(file, name)


def _why(code: int, said: str) -> str:
    if code < 0:
        return f"dcm2niix ended with {signal.Signals(-code).name}"
    notes = [line.strip() for line in said.splitlines() if line.startswith(("Error", "Warning"))]
    because = _CODES.get(code, "; ".join(notes[-_LAST_LINES:]) or "no reason given")
    return f"dcm2niix refused the files ({code}: {because})"
