"""What real shells complete, with what `xnatfs completion` prints."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import composed, lab_archive
from xnatfs.daemon import mount_registry
from xnatfs.demo.server import DemoServer

POINT = "/mnt/study"
WAIT_S = 30


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment with `xnatfs` in PATH, one mount, and the projects that it listed."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "bin").mkdir()
    program = folder / "bin" / "xnatfs"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m xnatfs "$@"\n')
    program.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "XNATFS_CACHE_DIR": str(folder / "cache"),
        "XNATFS_STATE_DIR": str(folder / "state"),
        "HOME": str(folder),
        "TERM": "dumb",
    }
    with DemoServer(lab_archive()) as server, composed(server.url, folder) as core:
        core.listing_service.projects.all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XNATFS_STATE_DIR", env["XNATFS_STATE_DIR"])
        mount_registry.register(mount_registry.Registration(POINT, os.getpid(), "https://x", "ann", "", ""))
    yield env


def bash(words: str, _: str, env: dict[str, str]) -> str:
    split = words.split(" ")
    script = (
        f'eval "$(xnatfs completion bash)"; COMP_WORDS=({words}); COMP_CWORD={len(split) - 1}; '
        '_xnatfs_completion xnatfs; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return said(["bash", "-c", script], env)


def fish(words: str, _: str, env: dict[str, str]) -> str:
    return said(["fish", "--no-config", "-c", f"xnatfs completion fish | source; complete -C {words!r}"], env)


def zsh(words: str, whole: str, env: dict[str, str]) -> str:
    """Zsh completes at a terminal only: what is on it after the Tab key, once `whole` is."""
    assert shutil.which("zsh"), "apt-get install zsh"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("zsh", ["zsh", "-f", "-i"], {**env, "COLUMNS": "200"})
    try:
        os.write(terminal, b"autoload -U compinit; compinit -u -D\n")
        os.write(terminal, b'eval "$(xnatfs completion zsh)"; echo rea""dy\n')
        until(terminal, lambda shown: "\nready" in shown)
        os.write(terminal, f"{words}\t".encode())
        return until(terminal, lambda shown: whole in shown.split())
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def until(terminal: int, enough: Callable[[str], bool]) -> str:
    shown, deadline = "", time.monotonic() + WAIT_S
    while not enough(shown) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 4096).decode()
    return shown


def said(words: list[str], env: dict[str, str]) -> str:
    assert shutil.which(words[0]), f"apt-get install {words[0]}"
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("shell", [bash, zsh, fish])
@pytest.mark.parametrize(
    ("words", "whole"),
    [
        ("xnatfs stat", "status"),
        ("xnatfs mount --cache-s", "--cache-size"),
        ("xnatfs table ALF", "ALFA"),
        ("xnatfs table ALFA freesurfer7/ase", "freesurfer7/aseg"),
        ("xnatfs unmount /mn", POINT),
    ],
)
def test_a_shell_completes(
    here: dict[str, str], shell: Callable[[str, str, dict[str, str]], str], words: str, whole: str
) -> None:
    begun = words.split(" ")[-1]
    found = shell(words, whole, here)
    assert whole in found.split(), found
    assert begun != whole
