"""The replies recorded while the database failed, asked of a stand-in whose switches say the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xnatfs.demo.faults import Switches
from xnatfs.demo.server import DemoServer

from . import Entry
from .compare import differences
from .dataset import load
from .send import Asker

_NORMAL: dict[str, object] = {
    "database_down": False,
    "pool_exhausted": False,
    "failing_table": "",
    "failing_query": "",
}


def switches_of(condition: str) -> list[dict[str, object]]:
    """Which switches stand for a recorded condition; of several any may.

    How far a request got within a statement timeout was a matter of chance: nothing failed, its own query, or
    all from the beginning."""
    if condition.startswith("database stopped"):
        return [{"database_down": True}]
    if condition.startswith("table "):
        return [{"failing_table": condition.split()[1]}]
    if condition.startswith("connection pool"):
        return [{"pool_exhausted": True, "pool_wait_s": 0.0}]
    if condition.startswith("statement timeout"):
        return [{}, {"failing_query": "."}, {"database_down": True}]
    return [{}]


def compared(data: dict[str, Any], entries: list[Entry]) -> Iterator[tuple[str, list[str]]]:
    """For each reply that comes out otherwise, its id and what differs."""
    with DemoServer(load(data), Switches(firewall=False)) as server:
        asker = Asker(server)
        for user in ("u3", "admin"):
            asker.ask({"user": user, "auth": "cookie", "method": "GET", "target": "/data/auth", "note": ""})
        for entry in entries:
            tries = []
            for switches in switches_of(entry["condition"]):
                server.switches.update(_NORMAL | switches)
                tries.append(differences(entry, asker.ask(entry, b"x" if entry["method"] == "PUT" else None)))
                server.switches.update(_NORMAL)
            if all(tries):
                yield entry["id"], tries[-1] if len(tries) == 1 else [" | ".join(found[0] for found in tries)]
