"""How mounts are found and talked to."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xnatfs.config import state_home
from xnatfs.daemon import control, mount_registry, mount_table
from xnatfs.daemon.control import ControlServer
from xnatfs.daemon.mount_registry import Registration
from xnatfs.daemon.warm_up import survey
from xnatfs.errors import UsageError


def registration(mountpoint: str, pid: int = 0) -> Registration:
    return Registration(
        mountpoint, pid or os.getpid(), "https://a.org", "ann", "/run/none.sock", "/tmp/none.log"
    )


def test_a_file_of_unknown_size_makes_no_plan_of_terabytes(tmp_path: Path) -> None:
    """`xnatfs warm` shows how many bytes are to come."""
    (tmp_path / "image.nii").write_bytes(bytes(5000))
    with open(tmp_path / "table.csv", "wb") as table:
        table.truncate(1 << 40)
    plan = survey([str(tmp_path), str(tmp_path / "table.csv")], lambda _: None)
    assert (plan.files, plan.bytes) == (3, 5000)


@pytest.fixture
def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(20)
    return process.pid


# --- the registry -------------------------------------------------------------------------------------------


def test_a_registered_mount_is_found_by_its_mountpoint(tmp_path: Path) -> None:
    one = registration(str(tmp_path / "mnt"))
    path = mount_registry.register(one)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert mount_registry.running() == [one]
    assert mount_registry.of(str(tmp_path / "mnt")) == one
    assert mount_registry.of(str(tmp_path / "other")) is None
    path.unlink()
    assert mount_registry.running() == []


def test_a_path_lies_in_the_innermost_mount(tmp_path: Path) -> None:
    outer, inner = registration(str(tmp_path / "m")), registration(str(tmp_path / "m" / "n"))
    mount_registry.register(outer)
    mount_registry.register(inner)
    assert mount_registry.containing(str(tmp_path / "m" / "x" / "y")) == outer
    assert mount_registry.containing(str(tmp_path / "m" / "n" / "y")) == inner
    assert mount_registry.containing(str(tmp_path / "m" / "n")) == inner
    assert mount_registry.containing(str(tmp_path / "mm")) is None


def test_a_mount_whose_process_is_gone_is_forgotten(tmp_path: Path, dead_pid: int) -> None:
    path = mount_registry.register(registration(str(tmp_path / "m"), dead_pid))
    assert mount_registry.running() == []
    assert not path.exists()


def test_a_process_that_only_has_the_old_number_is_not_the_mount(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        mount_registry.register(registration(str(tmp_path / "m"), other.pid))
        assert mount_registry.running() == []
        other.kill()


def test_a_broken_registration_does_not_hide_the_others(tmp_path: Path) -> None:
    one = registration(str(tmp_path / "m"))
    folder = mount_registry.register(one).parent
    (folder / "0.json").write_text("{")
    (folder / "1.json").write_text("{}")
    (folder / "2.json").write_text("[]")
    assert mount_registry.running() == [one]


def test_links_above_the_mountpoint_are_resolved_but_not_the_mountpoint(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "m").symlink_to("/nowhere")
    assert mount_registry.absolute(str(tmp_path / "link" / "m")) == str(tmp_path / "real" / "m")
    assert mount_registry.absolute("/") == "/"
    assert mount_registry.absolute(str(tmp_path / "real" / "x" / "..") + "/") == str(tmp_path / "real")


def test_the_socket_lies_in_a_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = mount_registry.socket_path("/mnt/" + "x" * 300)
    assert len(str(path.relative_to(tmp_path))) < 60
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert mount_registry.socket_path("/mnt/a") != mount_registry.socket_path("/mnt/b")
    path.parent.chmod(0o755)
    with pytest.raises(UsageError, match="not a private folder"):
        mount_registry.socket_path("/mnt/a")


def test_the_log_lies_in_the_state_directory() -> None:
    path = mount_registry.log_path("/mnt/a")
    assert path.parent == state_home() / "logs"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


# --- the control socket -------------------------------------------------------------------------------------


def fail(asked: dict[str, Any]) -> Any:
    raise ValueError("that went wrong")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    made = ControlServer(
        tmp_path / "s.sock", {"echo": lambda asked: asked, "fail": fail, "large": lambda _: "x" * 300_000}
    )
    yield made
    made.close()


def test_a_command_is_answered(server: ControlServer, tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    assert control.ask(path, "echo", below="/é") == {"command": "echo", "below": "/é"}
    assert control.ask(path, "large") == "x" * 300_000


def test_only_the_owner_can_use_the_socket(server: ControlServer, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "s.sock").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("command", "problem"), [("nonsense", "unknown command 'nonsense'"), ("fail", "that went wrong")]
)
def test_a_refusal_is_told(server: ControlServer, tmp_path: Path, command: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        control.ask(str(tmp_path / "s.sock"), command)
    assert control.ask(str(tmp_path / "s.sock"), "echo")


@pytest.mark.parametrize("line", [b"no json\n", b"[]\n", b'{"other": 1}\n', b"\n"])
def test_nonsense_is_answered_with_an_error_and_harms_nothing(
    server: ControlServer, tmp_path: Path, line: bytes
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(str(tmp_path / "s.sock"))
        connection.sendall(line)
        with connection.makefile("rb") as stream:
            assert "error" in json.loads(stream.readline())
    assert control.ask(str(tmp_path / "s.sock"), "echo")


def test_a_mount_that_is_gone_does_not_answer(server: ControlServer, tmp_path: Path) -> None:
    server.close()
    assert not (tmp_path / "s.sock").exists()
    with pytest.raises(UsageError, match="does not answer"):
        control.ask(str(tmp_path / "s.sock"), "echo")


def test_a_socket_left_by_a_killed_mount_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(tmp_path / "s.sock"))
    made = ControlServer(tmp_path / "s.sock", {"echo": lambda asked: 1})
    assert control.ask(str(tmp_path / "s.sock"), "echo") == 1
    made.close()


# --- what is mounted ----------------------------------------------------------------------------------------


def test_what_is_mounted_is_read_from_the_kernel() -> None:
    entry = mount_table.at("/proc")
    assert entry is not None
    assert entry.kind == "proc"
    assert mount_table.at("/no such place") is None
    assert not mount_table.is_dead("/proc")
    assert mount_table.wait_gone("/no such place", 0)
    assert not mount_table.wait_gone("/proc", 0)


def test_blanks_in_mountpoints_are_read() -> None:
    assert mount_table._unescape(r"/mnt/my\040data\134x") == "/mnt/my data\\x"


def test_what_cannot_be_unmounted_is_told(tmp_path: Path) -> None:
    assert mount_table.unmount(str(tmp_path), lazy=False) != ""


def test_without_the_helper_a_user_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount_table, "fusermount", lambda: None)
    monkeypatch.setattr(mount_table.os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="fuse3"):
        mount_table.unmount(str(tmp_path), lazy=True)
