"""The stand-in answers as XNAT's own code did: recorded replies, beside the repository where they are there
(`replies`).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from xnatfs.demo.faults import Switches
from xnatfs.demo.server import DemoServer

from . import replies
from .replies import compare, dataset, expected
from .replies.broken import compared
from .replies.replay import replayed
from .replies.send import Asker

pytestmark = pytest.mark.skipif(not replies.HERE.is_dir(), reason=replies.MISSING)


@pytest.fixture(scope="module")
def loaded() -> Iterator[DemoServer]:
    """A server with the recorded data. No firewall: the recording server had none of Spring's filters."""
    with DemoServer(
        dataset.load(replies.recorded("dataset")), Switches(hang_seconds=0.3, firewall=False)
    ) as server:
        yield server


def test_every_read_is_answered_as_recorded(loaded: DemoServer) -> None:
    asker = Asker(loaded)
    entries = replies.recorded("replies")
    different = {
        entry["id"]: found for entry in entries if (found := compare.differences(entry, asker.ask(entry)))
    }
    unexpected = {name: found for name, found in different.items() if name not in expected.READS}
    assert unexpected == {}
    assert sorted(expected.READS) == sorted(different), "an exception that is none any more"
    assert len(entries) - len(different) >= 796


def test_every_write_is_answered_and_moves_what_it_moved() -> None:
    """In sequence: statuses, stamps, counts and sizes of resources, sizes and digests of files,
    experiments.
    """
    different = dict(replayed(replies.recorded("dataset"), replies.recorded("writes")))
    unexpected = {
        name: found for name, found in different.items() if name.partition(" ")[0] not in expected.WRITES
    }
    assert unexpected == {}
    assert sorted(expected.WRITES) == sorted(name.partition(" ")[0] for name in different), (
        "an exception that is none any more"
    )


def test_a_failing_database_is_answered_as_recorded() -> None:
    """Stopped, its pool exhausted, one table broken, queries timing out, and after each of them."""
    assert dict(compared(replies.recorded("dataset"), replies.recorded("broken"))) == {}
