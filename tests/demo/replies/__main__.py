"""A table of what differs, for a person who mends the stand-in: `python -m tests.demo.replies [ID ...]`."""

from __future__ import annotations

import sys
from collections import Counter

from xnatfs.demo.faults import Switches
from xnatfs.demo.server import DemoServer

from . import recorded
from .broken import compared
from .compare import differences
from .dataset import load
from .replay import replayed
from .send import Asker

if __name__ == "__main__":
    total: Counter[str] = Counter()
    agree: Counter[str] = Counter()
    if sys.argv[1:] == ["writes"]:
        for line in replayed(recorded("dataset"), recorded("writes")):
            print(*line, sep="\n      ")
        sys.exit()
    if sys.argv[1:] == ["broken"]:
        for name, found in compared(recorded("dataset"), recorded("broken")):
            print(name, *found, sep="\n      ")
        sys.exit()
    with DemoServer(load(recorded("dataset")), Switches(hang_seconds=0.3, firewall=False)) as server:
        asker = Asker(server)
        for entry in recorded("replies"):
            group = entry["id"].partition("-")[0]
            if sys.argv[1:] and entry["id"] not in sys.argv and group not in sys.argv:
                continue
            total[group] += 1
            found = differences(entry, asker.ask(entry))
            if found:
                mark = " (stub)" if "stub" in entry else ""
                print(f"{entry['id']}{mark} {entry['user']} {entry['method']} {entry['target']}")
                for line in found[:9]:
                    print(f"      {line[:700]}")
            else:
                agree[group] += 1
    print(
        *(f"{group}: {agree[group]} of {total[group]}" for group in total),
        f"all: {agree.total()} of {total.total()}",
        sep="\n",
    )
