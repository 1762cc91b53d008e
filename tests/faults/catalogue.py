"""The faults of the matrix: how each is produced, how the tests know that it struck, and how it may end.

A fault that a retry cures must give the right bytes and no error. Any other fault gives the right bytes or
one of its causes, which are those of `xnatfs.errors`; only that module maps causes to errnos."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.operations import Operation
from tests.faults.truth import true_files
from tests.faults.world import World
from tests.support import change_password, md5
from xnatfs.demo.faults import Switches
from xnatfs.demo.model import BytesContent
from xnatfs.errors import Cause

DAY = 86400.0
_CONTENTS = r"/files/.|format=zip"  # requests for contents, not for listings
_AWAY = (Cause.UNREACHABLE, Cause.TIMED_OUT)

Active = contextlib.AbstractContextManager[Callable[[], int]]  # returns how often it has struck so far


@dataclass(frozen=True)
class Fault:
    """One row of the report.

    Args:
        name: in the report.
        active: produces the fault for as long as it is entered.
        causes: how it may end; none: a retry cures it.
        sentence: what a user sees, in the report.
        early: it is there before the mount is made.
        of_files: it affects single files: a table is built without their sessions and says so.
        other_data: the server has other contents afterwards.
        refresh: `xnatfs refresh` is needed afterwards to replace what the mount learnt meanwhile.
        stale_sizes: until a file is opened its size is the catalog's.
        tls: over TLS.
        needs_counts: it shows only on a server that reports how many files it counts (not on the profile
            "proven").
        but: how else it may end, in some operations.
        signal: the mount is a process of its own, which gets this signal in the middle.
    """

    name: str
    active: Callable[[World, Operation, pytest.MonkeyPatch], Active]
    causes: tuple[Cause, ...]
    sentence: str
    early: bool = False
    of_files: bool = False
    other_data: bool = False
    refresh: bool = False
    stale_sizes: bool = False
    tls: bool = False
    needs_counts: bool = False
    but: tuple[tuple[str, Cause], ...] = ()
    signal: int = 0

    def causes_in(self, operation: Operation) -> tuple[Cause, ...]:
        """What it may end in."""
        return self.causes + tuple(cause for name, cause in self.but if name == operation.name)

    def __str__(self) -> str:
        return self.name

    @property
    def cured(self) -> bool:
        return not self.causes


# --- switches of the stand-in -------------------------------------------------------------------------------


def _switched(fired: str, **switches: Any) -> Callable[[World, Operation, pytest.MonkeyPatch], Active]:
    @contextlib.contextmanager
    def active(
        world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Callable[[], int]]:
        before = dataclasses.asdict(world.switches)
        struck = world.switches.fired[fired]
        chosen = {name: value(operation) if callable(value) else value for name, value in switches.items()}
        world.switches.update(chosen)
        try:
            yield lambda: world.switches.fired[fired] - struck
        finally:
            world.switches.update({name: before[name] for name in chosen})

    return active


def _some(operation: Operation) -> int:
    """Bytes after which it breaks off: listings are short."""
    return 60 if operation.listing else 9000


def _cured(name: str, sentence: str, fired: str, **switches: Any) -> Fault:
    return Fault(name, _switched(fired, **switches), (), sentence)


# --- the server and the way to it ---------------------------------------------------------------------------


@contextlib.contextmanager
def _stopped(
    world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], int]]:
    asked = _asked(world)
    world.server.stop()
    try:
        yield asked
    finally:
        world.server.start()


def _asked(world: World) -> Callable[[], int]:
    """How many requests the mount tried to send from here on."""
    mounted = world.mount() if world.mounted else None
    before = mounted.connection.requests if mounted is not None else world.tried
    return lambda: (world.tried if mounted is None else mounted.connection.requests) - before


@contextlib.contextmanager
def _hanging(
    world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], int]]:
    """A full backlog: SYN packets are dropped, so a connection is neither made nor refused."""
    asked = _asked(world)
    world.server.stop()
    with contextlib.ExitStack() as stack:
        stack.callback(world.server.start)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", world.server.port), backlog=0))
        for _ in range(3):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(listener.getsockname())
        time.sleep(0.05)
        yield asked


@contextlib.contextmanager
def _nameless(
    world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], int]]:
    """The resolver knows nobody any more, and the connections there were are gone."""
    struck = 0
    before = socket.getaddrinfo

    def nobody(*_: object, **__: object) -> Any:
        nonlocal struck
        struck += 1
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    world.server.stop()
    world.server.start()
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", nobody)
        assert socket.getaddrinfo is not before
        yield lambda: struck


@contextlib.contextmanager
def _untrusted(
    world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], int]]:
    asked = _asked(world)
    right = world.server._tls
    assert right is not None
    world.server.stop()
    world.server._tls = tuple(str(one).replace("right", "wrong") for one in right)  # type: ignore[assignment]
    world.server.start()
    try:
        yield asked
    finally:
        world.server.stop()
        world.server._tls = right
        world.server.start()


def _restart(world: World) -> Callable[[], int]:
    world.server.stop()
    world.server.expire_sessions()
    world.server.start()
    before = len(world.server.requests())
    return lambda: len(world.server.requests()) - before


@contextlib.contextmanager
def _restarted(
    world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], int]]:
    yield _restart(world)


@contextlib.contextmanager
def _other_data(
    world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], int]]:
    """Every file has other bytes, some of them more or fewer, and every session a new `last_modified`."""
    world.former = frozenset(md5(one.read()) for one in true_files(world.server.archive).values())

    def change() -> None:
        archive = world.server.archive
        for path, one in true_files(archive).items():
            if "/FREESURFER6/" in path:
                continue
            data = one.read()
            more = b"" if "random" in path else b"more"
            one.entry.content, one.entry.modified = BytesContent(data[::-1] + more), archive.tick()
            if one.entry.digest is not None and one.entry.digest != "":
                one.entry.digest = None
        for session in archive.experiments.values():
            archive.touch(session)

    world.server.stop()
    change()
    world.server.expire_sessions()
    world.server.start()
    before = len(world.server.requests())
    yield lambda: len(world.server.requests()) - before


@contextlib.contextmanager
def _expired(
    world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], int]]:
    world.switches.require_login = False
    world.server.expire_sessions()
    before = len(world.server.requests())
    try:
        yield lambda: len(world.server.requests()) - before
    finally:
        world.switches.require_login = True


@contextlib.contextmanager
def _other_password(
    world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], int]]:
    """It was changed on the server without the mount's knowledge; at the end the user logs in again."""
    new = f"not {world.password}"
    change_password(world.server, new)
    world.server.expire_sessions()
    world.server.clear_log()
    try:
        yield lambda: len(world.server.requests())
        refused = sum(one.login and one.status == 401 for one in world.server.requests())
        assert refused <= world.limits.connections, (
            f"the old password was sent {refused} times, which may lock the account"
        )
    finally:
        world.new_password(new)


# --- this machine -------------------------------------------------------------------------------------------


def _set_clock(world: World, patch: pytest.MonkeyPatch, now: Callable[[], float]) -> None:
    patch.setattr(time, "time", now)
    if world.mounted:  # it was given the clock when it was made
        patch.setattr(world.mount().connection.breaker.clock, "wall", now)


def _clock(seconds: float) -> Callable[[World, Operation, pytest.MonkeyPatch], Active]:
    @contextlib.contextmanager
    def active(
        world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Callable[[], int]]:
        real = time.time
        with monkeypatch.context() as patch:
            _set_clock(world, patch, lambda: real() + seconds)
            yield lambda: 1

    return active


@contextlib.contextmanager
def _suspended(
    world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], int]]:
    """Eight hours pass (CLOCK_MONOTONIC stands still meanwhile, as on Linux), and nobody knows the
    connections any more.
    """
    real, gettime = time.time, time.clock_gettime
    struck = world.switches.fired["lost"]
    world.server.lose_connections()
    world.server.expire_sessions()
    with monkeypatch.context() as patch:
        _set_clock(world, patch, lambda: real() + DAY / 3)
        patch.setattr(
            time,
            "clock_gettime",
            lambda which: gettime(which) + (DAY / 3 if which != time.CLOCK_MONOTONIC else 0),
        )
        yield lambda: world.switches.fired["lost"] - struck + 1


@contextlib.contextmanager
def _full(world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Not one block is left on the disk of the cache."""
    filler = world.folder / "cache" / ".filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 20))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
    try:
        yield lambda: 1
    finally:
        filler.unlink()


@contextlib.contextmanager
def _removed(
    world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], int]]:
    shutil.rmtree(world.cache)
    yield lambda: 1


@contextlib.contextmanager
def _read_only(
    world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], int]]:
    every = [Path(folder) for folder, _, _ in os.walk(world.folder / "cache")]
    for folder in every:
        folder.chmod(0o500)
    assert not os.access(every[0], os.W_OK, effective_ids=True), (
        "these tests have to run without the rights of root: see conftest"
    )
    try:
        yield lambda: 1
    finally:
        for folder in every:
            folder.chmod(0o700)


@contextlib.contextmanager
def _corrupted(
    world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], int]]:
    for path in world.folder.glob("**/*.sqlite*"):
        with path.open("r+b") as file:  # in place, as a failing disk does it
            file.write(b"no database" * (max(1, path.stat().st_size) // 11 + 1))
    yield lambda: 1


@contextlib.contextmanager
def _held(world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Another mount was stopped in the middle of a transaction."""
    with contextlib.ExitStack() as stack:
        for path in world.folder.glob("**/*.sqlite"):
            one = stack.enter_context(contextlib.closing(sqlite3.connect(path, isolation_level=None)))
            one.execute("BEGIN IMMEDIATE")
        yield lambda: 1


@contextlib.contextmanager
def _nothing(
    world: World, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], int]]:
    yield lambda: 0


# --- all of them --------------------------------------------------------------------------------------------

_ONCE = "right after a retry"
FAULTS = (
    # Cured by a retry.
    _cured("503 for a moment", "nothing", "fail", fail_status=503, fail_next=2),
    _cured(
        "429 with Retry-After",
        "nothing; it waits as long as the server asks",
        "fail",
        fail_status=429,
        fail_next=1,
        retry_after="1",
    ),
    _cured("500 once", "nothing", "fail", fail_status=500, fail_next=1),
    Fault(
        "401 in mid-run",
        _switched("fail", fail_status=401, fail_next=1),
        (),
        "nothing; it logs in again (a login refused while mounting is not retried: accounts get locked)",
        but=(("mount again", Cause.LOGIN_REFUSED),),
    ),
    Fault(
        "the session expires on an open server",
        _expired,
        (),
        "nothing; the mount does not continue as a guest",
    ),
    _cured("taken for a guest", "nothing; it logs in again", "guest", guest_next=1, require_login=False),
    _cured("302 to a login page, once", "nothing", "redirect", redirect_next=1),
    _cured("a web page with status 200, once", "nothing", "html", html_instead=1),
    _cured(
        "cut at byte N",
        "nothing; the download resumes where it broke off",
        "cut",
        match=".",
        cut_after_bytes=_some,
        cut_next=1,
    ),
    _cured("a short body, cleanly ended", "nothing", "truncate", truncate_after_bytes=_some, truncate_next=1),
    _cured("silence in mid-body", "nothing", "stall", match=_CONTENTS, stall_after_bytes=_some, stall_next=1),
    _cured("a body longer than announced", "nothing", "surplus", surplus_bytes=500, surplus_next=1),
    _cured(
        "Content-Length too large",
        "nothing",
        "length_error",
        length_error=500,
        length_error_next=1,
        hang_seconds=0.5,
    ),
    _cured("Content-Length too small", "nothing", "length_error", length_error=-50, length_error_next=1),
    Fault(
        "one byte wrong, once",
        _switched("damage", match=r"large\.nii|small\.bin|\.dcm|\.stats", damage_next=1),
        (),
        "nothing; but a program that has already read that byte of a large file gets an error before "
        "the end. Without a digest it cannot be detected",
        but=(("read in order", Cause.BAD_DIGEST),),
    ),
    _cured(
        "a corrupt zip",
        "nothing; its damaged files are fetched one by one",
        "damage",
        match="format=zip",
        damage_next=1,
    ),
    _cured(
        "a truncated zip",
        "nothing",
        "truncate",
        match="format=zip",
        truncate_after_bytes=100_000,
        truncate_next=1,
    ),
    _cured("a zip member missing", "nothing; it is fetched by itself", "zip_omit", zip_omit=["0005.dcm"]),
    _cured("invalid JSON, once", "nothing", "garble", garble_listings="json", garble_next=1),
    _cured("invalid UTF-8, once", "nothing", "garble", garble_listings="utf8", garble_next=1),
    Fault("the server restarts", _restarted, (), "nothing; it logs in again"),
    # Not cured by a retry.
    Fault("connection refused", _stopped, _AWAY, "cached data works; anything else fails at once"),
    Fault("connecting hangs", _hanging, _AWAY, "cached data works; anything else fails within the deadline"),
    Fault(
        "connections are reset",
        _switched("refuse", refuse_connections=True),
        (*_AWAY, Cause.CUT_SHORT),
        "as above",
    ),
    Fault("the server's name is gone", _nameless, (Cause.UNKNOWN_HOST, Cause.TIMED_OUT), "as above"),
    Fault("accepted, then silence", _switched("silent", silent_next=-1), (Cause.TIMED_OUT,), "as above"),
    Fault(
        "the certificate is wrong",
        _untrusted,
        (Cause.BAD_CERTIFICATE, Cause.TIMED_OUT),
        "as above; nothing is sent",
        tls=True,
    ),
    Fault(
        "the password was changed",
        _other_password,
        (Cause.LOGIN_REFUSED,),
        "permission denied; cached data works, and the rest works again after `xnatfs login`",
    ),
    Fault(
        "302 to a login page, always",
        _switched("redirect", redirect_next=-1),
        (Cause.NOT_DATA, Cause.TIMED_OUT),
        "an error",
        but=(("mount again", Cause.LOGIN_REFUSED),),
    ),
    Fault(
        "a web page with status 200, always",
        _switched("html", html_instead=-1),
        (Cause.NOT_DATA, Cause.TIMED_OUT),
        "an error",
        but=(("mount again", Cause.NOT_AN_XNAT),),
    ),
    Fault(
        "403",
        _switched("fail", fail_status=403, fail_next=-1, match=_CONTENTS),
        (Cause.NOT_ALLOWED,),
        "permission denied",
        of_files=True,
    ),
    Fault(
        "404 of a listed file",
        _switched("fail", fail_status=404, fail_next=-1, match=_CONTENTS),
        (Cause.GONE,),
        "an error",
        of_files=True,
    ),
    Fault(
        "500, always",
        _switched("fail", fail_status=500, fail_next=-1),
        (Cause.SERVER_ERROR, Cause.TIMED_OUT),
        "an error",
        of_files=True,
    ),
    Fault(
        "invalid JSON, always", _switched("garble", garble_listings="json"), (Cause.BAD_LISTING,), "an error"
    ),
    Fault(
        "invalid UTF-8, always", _switched("garble", garble_listings="utf8"), (Cause.BAD_LISTING,), "an error"
    ),
    Fault(
        "an empty listing where files are counted",
        _switched("empty_file_lists", empty_file_lists=True),
        (Cause.LISTING_EMPTY,),
        "an error, never an empty folder",
        early=True,
        of_files=True,
        needs_counts=True,
    ),
    Fault(
        "a wrong digest in the catalog",
        _switched("wrong_digest", wrong_digest=r"large|small|dcm|stats"),
        (Cause.BAD_DIGEST,),
        "an error; `--bad-digest=serve` reads it all the same",
        early=True,
        of_files=True,
        refresh=True,
    ),
    Fault(
        "a stale size in the catalog",
        _switched("stale_size", stale_size="."),
        (Cause.CHANGED,),
        "the true size once the file is opened",
        early=True,
        stale_sizes=True,
        refresh=True,
    ),
    Fault(
        "the server restarts with other data",
        _other_data,
        (Cause.CHANGED, Cause.BAD_DIGEST),
        "the new bytes, or an error for programs that have the old ones open",
        other_data=True,
        refresh=True,
    ),
    Fault("the clock jumps a day ahead", _clock(DAY), (Cause.CHANGED,), "nothing"),
    Fault("the clock jumps a day back", _clock(-DAY), (Cause.CHANGED,), "nothing"),
    Fault("the computer was suspended", _suspended, _AWAY, "nothing, or a time-out once"),
    Fault(
        "the disk of the cache is full",
        _full,
        (Cause.NO_SPACE, Cause.CACHE_BROKEN),
        "files are read without the cache where possible",
    ),
    Fault(
        "the cache directory is removed",
        _removed,
        (Cause.CACHE_BROKEN,),
        "files are read without the cache where possible",
    ),
    Fault(
        "the cache directory is read-only",
        _read_only,
        (Cause.CACHE_BROKEN,),
        "files are read without the cache where possible; tables cannot be built, and a new mount is refused",
    ),
    Fault(
        "another mount locks the databases",
        _held,
        (Cause.CACHE_BROKEN,),
        "as long as another mount is stopped while writing to the same cache, files are read without "
        "it, and a new mount is refused",
    ),
    Fault("the databases are damaged", _corrupted, (Cause.CACHE_BROKEN,), "they are rebuilt"),
    Fault(
        "the mount's process is stopped for a while",
        _nothing,
        (Cause.TIMED_OUT, Cause.CUT_SHORT),
        "nothing, once it is resumed",
        signal=signal.SIGSTOP,
    ),
    Fault(
        "the mount's process is killed (kill -9)",
        _nothing,
        (Cause.TIMED_OUT,),
        'the usual error of a dead mount ("Transport endpoint is not connected"); the next mount works '
        "normally",
        signal=signal.SIGKILL,
    ),
)


CONTROL = Fault("no fault", _nothing, (), "nothing")


def switched_off(switches: Switches) -> None:
    """Everything as it is when nothing is wrong. The profile stays."""
    switches.update(dataclasses.asdict(Switches(profile=switches.profile, hang_seconds=1.0)))
    switches.fired.clear()
