"""What a failed request leaves in a cycle is collected soon, and the bytes of a broken download with it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import requests
import urllib3

from tests.support import until
from xnatfs.daemon.gc_tuning import Collecting, settle
from xnatfs.errors import Failure
from xnatfs.server.downloads import _pieces


@pytest.fixture
def settled() -> Iterator[None]:
    before = gc.get_threshold()
    settle()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


class Thing:
    """Something in a cycle with itself."""

    def __init__(self) -> None:
        self.itself = self


def test_a_cycle_is_collected_soon(settled: None) -> None:
    seen = weakref.ref(Thing())
    assert seen() is not None, "nothing is shown: it went by itself"
    collecting = Collecting(0.05)
    try:
        until(lambda: seen() is None, 10)
    finally:
        collecting.close()


class Held(bytearray):
    """Bytes that can be asked after."""


class _Breaking:
    """Gives some bytes, then breaks."""

    def __init__(self, piece: Held) -> None:
        self._pieces = [piece]

    def read1(self, _: int, decode_content: bool) -> Held:
        if self._pieces:
            return self._pieces.pop()
        raise urllib3.exceptions.ProtocolError("cut")


def test_a_broken_download_holds_no_bytes() -> None:
    piece = Held(b"x" * 1000)
    seen = weakref.ref(piece)
    response = requests.Response()
    response.url, response.raw = "http://x", _Breaking(piece)
    del piece
    before = gc.isenabled()
    gc.disable()
    try:
        with pytest.raises(Failure) as caught:
            list(_pieces(response, 10.0))
        kept = caught.value  # as a transfer keeps it for its readers
        del caught
        assert kept.__cause__ is not None and seen() is None
    finally:
        if before:
            gc.enable()
