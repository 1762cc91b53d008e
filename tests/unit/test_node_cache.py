"""Where a node's own cache is, if there is a shared one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xnatfs.cli import node_cache
from xnatfs.daemon import mount_table


@pytest.mark.parametrize(
    ("kinds", "where", "said"),
    [
        ({"home": "ext4"}, "home", ""),
        ({"home": "nfs4", "scratch": "xfs"}, "scratch/xnatfs-{user}", "/home is on another machine (nfs4)\n"),
        ({"home": "lustre", "scratch": "tmpfs"}, "home", "disk of this node with --cache-dir"),
        ({"home": "fuse.sshfs", "scratch": "nfs"}, "home", "disk of this node with --cache-dir"),
    ],
)
def test_it_is_on_a_disk_of_the_node(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kinds: dict[str, str],
    where: str,
    said: str,
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    known = {str(tmp_path / name): kind for name, kind in kinds.items()}
    monkeypatch.setattr(mount_table, "kind_of", lambda path: known.get(str(path), "nfs"))
    found = node_cache.node_cache(tmp_path / "home")
    assert found == tmp_path / where.format(user=os.geteuid())
    shown = capsys.readouterr().err
    assert said in shown if said else shown == ""
