"""All cells, in a process a core: `python -m tests.dialects [PART OF A NAME]`; see `scripts/dialects`."""

from __future__ import annotations

import multiprocessing
import os
import sys

from tests.dialects.report import PAGE, PROFILES, page, run

if __name__ == "__main__":
    wanted = " ".join(sys.argv[1:])
    parts = os.cpu_count() or 1
    jobs = [(profile, part, parts, wanted) for profile in PROFILES for part in range(parts)]
    # Each in a process of its own: a cell patches what all threads of a process use.
    with multiprocessing.get_context("spawn").Pool(parts, maxtasksperchild=1) as pool:
        results = [one for found in pool.imap_unordered(run, jobs, chunksize=1) for one in found]
    wrong = [(name, outcome.wrong) for _, _, name, outcome in results if outcome.wrong]
    for name, what in sorted(wrong):
        print(name, *what[:5], sep="\n      ")
    if not wanted:
        PAGE.write_text(page(results))
    print(f"{len(results)} cells, {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)
