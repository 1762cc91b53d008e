"""The operations of the matrix: what a user does, from the first look to the last byte.

Each is a generator: it prepares, yields where the fault is to begin, goes on, and returns what it got;
`again` is the same on a mount that has been through it. What should have been got is in `truth`."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from tests.faults.truth import LARGE, MIB, PLAIN, RANDOM, SCAN, SMALL, N, aseg, cells_of, folders, true_files
from tests.faults.world import World
from xnatfs.demo.model import Archive

Got = dict[str, Any]
Steps = Generator[None, None, Got]
_TABLE = "/tables/P/freesurfer6/aseg.csv"
_PROBLEMS = "/tables/P/freesurfer6/aseg.problems.csv"
_SEED = 6
_PIECE = 131072


@dataclass(frozen=True)
class Operation:
    """One column of the report. `listing`: whether it is listings that it waits for (else contents)."""

    name: str
    run: Callable[[World], Steps]
    again: Callable[[World], Got]
    truth: Callable[[Archive], Got]
    listing: bool = False
    both_profiles: bool = False
    ttl: float = 3600.0  # nothing ages by itself, unless waiting for that is all there is

    def __str__(self) -> str:
        return self.name


# --- listings -----------------------------------------------------------------------------------------------


def _listed(world: World, folder: str = N) -> Got:
    return {folder: {name: one.size for name, one in world.entries(folder).items()}}


def _list(world: World) -> Steps:
    world.mount()
    yield
    return _listed(world)


def _stat(world: World) -> Steps:
    world.mount()
    world.entries("/projects/P/subjects")
    yield
    return _size(world)


def _size(world: World) -> Got:
    return {f"{N}/n1.txt": world.attributes(f"{N}/n1.txt").size}


def _true_list(archive: Archive) -> Got:
    return {N: folders(archive)[N]}


def _true_size(archive: Archive) -> Got:
    return {f"{N}/n1.txt": folders(archive)[N]["n1.txt"]}


# --- contents -----------------------------------------------------------------------------------------------


def _true(*paths: str) -> Callable[[Archive], Got]:
    def truth(archive: Archive) -> Got:
        found = true_files(archive)
        return {path: found[path].read() for path in paths}

    return truth


def _whole(path: str) -> tuple[Callable[[World], Steps], Callable[[World], Got]]:
    def again(world: World) -> Got:
        return {path: world.whole(path)}

    def run(world: World) -> Steps:
        world.entries(path.rpartition("/")[0])
        yield
        return again(world)

    return run, again


def _open(world: World) -> Steps:
    world.entries(SMALL.rpartition("/")[0])
    yield
    return _opened(world)


def _opened(world: World) -> Got:
    """Opening proves the size and fetches a small file; what is read of it afterwards needs nobody."""
    handle = world.open(SMALL)
    try:
        return {SMALL: world.read(handle, 0, 2 * MIB)}
    finally:
        world.release(handle)


def _sequential(world: World) -> Steps:
    world.entries(LARGE.rpartition("/")[0])
    handle = world.open(LARGE)
    try:
        data = bytearray()
        while len(data) < MIB // 4:
            data += world.read(handle, len(data))
        yield
        while piece := world.read(handle, len(data)):
            data += piece
        return {LARGE: bytes(data)}
    finally:
        world.release(handle)


def _places() -> list[int]:
    chance = random.Random(_SEED)
    return [chance.randrange(0, 6 * MIB - _PIECE) for _ in range(8)]


def _at(world: World, handle: int, places: list[int]) -> Got:
    return {f"{RANDOM} at {place}": world.read(handle, place) for place in places}


def _random(world: World) -> Steps:
    world.entries(RANDOM.rpartition("/")[0])
    handle = world.open(RANDOM)
    try:
        got = _at(world, handle, _places()[:1])
        yield
        return got | _at(world, handle, _places()[1:])
    finally:
        world.release(handle)


def _randomly(world: World) -> Got:
    handle = world.open(RANDOM)
    try:
        return _at(world, handle, _places())
    finally:
        world.release(handle)


def _true_places(archive: Archive) -> Got:
    data = true_files(archive)[RANDOM].read()
    return {f"{RANDOM} at {place}": data[place : place + _PIECE] for place in _places()}


def _zip(world: World) -> Steps:
    names = list(world.entries(SCAN))
    got = {f"{SCAN}/{names[0]}": world.whole(f"{SCAN}/{names[0]}")}
    yield
    return got | {f"{SCAN}/{name}": world.whole(f"{SCAN}/{name}") for name in names[1:]}


def _slices(world: World) -> Got:
    return {f"{SCAN}/{name}": world.whole(f"{SCAN}/{name}") for name in world.entries(SCAN)}


def _true_slices(archive: Archive) -> Got:
    return {path: one.read() for path, one in true_files(archive).items() if path.startswith(SCAN)}


# --- the rest -----------------------------------------------------------------------------------------------


def _table(world: World) -> Steps:
    world.entries("/tables/P")
    yield
    return _built(world)


def _built(world: World) -> Got:
    cells = cells_of(world.whole(_TABLE))
    return dict(cells) if len(cells) == 3 else {**cells, "problems": world.whole(_PROBLEMS).decode()}


def _true_table(archive: Archive) -> Got:
    return dict(aseg(archive))


def _remount(world: World) -> Steps:
    _listed(world)
    world.whole(SMALL)
    world.unmount()
    yield
    return _remounted(world)


def _remounted(world: World) -> Got:
    world.unmount()
    return _listed(world) | {SMALL: world.whole(SMALL)}


def _true_remount(archive: Archive) -> Got:
    return _true_list(archive) | _true(SMALL)(archive)


OPERATIONS = (
    Operation("list", _list, _listed, _true_list, listing=True, both_profiles=True),
    Operation("stat", _stat, _size, _true_size, listing=True),
    Operation("open", _open, _opened, _true(SMALL)),
    Operation("read in order", _sequential, _whole(LARGE)[1], _true(LARGE)),
    Operation("read a small file", *_whole(SMALL), _true(SMALL)),
    Operation("... without a digest", *_whole(PLAIN), _true(PLAIN)),
    Operation("read here and there", _random, _randomly, _true_places),
    Operation("read a scan", _zip, _slices, _true_slices),
    Operation("build a table", _table, _built, _true_table, listing=True, ttl=1.0),
    Operation("mount again", _remount, _remounted, _true_remount, listing=True),
)
