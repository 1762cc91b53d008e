"""What the commands say when they are called in a wrong way; the right ways are tested with real mounts."""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.support import xnatfs
from xnatfs import __version__, cli, config
from xnatfs.cli import doctor, format, mount, status
from xnatfs.daemon import dead_mounts, mount_registry, mount_table
from xnatfs.daemon.control import ControlServer
from xnatfs.daemon.mount_registry import Registration
from xnatfs.demo import server as demo_server
from xnatfs.errors import UsageError
from xnatfs.tables.registry import LEFT_OUT


class Said(str):
    """What a command said, with its exit code."""

    code: int


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(cli.logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(dead_mounts, "dead", list)  # other tests kill their mounts at the same time

    def call(*arguments: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        out, err = capsys.readouterr()
        said = Said(out + err)
        said.code = ended.value.code if isinstance(ended.value.code, int) else 0
        return said

    return call


@pytest.fixture
def no_mount(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """`mount` goes as far as the mounting itself."""
    started: list[Any] = []
    monkeypatch.setattr(mount, "check_fuse", lambda: None)
    monkeypatch.setattr(
        mount,
        "background",
        lambda settings, login, place, **more: started.append((settings, login, place, more)),
    )
    monkeypatch.setattr(
        mount,
        "foreground",
        lambda settings, login, place, **more: started.append((settings, login, place, more)),
    )
    return started


def test_the_version_is_told(run: Any) -> None:
    said = run("--version")
    python = re.escape(platform.python_version())
    assert said.code == 0
    assert re.fullmatch(
        rf"xnatfs {re.escape(__version__)} \(Python {python}, (libfuse [23]\.\d+|without libfuse); "
        r"extras: [a-z0-9, ]+\)",
        said.strip(),
    )


def test_help_names_every_command(run: Any) -> None:
    said = run("--help")
    assert said.code == 0
    assert all(f"\n  {name} " in said for name in cli._COMMANDS)


@pytest.mark.parametrize("name", list(cli._COMMANDS))
def test_every_command_has_help_and_no_option_for_a_password(run: Any, name: str) -> None:
    said = run(name, "--help")
    assert said.code == 0 and "Usage:" in said
    command: click.Command = importlib.import_module(cli._COMMANDS[name]).command
    options = {option for parameter in command.params for option in parameter.opts}
    assert not {option for option in options if "pass" in option or "secret" in option}


@pytest.mark.parametrize("name", list(cli._COMMANDS))
def test_every_command_starts_in_an_interpreter_of_its_own(name: str) -> None:
    """Nothing has imported before what it needs; most other tests fork what has (`tests.forked`)."""
    done = xnatfs(name, "--help", interpreter=True)
    assert (done.returncode, done.stderr) == (0, "") and f"Usage: xnatfs {name}" in done.stdout


def test_as_a_program_it_says_one_sentence_and_exits_with_1(tmp_path: Path) -> None:
    result = xnatfs("mount", str(tmp_path), interpreter=True)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("xnatfs: which server?")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["mount"],
        ["mount", "a", "b"],
        ["mount", "--nonsense", "a"],
        ["mount", "--bad-digest=x", "a"],
    ],
)
def test_a_wrong_call_is_refused_with_2(run: Any, arguments: list[str]) -> None:
    said = run(*arguments)
    assert said.code == 2
    assert "Traceback" not in said


def test_mount_fills_the_settings(
    run: Any, no_mount: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("HOST", "https://a.org"), ("USER", "ann"), ("PASS", "sesame")):
        monkeypatch.setenv(f"XNAT_{name}", value)
    (tmp_path / "mnt").mkdir()
    options = [
        "--project",
        "P",
        "--project",
        "Q",
        "--cache-dir",
        "c",
        "--cache-size",
        "3M",
        "--bad-digest",
        "serve",
        "--allow-other",
        "--inode32",
    ]
    monkeypatch.chdir(tmp_path)
    said = run("mount", "mnt", *options)
    assert said.code == 0
    assert said.splitlines() == [
        f"https://a.org is mounted at {tmp_path}/mnt; `xnatfs unmount {tmp_path}/mnt` ends it",
        f"xnatfs: warning: every user of this machine can now read, at {tmp_path}/mnt, everything "
        f"that ann may read at https://a.org",
    ]
    settings, login, place, more = no_mount[0]
    assert (login.user, place, more["allow_other"]) == ("ann", str(tmp_path / "mnt"), True)
    assert (settings.projects, settings.cache_dir, settings.serve_bad_digests) == (
        ("P", "Q"),
        tmp_path / "c",
        True,
    )
    assert settings.limits.cache_size == 3_000_000 and settings.inode32
    assert "sesame" not in said and "sesame" not in repr(settings)
    assert run("mount", "--foreground", "mnt").code == 0
    assert "ready" in no_mount[1][3]


def test_inode32_is_refused_with_an_overlay(run: Any, no_mount: list[Any], tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    said = run("mount", "--inode32", "--overlay", str(tmp_path / "mine"), str(tmp_path / "mnt"))
    assert said.code != 0 and "--inode32 cannot be used with --overlay" in said
    assert no_mount == []


def test_mount_refuses_a_bad_size_before_anything_else(run: Any, tmp_path: Path) -> None:
    said = run("mount", "--cache-size", "lots", str(tmp_path))
    assert (said.code, said.strip()) == (1, "xnatfs: 'lots' is not a size; write it like 500M, 20G or 1.5T")


def test_a_mountpoint_that_cannot_be_used_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    for name, problem in (
        ("file", "is not a folder"),
        ("full", "is not empty"),
    ):
        with pytest.raises(UsageError, match=problem):
            mount.check_mountpoint(str(tmp_path / name))
    with pytest.raises(UsageError, match=r"\(proc\) is already mounted at /proc"):
        mount.check_mountpoint("/proc")
    (tmp_path / "free").mkdir()
    for name in ("free", "none"):  # that one is made
        mount.check_mountpoint(str(tmp_path / name))
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="a link to nothing"):
        mount.check_mountpoint(str(tmp_path / "link"))


SMALL = "too small for any image"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mount", "--cache-size", "20", "x"], f"--cache-size 20 is 20 bytes, {SMALL}; did you mean 20G?"),
        (["mount", "--cache-size", "5K", "x"], f"--cache-size 5K is 5000 bytes, {SMALL}"),
    ],
)
def test_a_slip_is_met_with_what_was_meant(run: Any, words: list[str], said: str) -> None:
    result = run(*words)
    assert (result.code, result.strip()) == (1, f"xnatfs: {said}")


@pytest.mark.parametrize(
    ("typed", "like"),
    [("mont", "; did you mean mount or unmount?"), ("docter", "; did you mean doctor?"), ("qqq", "")],
)
def test_a_misspelt_command(run: Any, typed: str, like: str) -> None:
    result = run(typed)
    assert result.code == 2 and f"Error: there is no command {typed!r}{like}\n" in result


NOWHERE = {"XNATFS_STATE_DIR": "/proc/nowhere/state", "XNATFS_CACHE_DIR": "/proc/nowhere/cache"}


@pytest.mark.parametrize(
    "words", [["status"], ["doctor"], ["unmount", "x"], ["login", "--server", "http://x"]]
)
def test_a_place_that_cannot_be_used_is_one_sentence(words: list[str]) -> None:
    """HOME missing, read-only or full: `/proc` takes no folder, from root neither."""
    done = xnatfs(*words, env={**NOWHERE, "HOME": "/proc/nowhere"})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("xnatfs: ")


def test_an_error_nobody_expected(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(mount_registry, "running", broken)
    said = run("status")
    assert said.code == 70
    assert said.strip() == (
        "xnatfs: unexpected error: RuntimeError: out of order (`xnatfs --debug ...` shows where)"
    )
    with pytest.raises(RuntimeError):
        cli.main(["--debug", "status"])


def test_output_that_nobody_reads_to_its_end() -> None:
    """As of `xnatfs table --list | head -1`."""
    done = subprocess.run(
        ["bash", "-c", '"$0" -m xnatfs table --list | head -1; exit ${PIPESTATUS[0]}', sys.executable],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "subjects\n", "")


@pytest.mark.parametrize("words", [["--log-file", "{log}", "-vv"], ["-vv", "--log-file", "{log}"]])
def test_the_log_goes_where_it_is_sent(tmp_path: Path, words: list[str]) -> None:
    log = tmp_path / "log"
    url = "http://127.0.0.1:9"
    options = [word.format(log=log) for word in words]
    done = xnatfs(*options, "login", "--server", url, "--user", "x", env={"XNAT_PASS": "y"})
    assert done.returncode == 1
    assert "DEBUG" not in done.stderr and "INFO" not in done.stderr
    assert log.exists()


def test_an_option_can_be_set_in_the_environment(tmp_path: Path) -> None:
    done = xnatfs("mount", str(tmp_path), env={"XNATFS_MOUNT_CACHE_SIZE": "20"})
    assert "--cache-size 20 is 20 bytes" in done.stderr


def test_umount_is_unmount(run: Any, tmp_path: Path) -> None:
    assert run("umount", str(tmp_path)).strip() == f"xnatfs: nothing is mounted at {tmp_path}"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("https://x.org/app/template/Login.vm", "https://x.org"),
        ("x.org/xnat/data/projects/P", "https://x.org/xnat"),
        ("https://x.org/xnat/app/action/DisplayItemAction/search_value/P?x=1#tab", "https://x.org/xnat"),
        ("https://x.org/REST/", "https://x.org"),
        ("https://x.org/;jsessionid=A1", "https://x.org"),
        ("https://x.org/database", "https://x.org/database"),  # its own folder, no path of XNAT's
    ],
)
def test_the_address_of_a_page_is_cut(typed: str, meant: str) -> None:
    assert config.normal_url(typed) == meant


def test_a_mountpoint_that_is_taken_by_a_living_mount_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path)
    monkeypatch.setattr(
        mount_table, "at", lambda _: mount_table.MountEntry("xnat:a.org", place, "fuse.xnatfs")
    )
    monkeypatch.setattr(mount_table, "state_of", lambda _: mount_table.ANSWERS)
    mount_registry.register(Registration(place, os.getpid(), "https://a.org", "ann", "", ""))
    with pytest.raises(UsageError, match=r"xnat:a\.org is already mounted"):
        mount.check_mountpoint(place)
    monkeypatch.setattr(
        mount_registry, "of", lambda _: None
    )  # of another state directory: it is not taken away
    with pytest.raises(UsageError, match=r"xnat:a\.org is already mounted"):
        mount.check_mountpoint(place)


def test_a_dead_mount_is_cleared_away_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnt").mkdir()
    place, cleared = str(tmp_path / "mnt"), []
    monkeypatch.setattr(
        mount_table, "at", lambda _: mount_table.MountEntry("xnat:a.org", place, "fuse.xnatfs")
    )
    monkeypatch.setattr(mount_table, "state_of", lambda _: mount_table.DEAD)
    monkeypatch.setattr(mount_table, "unmount", lambda where, lazy: cleared.append((where, lazy)) or "")
    mount.check_mountpoint(place)
    assert cleared == [(place, True)]
    monkeypatch.setattr(mount_table, "unmount", lambda where, lazy: "not permitted")
    with pytest.raises(UsageError, match="could not be removed: not permitted"):
        mount.check_mountpoint(place)


def test_a_machine_without_fuse_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path
    monkeypatch.setattr(
        mount, "Path", lambda text: real(str(text).replace("/dev/fuse", str(tmp_path / "fuse")))
    )
    with pytest.raises(UsageError, match=r"no /dev/fuse; load the kernel module"):
        mount.check_fuse()
    monkeypatch.setattr(mount, "Path", lambda text: real("/dev/null"))
    monkeypatch.setattr(mount_table, "fusermount", lambda: None)
    monkeypatch.setattr(mount.os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="fusermount3 was not found"):
        mount.check_fuse()
    monkeypatch.setattr(mount.os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="have no permission to open /dev/fuse"):
        mount.check_fuse()


@pytest.mark.parametrize("arguments", [["unmount"], ["status"], ["refresh"]])
def test_without_a_mount_there_is_nothing_to_talk_to(run: Any, arguments: list[str], tmp_path: Path) -> None:
    said = run(*arguments, str(tmp_path))
    assert said.code == 1
    assert str(tmp_path) in said and said.startswith("xnatfs: ")


def test_status_and_refresh_of_nothing(run: Any) -> None:
    said = run("status")
    assert (said.code, said.strip()) == (0, "nothing is mounted")
    assert json.loads(run("status", "--json")) == []
    said = run("refresh")
    assert (said.code, said.strip()) == (1, "xnatfs: nothing is mounted")


def test_unmount_leaves_other_peoples_mounts_alone(run: Any) -> None:
    said = run("unmount", "/proc")
    assert said.code == 1
    assert "is not an xnatfs mount" in said


REPORT = {
    "mountpoint": "/mnt/x",
    "server": "https://a.org",
    "user": "ann",
    "pid": 12,
    "started": "2024-03-05 06:07:08",
    "requests": 7,
    "server_version": "",
    "contents": {"cached files": 3, "cached bytes": 1_234_567, "cap": 20e9, "transfers": 0, "open files": 1},
    "errors": {"TIMED_OUT": 2},
    "last_error": {"when": 0, "text": "evil \x1b[31m name: the server did not answer in time"},
    "indexers": [{"program": "recoll", "folders": 70, "files": 1, "since": 0.0, "advice": "do this"}],
    "oddities": 4,
}


def test_status_is_told_in_plain_words_without_terminal_escapes() -> None:
    told = status._text(REPORT)
    for part in (
        "/mnt/x  https://a.org as ann (pid 12)",
        "7 requests",
        "(version unknown)",
        "3 files, 1.2 MB of 20.0 GB",
        "2 x timed out",
        "  recoll reads through this mount (70 folders, 1 file); what keeps it out: do this",
        "4 oddities",
    ):
        assert part in told
    assert "\x1b" not in told and r"\x1b[31m" in told
    assert format.size(5e12) == "5.0 TB" and format.size(10) == "10 B"


def test_status_says_since_when_the_server_is_away_and_why() -> None:
    since = time.mktime((2024, 3, 5, 19, 2, 11, 0, 0, -1))
    well = REPORT | {"offline": False, "away": None, "server_silent_for": 0.4}
    assert "  server: answers\n" in status._text(well)
    assert "has not answered for 7 s" in status._text(well | {"server_silent_for": 7.2})
    away = {"since": since, "cause": "UNREACHABLE", "words": "connection refused", "next_try": 3.7}
    told = (
        "  server: has not answered since 2024-03-05 19:02 (connection refused); next try in 4 s; "
        "listed and cached data is served\n"
    )
    assert told in status._text(well | {"away": away})
    assert "next try on demand;" in status._text(well | {"away": away | {"next_try": None}})
    recent = away | {"since": time.time() - 60}
    assert re.search(r"since \d\d:\d\d:\d\d \(", status._text(well | {"away": recent}))
    assert "server:" not in status._text(well | {"offline": True})


def test_the_running_mounts_are_asked(run: Any, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []
    place = str(tmp_path / "mnt")
    server = ControlServer(
        tmp_path / "s", {"status": lambda _: REPORT, "refresh": lambda one: asked.append(one)}
    )
    mount_registry.register(Registration(place, os.getpid(), "https://a.org", "ann", str(tmp_path / "s"), ""))
    try:
        assert "7 requests" in run("status")
        assert json.loads(run("status", "--json", place)) == [REPORT]
        said = run("refresh", place + "/projects/P")
        assert (said.code, said.strip()) == (0, f"{place} will check https://a.org again")
        assert run("refresh").code == 0
        assert [one["below"] for one in asked] == ["/projects/P", ""]
    finally:
        server.close()
    said = run("status")
    assert said.code == 1
    assert "does not answer" in said


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--sessions", "3"], "--sessions needs --data scale"),
        (["--cohort", "3"], "--cohort needs --data scale"),
        (["--cohort-images"], "--cohort-images needs --data scale"),
        (["--set", "nonsense"], "write it as NAME=VALUE"),
        (["--set", "nonsense=1"], "nonsense"),
        (["--set", "no_range=perhaps"], "no_range takes a bool"),
        (["--set", "fail_next=x"], "fail_next takes a int"),
    ],
)
def test_serve_demo_refuses_what_it_does_not_know(run: Any, arguments: list[str], problem: str) -> None:
    said = run("serve-demo", *arguments)
    assert said.code == 1
    assert problem in said


def test_serve_demo_sets_its_switches(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    monkeypatch.setattr(
        demo_server, "serve", lambda archive, settings, **more: served.append((archive, settings, more))
    )
    said = run(
        "serve-demo",
        "--data",
        "scale",
        "--sessions",
        "0",
        "--set",
        "no-range=true",
        "--set",
        "fail_rate=0.5",
        "--set",
        "zip_omit=a,b",
    )
    assert said.code == 0
    _, settings, more = served[0]
    assert (settings.no_range, settings.fail_rate, settings.zip_omit, more["port"]) == (
        True,
        0.5,
        ["a", "b"],
        8080,
    )


def test_doctor_without_a_login_says_what_is_missing(run: Any) -> None:
    said = run("doctor")
    assert said.code == 1
    assert "which server?" in said
    assert __version__ in said


def test_doctor_and_the_tables_for_programs(run: Any) -> None:
    said = run("doctor", "--json")
    found = json.loads(said)
    assert said.code == 1 and {"level", "subject", "finding"} == set(found[0])
    assert [one["subject"] for one in found if one["level"] == "bad"][-1:] == ["login"]
    listed = json.loads(run("table", "--list", "--json"))
    by_name = {one["name"]: one for one in listed["tables"]}
    assert by_name["freesurfer7/aseg"]["reads"] and by_name["sessions"]["reads"] == []
    assert set(LEFT_OUT) == {one["name"] for one in listed["not available"]}


@pytest.mark.parametrize(
    ("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_a_terminal_without_colour(env: dict[str, str], coloured: bool) -> None:
    said = CliRunner().invoke(cli.cli, ["doctor"], env={"TERM": "xterm", **env}, color=True).output
    assert ("\x1b[" in said) is coloured


def test_doctor_says_why_a_directory_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XNATFS_CACHE_DIR", str(tmp_path / "file" / "x"))
    assert ("bad", "cache", f"{tmp_path}/file/x: Not a directory") in list(doctor._machine())


def test_ctrl_c_ends_quietly_with_130(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**_: Any) -> None:
        raise click.exceptions.Abort

    monkeypatch.setattr(cli.cli, "main", interrupt)
    assert run("status").code == 130


def test_a_closed_pipe_is_no_error(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(cli.cli, "main", broken)
    assert run("status").code == 0
