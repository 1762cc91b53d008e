"""Which interface of libfuse a mount uses, and what becomes of a request that fails."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from xnatfs.config import HIGH_LEVEL, LOW_LEVEL, Settings
from xnatfs.errors import Cause, Failure
from xnatfs.fuse import adapter, interface, lowlevel, session
from xnatfs.fuse.backing_files import BackingFiles
from xnatfs.fuse.indexers import IndexerWatch
from xnatfs.fuse.library import CAP_PASSTHROUGH

KNOWLEDGE: Any = SimpleNamespace(version=lambda: 0, learnt_count=lambda: 0, watchable=lambda folder: "")


def made(fuse: str = LOW_LEVEL, **settings: Any) -> interface.KernelSide:
    vfs: Any = SimpleNamespace(folder=None)
    return interface.make(
        Settings("http://x", fuse=fuse, **settings), vfs, 1, 1, lambda: None, "", KNOWLEDGE, IndexerWatch("")
    )


@pytest.mark.parametrize("version", [(2, 9), (3, 2), (3, 8), (4, 0)])
def test_an_old_libfuse_is_used_through_its_high_level_interface(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int]
) -> None:
    monkeypatch.setattr(session, "LIBFUSE", version)
    assert f"libfuse {version[0]}.{version[1]}" in session.missing()
    assert isinstance(made(), adapter.Adapter)


def test_a_function_that_a_libfuse_has_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LIBFUSE", (3, 14))
    monkeypatch.setattr(session, "libfuse", SimpleNamespace(fuse_session_new=None))
    assert "fuse_session_mount" in session.missing() and "fuse_session_new," not in session.missing()
    assert isinstance(made(), adapter.Adapter)


def test_the_high_level_interface_is_the_default_and_serves_overlays() -> None:
    assert isinstance(made(Settings("http://x").fuse), adapter.Adapter)
    assert isinstance(made(HIGH_LEVEL), adapter.Adapter)
    assert isinstance(made(lower=True), adapter.Adapter)
    if not session.missing():
        assert isinstance(made(), lowlevel.LowLevel)


class Kernel:
    """Takes or refuses cached files."""

    refusal = 0

    def __init__(self) -> None:
        self.calls: list[tuple[int, bytes]] = []

    def control(self, request: int, argument: bytes) -> int:
        self.calls.append((request & 0xFF, argument))
        if self.refusal:
            raise OSError(self.refusal, "refused")
        return 3


def test_a_cached_file_that_the_kernel_refuses_is_opened_in_the_usual_way() -> None:
    kernel: Any = Kernel()
    files = BackingFiles(kernel)
    old = SimpleNamespace(capable=0, want=1)
    files.begin(old)
    assert (files.register(9), old.want, kernel.calls) == (0, 1, [])  # it was not offered
    new = SimpleNamespace(capable=CAP_PASSTHROUGH | 2, want=1)
    files.begin(new)
    assert (files.register(9), new.want) == (3, CAP_PASSTHROUGH | 1)
    files.forget(3)
    files.forget(0)
    assert [(kind, argument[:4]) for kind, argument in kernel.calls] == [(1, b"\t\0\0\0"), (2, b"\3\0\0\0")]
    for refusal, again in ((errno.ELOOP, 3), (errno.EPERM, 0)):  # of this file, of every one
        kernel.refusal = refusal
        assert files.register(9) == 0
        files.forget(3)  # no error for who closes a file
        kernel.refusal = 0
        assert files.register(9) == again


@pytest.mark.skipif(bool(session.missing()), reason=f"high-level interface: {session.missing()}")
@pytest.mark.parametrize(
    ("error", "number"),
    [
        (Failure(Cause.NO_ENTRY), errno.ENOENT),
        (OSError(errno.ERANGE, ""), errno.ERANGE),
        (KeyError(1 << 30), errno.ESTALE),
        (ValueError(), errno.EIO),
    ],
)
def test_a_failed_request_is_answered_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, number: int
) -> None:
    answers: list[int] = []
    fake = SimpleNamespace(
        fuse_reply_err=lambda request, code: answers.append(code),
        fuse_reply_none=lambda request: answers.append(0),
    )
    side = made()
    assert isinstance(side, lowlevel.LowLevel)
    monkeypatch.setattr(session, "libfuse", fake)

    def fails(request: int) -> None:
        raise error

    side._session._guarded(fails)(1)
    assert answers == [number]

    def fails_late(request: int) -> None:
        session.reply_nothing(request)
        raise error

    side._session._guarded(fails_late)(1)
    assert answers == [number, 0]

    def wrong(*_: object) -> int:
        raise TypeError  # as ctypes does of an argument, before libfuse is called

    fake.fuse_reply_buf = wrong
    side._session._guarded(lambda request: session.reply(request, b""))(1)
    assert answers == [number, 0, errno.EIO]
    assert "after its answer" in caplog.text
    caplog.clear()
