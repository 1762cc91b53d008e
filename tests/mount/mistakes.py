"""Runs many commands as one user, for test_mistakes.py: `python -m tests.mount.mistakes FOLDER URL`.

Each command has a process of its own, forked from this one, which has loaded xnatfs: to start Python for each
would take half a minute. Reads the commands from standard input (JSON); writes what each said and its exit
code.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from xnatfs import cli


def run(words: list[str], env: dict[str, str], closed: str = "", cwd: str = "") -> dict[str, Any]:
    """What `xnatfs WORDS` says, and its exit code. `closed` names a stream (`stdout`, `stderr`), or is `full`
    for a standard output that is /dev/full.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(os.open("/dev/full", os.O_WRONLY) if closed == "full" else out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                for number, name in ((1, "stdout"), (2, "stderr")):
                    if name in closed:  # as Python finds them at its start
                        os.close(number)
                        setattr(sys, name, None)
                os.environ.update(env)
                if cwd == "removed":
                    os.chdir(tempfile.mkdtemp())
                    os.rmdir(os.getcwd())
                elif cwd:
                    os.chdir(cwd)
                cli.main(words)
                code = 0
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 98
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        for stream in (out, err):
            stream.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "out": out.read().decode(errors="backslashreplace"),
            "err": err.read().decode(errors="backslashreplace"),
        }


def main() -> None:
    folder, url = Path(sys.argv[1]), sys.argv[2]
    os.chdir(folder)
    for name in ("empty", "full", "mnt", "kept"):
        (folder / name).mkdir()
    (folder / "full" / "precious").write_text("precious")
    (folder / "file").write_text("[x\n")
    (folder / "binary").write_bytes(bytes(range(256)))
    for name in ("file", "binary"):
        (folder / name).chmod(0o600)
    (folder / "broken").symlink_to("nowhere")
    os.environ |= {
        "HOME": str(folder),
        "XNATFS_STATE_DIR": str(folder / "state"),
        "XNATFS_CACHE_DIR": str(folder / "cache"),
        **{"XNAT_HOST": url, "XNAT_USER": "demo", "XNAT_PASS": "demo"},
    }
    for module in (*cli._COMMANDS.values(), "xnatfs.fuse.adapter"):  # once, and not in every child
        importlib.import_module(module)
    before = sorted(path.name for path in folder.iterdir())
    results = [run(["mount", "--project", "ALFA", "mnt"], {})]
    for asked in json.load(sys.stdin):
        holder = None
        if asked.pop("busy", False):
            holder = subprocess.Popen(["sleep", "60"], cwd=folder / "mnt")
        try:
            results.append(run(**asked))
        finally:
            if holder is not None:
                holder.kill()
                holder.wait()
    run(["unmount", "mnt"], {})
    after = sorted(path.name for path in folder.iterdir() if path.name not in ("state", "cache"))
    print(
        json.dumps(
            {
                "results": results,
                "left behind": sorted(set(after) - set(before)),
                "mounts": [
                    line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line
                ],
                "uid": os.getuid(),
            }
        )
    )


if __name__ == "__main__":
    main()
