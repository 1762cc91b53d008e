"""The recorded writes, sent in sequence to a stand-in with the recorded data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xnatfs.demo.faults import Switches
from xnatfs.demo.server import DemoServer

from . import Entry, compare, watch
from .bodies import ON_DISK, body_of
from .dataset import load
from .send import Asker


def replayed(data: dict[str, Any], entries: list[Entry]) -> Iterator[tuple[str, list[str]]]:
    """For each write that comes out otherwise its id and what differs."""
    with DemoServer(load(data), Switches(firewall=False)) as server:
        asker = Asker(server)
        watcher = watch.Watcher(asker)
        before = watcher.look()
        for entry in entries:
            if entry["id"] in ON_DISK:
                server.call(lambda entry=entry: ON_DISK[entry["id"]](server.archive))  # type: ignore[misc]
            answer = asker.ask(entry, body_of(entry), chunked="chunked" in entry["note"])
            after = watcher.look()
            found = compare.written(entry, answer)
            mine, theirs = watch.changes(before, after), watch.recorded_changes(entry)
            found += [
                f"{name}: {mine.get(name)}, recorded {theirs.get(name)}"
                for name in theirs | mine
                if mine.get(name) != theirs.get(name)
            ]
            if found:
                yield f"{entry['id']} {entry['method']} {entry['target']}", found
            before = after
