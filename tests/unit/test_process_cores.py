"""One connection a process: who connects, who waits, and what is tried again."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from xnatfs.core import Core
from xnatfs.errors import Cause, Failure
from xnatfs.process_cores import ProcessCores


class Connected:
    """Counts its ends."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


def core() -> Core:
    return cast(Core, Connected())


def closed(one: Any) -> int:
    return cast(Connected, one).closed


def test_one_connects_and_the_others_wait() -> None:
    cores: ProcessCores[str] = ProcessCores()
    gate, made = threading.Event(), []

    def connect() -> Core:
        gate.wait(10)
        made.append(core())
        return made[-1]

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(cores.get, "a", connect) for _ in range(4)]
        gate.set()
        assert {id(one.result(10)) for one in asked} == {id(made[0])} and len(made) == 1
    cores.close()
    assert closed(made[0]) == 1


def test_a_refused_login_is_tried_again_with_other_credentials_only() -> None:
    cores: ProcessCores[str] = ProcessCores(Cause.LOGIN_REFUSED)
    password, sent = "wrong", []

    def connect() -> Core:
        sent.append(password)
        if password == "wrong":
            raise Failure(Cause.LOGIN_REFUSED)
        return core()

    for _ in range(3):
        with pytest.raises(Failure):
            cores.get("a", connect, lambda: password)
    password = "right"
    cores.get("a", connect, lambda: password)
    assert sent == ["wrong", "right"]


def test_what_failed_otherwise_is_tried_again() -> None:
    cores: ProcessCores[str] = ProcessCores(Cause.LOGIN_REFUSED)
    with pytest.raises(ZeroDivisionError):
        cores.get("a", lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    assert cores.get("a", core) is cores.get("a", core)


def test_nobody_connects_for_what_has_ended() -> None:
    """Work that waited in a Dask worker began after the end: it sent the wrong password once more, and a
    right one left a session behind that nobody ended.
    """
    cores: ProcessCores[str] = ProcessCores(Cause.LOGIN_REFUSED)
    connecting, gate, made = threading.Event(), threading.Event(), core()

    def connect() -> Core:
        connecting.set()
        gate.wait(10)
        return made

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(cores.get, "a", connect)
        assert connecting.wait(10)
        cores.end("a")
        gate.set()
        with pytest.raises(Failure):
            asked.result(10)
    assert closed(made) == 1
    with pytest.raises(Failure):
        cores.get("a", core)
