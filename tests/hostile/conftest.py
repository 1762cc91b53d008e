"""What these tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.conftest import connection
from tests.server.scripted import Answer, Asked, Script, scripted, xnat
from xnatfs import retry
from xnatfs.config import Limits
from xnatfs.server.connection import Connection

LIMITS = Limits(progress_deadline=20.0, listing_deadline=60.0, connect_timeout=10.0)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here is what is tried, not the pauses between (`tests/unit/test_retry.py`)."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)


class Evil:
    """A server that lets one log in and answers everything else as `answer` says."""

    def __init__(self) -> None:
        self.answer: Script = lambda one: Answer(404)
        self.asked: list[Asked] = []

    def script(self, one: Asked) -> Answer:
        self.asked.append(one)
        reply = xnat(one)
        return self.answer(one) if reply.status == 404 else reply

    def sends(self, body: bytes, kind: str = "application/json", **headers: str) -> None:
        """Every other request gets this."""
        self.answer = lambda one: Answer(body=body, headers={"Content-Type": kind, **headers})


@pytest.fixture
def evil() -> Evil:
    return Evil()


@pytest.fixture
def logged_in(evil: Evil) -> Iterator[Connection]:
    """A connection to it."""
    with scripted(evil.script) as server, connection(server.url, limits=LIMITS) as made:
        made.login()
        evil.asked.clear()
        yield made
