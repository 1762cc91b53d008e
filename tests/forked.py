"""`xnatfs` in a process forked from one that has imported it: 0.1 to 0.4 s of CPU less than in a new one.

Used by `tests.support`: a thousand of these processes start in a run of all tests. What forks is
multiprocessing's server, a process without threads. That every command starts in an interpreter of its own,
`tests/unit/test_cli.py` shows.
Threading: any thread.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import types
from pathlib import Path
from unittest import mock

from xnatfs.cli import _COMMANDS, main

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__, *_COMMANDS.values(), "xnatfs.fuse.adapter"])
_starting = threading.Lock()


def forked(
    arguments: tuple[str, ...], env: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `xnatfs` with these arguments in this environment, as `subprocess.run` would.

    Raises:
        TimeoutExpired: it has not ended in time; it is killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = _context.Process(target=_run, args=(arguments, env, os.getcwd(), folder))
        # Else the new process would import the program that runs the tests.
        with _starting, mock.patch.dict(sys.modules, {"__main__": types.ModuleType("__main__")}):
            process.start()
        process.join(timeout)
        code = process.exitcode
        if code is None:
            process.kill()
            process.join()
        process.close()
        if code is None:
            raise subprocess.TimeoutExpired(arguments, timeout)
        said, errors = ((Path(folder) / name).read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(arguments, code, said, errors)


def _run(arguments: tuple[str, ...], env: dict[str, str], cwd: str, folder: str) -> None:
    """The new process: what an interpreter of its own would find, then the command."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, name in ((1, "stdout"), (2, "stderr")):
        output = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(output, number)
        os.close(output)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.argv = ["xnatfs", *arguments]
    try:
        main(list(arguments))
    finally:
        atexit._run_exitfuncs()
