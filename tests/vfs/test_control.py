"""README.txt and `.xnatfs/`: what the mount says of itself."""

from __future__ import annotations

import json

import pytest

from tests.support import read
from tests.vfs.conftest import FOLDER, Compose, Shelf
from xnatfs.core import Core
from xnatfs.demo.server import DemoServer
from xnatfs.diagnostics import Diagnostics
from xnatfs.errors import Cause, Failure
from xnatfs.text import printable


@pytest.fixture
def mounted(lab: DemoServer, compose: Compose) -> Core:
    return compose(lab)


def test_the_readme_tells_in_one_screen_what_is_here(mounted: Core, lab: DemoServer) -> None:
    text = read(mounted.vfs, "/README.txt").decode()
    assert lab.requests(r"/data/projects") == []  # `ls` of the mount never waits for the server
    assert mounted.vfs.attributes("/README.txt").size == len(text.encode())
    assert len(text.splitlines()) <= 24
    for part in (
        lab.url,
        "demo",
        "/mnt/xnat",
        "projects/",
        "archive/",
        "xnatfs unmount",
        "XNAT_DATA=/mnt/xnat/archive",
    ):
        assert part in text
    assert "  cat /mnt/xnat/tables/PROJECT/README.txt  " in text


def test_the_readme_names_a_project_once_one_is_known(mounted: Core) -> None:
    mounted.vfs.entries("/projects")
    text = read(mounted.vfs, "/README.txt").decode()
    assert mounted.vfs.attributes("/README.txt").size == len(text.encode())
    commands = [
        line.strip().split("  ")[0]
        for line in text.partition("To begin with:")[2].splitlines()
        if line.startswith("  ")
    ]
    assert [line.partition(" ")[0] for line in commands] == ["ls", "cat", "ls"]
    for line in commands:  # as typed: each path is there
        mounted.vfs.attributes(line.partition(" /mnt/xnat")[2])


def test_the_control_folder_is_there_but_not_listed(mounted: Core) -> None:
    assert ".xnatfs" not in dict(mounted.vfs.entries("/"))
    assert [name for name, _ in mounted.vfs.entries("/.xnatfs")] == [
        "status.json",
        "progress.txt",
        "errors.txt",
        "oddities.txt",
        "config.json",
    ]


def test_control_files_have_their_true_sizes(mounted: Core) -> None:
    for name, attributes in mounted.vfs.entries("/.xnatfs"):
        data = read(mounted.vfs, f"/.xnatfs/{name}")
        assert attributes.size == len(data) > 0


def test_the_status_tells_what_the_mount_does(mounted: Core, lab: DemoServer) -> None:
    list(mounted.vfs.entries("/projects/ALFA/subjects"))
    told = json.loads(read(mounted.vfs, "/.xnatfs/status.json"))
    assert (told["server"], told["user"], told["mountpoint"]) == (lab.url, "demo", "/mnt/xnat")
    assert told["requests"] > 3
    assert told["listings"]["projects listed"] == 1
    assert told["contents"]["cap"] == 10**9
    assert told["errors"] == {} and told["last_error"] is None
    assert told == json.loads(json.dumps(mounted.report())) | {
        key: told[key] for key in ("contents", "requests", "requests_under_way")
    }


def test_no_secret_is_in_any_of_it(shelf: Shelf, compose: Compose) -> None:
    shelf.make.user("sesame")  # whose password is the same word
    shelf.project.members.add("sesame")
    mounted = compose(shelf.server, user="sesame")
    mounted.connection.logins.user = "ann"  # the name itself may show
    for name, _ in mounted.vfs.entries("/.xnatfs"):
        assert "sesame" not in read(mounted.vfs, f"/.xnatfs/{name}").decode()


def test_the_settings_are_told(mounted: Core, lab: DemoServer) -> None:
    told = json.loads(read(mounted.vfs, "/.xnatfs/config.json"))
    assert told["server"] == lab.url
    assert told["limits"]["cache_size"] == 10**9
    assert told["serve_bad_digests"] is False


def test_errors_are_told_with_their_sentence(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("two\nlines", None, digest="d" * 32, catalog_size=5))
    mounted = compose(shelf.server)
    assert read(mounted.vfs, "/.xnatfs/errors.txt") == b"no errors\n"
    with pytest.raises(OSError):
        read(mounted.vfs, f"{FOLDER}/two%0Alines")
    told = mounted.report()
    assert told["errors"]["GONE"] >= 1
    assert "does not have it" in told["last_error"]["text"]


def test_nothing_odd_is_said_to_be_nothing(mounted: Core) -> None:
    assert read(mounted.vfs, "/.xnatfs/oddities.txt") == b"nothing unusual was found\n"


def test_the_form_a_server_refuses_is_told(lab: DemoServer, compose: Compose) -> None:
    lab.switches.profile = "proven"
    mounted = compose(lab)
    list(mounted.vfs.entries("/projects/ALFA/subjects"))
    assert "scans of a project" in mounted.report()["refused_forms"]


def test_troubles_are_bounded_and_counted() -> None:
    diagnostics = Diagnostics()
    for number in range(500):
        diagnostics.failed(Failure(Cause.GONE, str(number)))
    diagnostics.failed(Failure(Cause.TIMED_OUT))
    for number in range(10_100):
        diagnostics.odd(str(number))
        diagnostics.odd("the same")
    assert diagnostics.counts() == {"GONE": 500, "TIMED_OUT": 1}
    assert len(diagnostics.recent()) == 200
    assert diagnostics.recent()[-1].text == Cause.TIMED_OUT.sentence
    assert len(diagnostics.oddities()) == 10_000


def test_control_characters_of_others_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[31m\nb\u202eé") == "a\\x1b[31m\\nb\\u202eé"
