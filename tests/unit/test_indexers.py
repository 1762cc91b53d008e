"""Programs that read through the mount by themselves are served, and noticed once, with what keeps them
out.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from xnatfs.fuse.caller import Program, program_of
from xnatfs.fuse.indexers import INDEXERS, NOTICED, IndexerWatch


def process(proc: Path, pid: int, name: str, path: str = "", thread: int | None = None) -> None:
    """A process as `/proc` shows it; `thread`: the number of one of its threads."""
    for task in (pid, thread or pid):
        (proc / str(task)).mkdir(exist_ok=True)
        (proc / str(task) / "status").write_text(f"Name:\tpool-1\nUmask:\t0022\nTgid:\t{pid}\nPid:\t{task}\n")
    (proc / str(pid) / "comm").write_text(f"{name}\n")
    if path:
        (proc / str(pid) / "exe").symlink_to(path)


def watch_after(proc: Path, *tasks: int) -> IndexerWatch:
    watch = IndexerWatch("/home/ann/xnat", str(proc))
    for number in range(NOTICED):
        for task in tasks:
            watch.opened(task, folder=number % 2 == 0)
    return watch


def test_an_indexer_is_noticed_once_also_by_its_threads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process(tmp_path, 10, "baloo_file", thread=11)
    process(tmp_path, 20, "cp", thread=21)
    caplog.set_level(logging.WARNING)
    (told,) = watch_after(tmp_path, 10, 11, 20, 21, 99).report()
    assert (told["folders"], told["files"]) == (NOTICED, NOTICED)
    assert told["advice"] == "balooctl config add excludeFolders /home/ann/xnat"
    assert [record.getMessage() for record in caplog.records] == [
        "KDE's desktop search (baloo) is reading through this mount; what keeps it out: " + told["advice"]
    ]


def test_a_chance_visit_is_not_noticed(tmp_path: Path) -> None:
    process(tmp_path, 10, "updatedb")
    watch = IndexerWatch("/mnt", str(tmp_path))
    for _ in range(NOTICED - 1):
        watch.opened(10, folder=True)
    assert watch.report() == []
    watch.opened(10, folder=True)
    assert [one["program"] for one in watch.report()] == ["updatedb (of locate)"]


def test_an_editors_search_is_told_from_a_persons(tmp_path: Path) -> None:
    process(tmp_path, 10, "rg", "/usr/bin/rg")
    process(tmp_path, 20, "node", "/usr/bin/node")
    process(tmp_path, 30, "rg")  # another user's: its path is hidden
    assert watch_after(tmp_path, 10, 20, 30).report() == []
    process(tmp_path, 40, "rg", "/usr/share/code/resources/app/node_modules/@vscode/ripgrep/bin/rg")
    (told,) = watch_after(tmp_path, 40).report()
    assert told["program"] == "VS Code" and '"search.exclude": {"**/xnat": true}' in told["advice"]


def test_a_process_is_looked_up_once_and_not_for_each_file(tmp_path: Path) -> None:
    """Otherwise every `open` costs two reads of `/proc`."""
    process(tmp_path, 10, "updatedb")
    watch = IndexerWatch("/mnt", str(tmp_path))
    watch.opened(10, folder=True)
    (tmp_path / "10/comm").write_text("cp\n")
    for _ in range(NOTICED):
        watch.opened(10, folder=True)
    assert len(watch.report()) == 1


def test_names_are_as_long_as_the_kernel_keeps_them() -> None:
    assert all(0 < len(name) <= 15 for one in INDEXERS for name in one.names)


def test_a_thread_belongs_to_its_program() -> None:
    found: list[Program | None] = []
    thread = threading.Thread(target=lambda: found.append(program_of(threading.get_native_id())))
    thread.start()
    thread.join()
    (seen,) = found
    assert seen is not None and seen == program_of(os.getpid())
    assert seen.name == Path("/proc/self/comm").read_text().strip()
    assert program_of(1 << 30) is None
