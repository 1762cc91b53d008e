"""One operation in a process of its own, which can be stopped and killed: `python -m tests.faults.worker URL
FOLDER NUMBER`.

It says "ready" where the fault is to begin, waits for a line, goes on, and writes what came of it as a pickle
in hex."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

from tests.faults.operations import OPERATIONS
from tests.faults.world import World
from xnatfs.errors import Failure


def main() -> None:
    """See above."""
    url, folder, number = sys.argv[1:]
    operation = OPERATIONS[int(number)]
    steps = operation.run(world := World(None, Path(folder), url, ttl=operation.ttl))
    next(steps)
    print("ready", flush=True)
    sys.stdin.readline()
    came: object = None
    try:
        next(steps)
    except StopIteration as end:
        came = end.value
    except Failure as failure:
        came = (failure.cause.name, str(failure))
    print(pickle.dumps(came).hex(), flush=True)
    world.unmount()


if __name__ == "__main__":
    main()
