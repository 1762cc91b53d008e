"""Who opens a file at the very moment at which nobody waited for it any more and its fetch was given up."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.support import read, until
from tests.vfs.conftest import FOLDER, Compose, Shelf
from xnatfs.concurrency.waiting import interruptible
from xnatfs.content.stream_receiver import StreamReceiver
from xnatfs.content.transfer import Transfer
from xnatfs.demo.model import ComputedContent
from xnatfs.errors import Failure

PATH = f"{FOLDER}/f"


def waiting(one: Any) -> int:
    """How many have this file open, or wait for it to open."""
    return len(one._streams.readers) if isinstance(one, StreamReceiver) else one.file.readers


@pytest.mark.parametrize(
    ("kind", "name", "size"), [(Transfer, "_fetch", 30_000), (StreamReceiver, "receive", 9 << 20)]
)
def test_it_is_asked_for_anew(
    shelf: Shelf, compose: Compose, monkeypatch: pytest.MonkeyPatch, kind: Any, name: str, size: int
) -> None:
    """Seen in an hour of everything at once: the failure of a fetch that nobody waited for went to who came a
    moment later.
    """
    content = ComputedContent("f", size)
    shelf.put(shelf.make.entry("f", content, digest=""))
    vfs = compose(shelf.server).vfs
    vfs.attributes(PATH)
    shelf.switches.match, shelf.switches.cut_after_bytes, shelf.switches.cut_next = "/files/f", 0, 1
    begun, left = threading.Event(), threading.Event()
    fetch, fetches = getattr(kind, name), []
    second: list[Future[bytes]] = []
    with ThreadPoolExecutor(1) as pool:

        def in_the_worker(one: Any, *arguments: Any) -> Any:
            fetches.append(one)
            begun.set()
            assert left.wait(20)
            try:
                return fetch(one, *arguments)
            finally:
                if not second:
                    second.append(pool.submit(read, vfs, PATH))
                    until(lambda: waiting(one) or len(fetches) > 1)

        monkeypatch.setattr(kind, name, in_the_worker)
        with interruptible(begun.is_set), pytest.raises(OSError) as caught:
            vfs.open(PATH)
        assert caught.value.errno == errno.EINTR
        left.set()
        until(lambda: second)
        assert second[0].result(60) == content.read(0, size)
    assert shelf.switches.cut_next == 0 and len(fetches) > 1


@pytest.mark.parametrize(("kind", "size"), [(Transfer, 30_000), (StreamReceiver, 9 << 20)])
def test_it_is_asked_for_anew_where_its_request_was_ended(
    shelf: Shelf, compose: Compose, monkeypatch: pytest.MonkeyPatch, kind: Any, size: int
) -> None:
    """The last to give up ends a request that has no answer yet. Seen too: who came just then got EINTR, or
    SIGBUS.
    """
    content = ComputedContent("f", size)
    shelf.put(shelf.make.entry("f", content, digest=""))
    vfs = compose(shelf.server).vfs
    vfs.attributes(PATH)
    shelf.switches.match, shelf.switches.silent_next = "/files/f", 1
    receive, asked = kind._receive, []
    second: list[Future[bytes]] = []
    with ThreadPoolExecutor(1) as pool:

        def in_the_worker(one: Any, *arguments: Any) -> Any:
            asked.append(one)
            try:
                return receive(one, *arguments)
            except Failure:
                if not second:
                    second.append(pool.submit(read, vfs, PATH))
                    until(lambda: waiting(one) or len(asked) > 1)
                raise

        monkeypatch.setattr(kind, "_receive", in_the_worker)
        with interruptible(lambda: shelf.switches.fired["silent"] > 0), pytest.raises(OSError) as caught:
            vfs.open(PATH)
        assert caught.value.errno == errno.EINTR
        until(lambda: second)
        assert second[0].result(60) == content.read(0, size)
