"""The stand-ins the matrix shares, short pauses, and a process without root's rights over files."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.catalogue import switched_off
from tests.faults.truth import build
from tests.support import certificate, change_password
from xnatfs import retry
from xnatfs.cache import database as databases
from xnatfs.cache import index
from xnatfs.demo.server import DemoServer
from xnatfs.server import login_state
from xnatfs.tables.engine import materialize

_CAP_DAC = (1 << 1) | (1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
_VERSION = 0x20080522


class Hasty:
    """The module `time`, with short pauses between tries: what is tested is what is tried."""

    def __getattr__(self, name: str) -> Any:
        return (lambda seconds: time.sleep(seconds / 10)) if name == "sleep" else getattr(time, name)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As short, beside the pauses of a real mount, as the deadlines of these tests are beside the real
    ones.
    """
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(materialize, "_FRESH_FOR_S", 0.3)
    for database in (index, databases):
        monkeypatch.setattr(database, "OPENING", 0.7)
        monkeypatch.setattr(database, "patience", lambda _: 0.15)
    monkeypatch.setattr(login_state, "time", Hasty())


@pytest.fixture(autouse=True, scope="module")
def no_rights_over_files() -> Iterator[None]:
    """Root may write everywhere; what a read-only folder does to a user shows without that right. Threads
    started later inherit it.

    Given back after each file: tests of other folders, which become other users, run in the same process.
    """
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    had = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, had) == 0
    less = (ctypes.c_uint32 * 6)(*had)
    less[0] &= ~_CAP_DAC
    assert libc.capset(header, less) == 0
    yield
    assert libc.capset(header, had) == 0


@pytest.fixture(scope="module")
def _plain() -> Iterator[DemoServer]:
    with DemoServer(build()) as server:
        yield server


@pytest.fixture(scope="module")
def _secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    folder = tmp_path_factory.mktemp("tls")
    for name in ("right", "wrong"):
        certificate(folder, name, "IP:127.0.0.1")
    with DemoServer(build(), tls=(folder / "right.crt", folder / "right.key")) as server:
        yield server


@pytest.fixture
def plain(_plain: DemoServer) -> DemoServer:
    """The stand-in, as new."""
    return _as_new(_plain)


@pytest.fixture
def secure(_secure: DemoServer) -> DemoServer:
    """The stand-in over TLS, as new."""
    return _as_new(_secure)


def _as_new(server: DemoServer) -> DemoServer:
    switched_off(server.switches)
    server.switches.profile = "full"
    change_password(server, "demo")
    server.expire_sessions()
    server.clear_log()
    return server


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of its own for caches, so that it can be filled."""
    folder = tmp_path_factory.mktemp("disk")
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m,mode=700", "faults", folder], check=True, timeout=10
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True, timeout=10)
