"""One node: a process with a cache of its own that reads everything of a project."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from xnatfs.auth.credentials import Credentials
from xnatfs.config import Limits, Settings
from xnatfs.core import compose
from xnatfs.vfs import Vfs

_PIECE_BYTES = 2**20


@dataclass
class Progress:
    """What others see of a node while it reads."""

    read: Synchronized[int]  # bytes of contents so far ...
    fetched: Synchronized[int]  # ... and from the server


@dataclass(frozen=True)
class Done:
    """What came of it."""

    seconds: float  # from the login to the last byte
    first: float  # ... to the first file
    size: int
    digest: str  # of the checksums of all files, in the order of the tree
    shared: dict[str, Any] | None


def files(vfs: Vfs, path: str) -> Iterator[str]:
    """Every file below a folder but what xnatfs adds."""
    for name, attributes in vfs.entries(path):
        below = f"{path}/{name}"
        if stat.S_ISDIR(attributes.mode):
            yield from files(vfs, below)
        elif not name.endswith(".txt"):
            yield below


def read_all(
    url: str, project: str, folder: Path, cache: int, shared: str, gate: Event, progress: Progress
) -> Done:
    """Wait for the gate, then read, with so many bytes of cache."""
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    settings = Settings(
        server=url,
        cache_dir=folder / "cache",
        state_dir=folder / "state",
        shared_cache=shared,
        limits=Limits(cache_size=cache),
    )
    gate.wait()
    begun = time.perf_counter()
    core = compose(settings, Credentials(url, "demo", "demo", "the measurement"), "")
    try:
        whole, first, size = hashlib.md5(usedforsecurity=False), 0.0, 0
        for path in files(core.vfs, f"/projects/{project}"):
            opened = core.vfs.open(path)
            checksum, position = 0, 0  # a quick one: who reads is not what is measured
            while piece := core.vfs.read(opened.handle, position, _PIECE_BYTES):
                checksum = zlib.crc32(piece, checksum)
                position += len(piece)
                progress.read.value += len(piece)
                progress.fetched.value = core.content_manager.context.link.received_bytes
            core.vfs.release(opened.handle)
            whole.update(checksum.to_bytes(4, "big"))
            size += position
            first = first or time.perf_counter() - begun
        seconds = time.perf_counter() - begun
    finally:
        core.close()
    return Done(seconds, first, size, whole.hexdigest(), core.report()["shared_cache"])


def run(number: int, results: Any, *arguments: Any) -> None:
    """A node's process: its number and what came of it, into a queue. It leaves no thread to wait for."""
    results.put((number, read_all(*arguments)))
    results.close()
    results.join_thread()
    os._exit(0)
