"""A server that has gone silent: what is listed and cached is there at once, and nothing waits for longer
than it has to.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import pytest

from tests.support import read, until
from tests.vfs.conftest import FOLDER, Compose, Shelf
from xnatfs.config import Limits
from xnatfs.core import Core
from xnatfs.listing import wait_policy
from xnatfs.server import breaker

AGED = Limits(cache_size=10**9, ttl=0.0, revalidate_after=0.0, progress_deadline=6.0, listing_deadline=60.0)


@pytest.fixture
def silent(shelf: Shelf, compose: Compose, monkeypatch: pytest.MonkeyPatch) -> Iterator[Core]:
    """A mount with a listed folder and a cached file, all of it to be asked for again, and a server that says
    nothing any more.
    """
    monkeypatch.setattr(wait_policy, "QUIET_S", 0.5)
    for name in "fg":
        shelf.put(
            shelf.make.entry(name, f"content of {name}".encode(), digest="")
        )  # without one it is asked for again
    mounted = compose(shelf.server, limits=AGED)
    assert read(mounted.vfs, f"{FOLDER}/f") == b"content of f"
    shelf.switches.latency_ms = 3.6e6
    yield mounted
    shelf.server.stop()


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def test_what_has_aged_is_shown_as_it_was(silent: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    vfs = silent.vfs
    assert seconds(lambda: vfs.entries(FOLDER)) < 5, "the request waits for 60 s"
    # Somebody is known to wait now.
    assert median(seconds(lambda: vfs.entries(FOLDER)) for _ in range(5)) < 0.4
    assert median(seconds(lambda: read(vfs, f"{FOLDER}/f")) for _ in range(5)) < 0.4
    assert [name for name, _ in vfs.entries("/projects")] == ["P"]


def test_what_is_not_here_fails_once_the_server_is_known_to_be_away(
    silent: Core, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "SILENCE", 0.5)
    monkeypatch.setattr("xnatfs.server.http_transport._PROBE_TIMEOUT", 0.5)
    vfs = silent.vfs
    with pytest.raises(OSError) as caught:
        vfs.open(f"{FOLDER}/g")
    assert caught.value.errno == errno.ETIMEDOUT
    until(lambda: silent.connection.breaker.away())

    def refused() -> None:
        with pytest.raises(OSError):
            vfs.open(f"{FOLDER}/g")

    assert median(seconds(refused) for _ in range(5)) < 1
    report = silent.report()
    assert report["away"]["words"] == "silence" and not report["server_answers"]
    shelf.switches.latency_ms = 0
    until(lambda: silent.connection.breaker.away() is None, 20)
    assert read(vfs, f"{FOLDER}/g") == b"content of g"
    assert silent.report()["server_answers"]


def test_refresh_has_a_look_at_once(silent: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(silent.connection.breaker, "wake", lambda: asked.append(True))
    silent.refresh()
    assert asked


def test_a_file_that_stalls_ends_in_time_though_others_come(shelf: Shelf, compose: Compose) -> None:
    """What moves elsewhere is no progress of this one. With all its retries it would take nine seconds."""
    shelf.put(shelf.make.entry("large", bytes(8 * 2**20 - 1)))
    shelf.put(shelf.make.entry("stalls", b"content"))
    vfs = compose(
        shelf.server,
        limits=Limits(cache_size=10**9, ttl=3600.0, progress_deadline=3.0, listing_deadline=30.0),
    ).vfs
    vfs.entries(FOLDER)
    shelf.switches.bandwidth = 500_000.0  # 17 s
    shelf.switches.match, shelf.switches.stall_after_bytes = "files/stalls", 0
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(read, vfs, f"{FOLDER}/large")
        until(lambda: any(one.sent > 300_000 for one in shelf.server.requests("files/large")))
        began = time.monotonic()
        with pytest.raises(OSError) as caught:
            vfs.open(f"{FOLDER}/stalls")
        assert caught.value.errno == errno.ETIMEDOUT
        assert time.monotonic() - began < 7
        assert not other.done()
        shelf.switches.bandwidth = 0.0
        assert len(other.result(60)) == 8 * 2**20 - 1
