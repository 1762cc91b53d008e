"""A table of many sessions by one process and by the workers of a local Dask cluster: the same bytes, and
what each takes. Run by `scripts/cluster`.
"""

from __future__ import annotations

import filecmp
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import distributed
import psutil

KEY, WORKERS = "freesurfer6/aparc", 2
_EVERY_S = 0.2


class Watch:
    """The most resident memory of processes, in MB."""

    def __init__(self, processes: dict[str, psutil.Process]) -> None:
        self._processes = processes
        self.most = dict.fromkeys(processes, 0.0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(_EVERY_S):
            for name, process in self._processes.items():
                try:
                    self.most[name] = max(self.most[name], process.memory_info().rss / 1e6)
                except psutil.NoSuchProcess:
                    continue

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@contextmanager
def served(sessions: int) -> Iterator[None]:
    """The embedded server with a cohort, and the login to it in the environment."""
    command = ["serve-demo", "--port", "0", "--data", "scale", "--sessions", "0", "--cohort", str(sessions)]
    process = subprocess.Popen([sys.executable, "-m", "xnatfs", *command], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = re.search(r"http://\S+", process.stdout.readline())
        if url is None:
            raise SystemExit("the embedded server did not start")
        os.environ.update(XNAT_HOST=url[0], XNAT_USER="demo", XNAT_PASS="demo")
        yield
    finally:
        process.terminate()
        process.wait()


def table(folder: Path, name: str, *more: str, beside: dict[str, psutil.Process]) -> tuple[float, Watch]:
    """Make the table, with a cache of its own."""
    begin = time.monotonic()
    command = ["table", "COHORT", KEY, "-o", f"{folder}/{name}.csv", "--cache-dir", f"{folder}/{name}"]
    process = subprocess.Popen([sys.executable, "-m", "xnatfs", *command, *more])
    watch = Watch({"xnatfs table": psutil.Process(process.pid), **beside})
    code = process.wait()
    watch.end()
    if code:
        raise SystemExit(f"xnatfs table ended with {code}")
    return time.monotonic() - begin, watch


def main() -> None:
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as place, served(sessions):
        folder = Path(place)
        alone, watch = table(folder, "one", beside={})
        print(f"{KEY}, {sessions:,} sessions")
        print(f"  one process: {alone:.1f} s, {watch.most['xnatfs table']:.0f} MB")
        with distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=2, dashboard_address=None, local_directory=place
        ) as cluster:
            beside = {
                f"worker {name}": psutil.Process(worker.pid) for name, worker in cluster.workers.items()
            }
            beside["scheduler"] = psutil.Process()
            address = cluster.scheduler_address
            spread, watch = table(folder, "two", "--dask", address, beside=beside)
        used = ", ".join(f"{name} {most:.0f} MB" for name, most in watch.most.items())
        print(f"  {WORKERS} workers: {spread:.1f} s ({spread / alone:.2f} x); {used}")
        same = filecmp.cmp(folder / "one.csv", folder / "two.csv", shallow=False)
        size = (folder / "one.csv").stat().st_size
        print(f"  {size / 1e6:.1f} MB, {'the same bytes' if same else 'NOT the same bytes'}")
        if not same:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
