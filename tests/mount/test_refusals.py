"""A mount that cannot be: one plain sentence, a non-zero exit, no password on the screen, and nothing left
behind.
"""

from __future__ import annotations

import http.server
import os
import shutil
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.server.test_tls import expired
from tests.support import LET_GO, clear_away, fuse_mounts, lab_archive, mount, until, xnatfs
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer

SECRET = "correct horse battery"


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(build("empty")) as server:
        yield server


@dataclass
class Place:
    """An empty folder to mount at, and a login to try."""

    point: Path

    def login(self, url: str, password: str = SECRET) -> dict[str, str]:
        return {"XNAT_HOST": url, "XNAT_USER": "demo", "XNAT_PASS": password}

    def refused(
        self, env: dict[str, str], *options: str, point: Path | None = None, timeout: float = 60
    ) -> str:
        """The one sentence that `xnatfs mount` says."""
        where = point or self.point
        return self.plain(xnatfs("mount", str(where), *options, env=env, timeout=timeout), where)

    def plain(self, done: subprocess.CompletedProcess[str], where: Path) -> str:
        assert done.returncode not in (0, None) and done.returncode > 0, done
        assert done.stdout == ""
        said = done.stderr.splitlines()
        assert len(said) == 1 and said[0].startswith("xnatfs: "), done.stderr
        assert "Traceback" not in done.stderr and SECRET not in done.stderr
        assert str(where) not in fuse_mounts()
        assert not list(Path(os.environ["XNATFS_STATE_DIR"]).glob("mounts/*.json"))
        assert processes_with(str(where)) == []
        return said[0].removeprefix("xnatfs: ")


def processes_with(text: str) -> list[str]:
    """The commands that run with this text among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        if os.fsencode(text) in command:
            found.append(os.fsdecode(command))
    return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    point = tmp_path / "mnt"
    point.mkdir()
    return Place(point)


# --- the login ----------------------------------------------------------------------------------------------


def test_a_wrong_password_is_tried_once(server: DemoServer, place: Place) -> None:
    server.clear_log()
    said = place.refused(place.login(server.url))
    assert "refused this user name and password" in said and "demo" in said
    assert [record.path for record in server.requests()] == ["/xapi/siteConfig/buildInfo", "/data/JSESSION"]


def test_an_unknown_user_is_told_the_same(server: DemoServer, place: Place) -> None:
    said = place.refused({"XNAT_HOST": server.url, "XNAT_USER": "nobody", "XNAT_PASS": SECRET})
    assert "refused this user name and password" in said and "nobody" in said


def test_no_password_to_be_found(server: DemoServer, place: Place) -> None:
    said = place.refused({}, "--server", server.url)
    assert "no password" in said and "~/.netrc" in said


def test_no_server_named_and_none_known(place: Place) -> None:
    assert "which server?" in place.refused({})


def test_two_servers_known_and_none_named(place: Place, private_home: Path) -> None:
    netrc = private_home / ".netrc"
    netrc.write_text(
        "machine one.invalid login a password correct_horse\nmachine two.invalid login b password "
        "correct_horse\n"
    )
    netrc.chmod(0o600)
    said = place.refused({})
    assert "https://one.invalid" in said and "https://two.invalid" in said and "--server" in said
    assert "correct_horse" not in said


def test_a_password_in_the_url_is_not_repeated(place: Place) -> None:
    said = place.refused({}, "--server", "https://demo:correct_horse@one.invalid")
    assert "does not belong in the server URL" in said and "correct_horse" not in said


@pytest.mark.parametrize("url", ["ftp://one.invalid", "http://", "http://one.invalid:port"])
def test_a_url_that_is_none(place: Place, url: str) -> None:
    assert "is not a server URL" in place.refused({}, "--server", url)


# --- the way to the server ----------------------------------------------------------------------------------


def test_an_unknown_host(place: Place) -> None:
    assert "name cannot be resolved" in place.refused(place.login("http://xnat.invalid"))


def test_a_host_where_nothing_listens(place: Place) -> None:
    assert "cannot be reached" in place.refused(place.login("http://127.0.0.1:9"))


def test_an_expired_certificate(place: Place, tmp_path: Path) -> None:
    pair = expired(tmp_path)
    with DemoServer(build("empty"), tls=pair) as secure:
        said = place.refused(place.login(secure.url, "demo") | {"REQUESTS_CA_BUNDLE": str(pair[0])})
        assert "certificate is not trusted" in said
        assert secure.requests() == []


@contextmanager
def plain_server(answer: bytes | None) -> Iterator[str]:
    """An ordinary web server: of files (None), or one that gives this page for every address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if answer is None:
                super().do_GET()
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.server_address[1]}"
        finally:
            listener.shutdown()
            thread.join()


@pytest.mark.parametrize("answer", [None, b"<html><body>It works!</body></html>", b"User 'demo' is"])
def test_a_server_that_is_no_xnat(place: Place, answer: bytes | None) -> None:
    with plain_server(answer) as url:
        assert "not like an XNAT" in place.refused(place.login(url))


def test_an_xnat_that_is_out_of_order(place: Place) -> None:
    with DemoServer(build("empty")) as broken:
        broken.switches.fail_next = -1
        said = place.refused(place.login(broken.url, "demo"))
        assert "the server reported an error" in said and "503" in said


# --- the place ----------------------------------------------------------------------------------------------


def test_a_mountpoint_that_cannot_be_made(server: DemoServer, place: Place, tmp_path: Path) -> None:
    server.clear_log()
    (tmp_path / "file").write_text("")
    said = place.refused(place.login(server.url), point=tmp_path / "file" / "missing")
    assert said == f"{tmp_path}/file/missing does not exist and cannot be made: Not a directory"
    assert server.requests() == [], "no login is spent on it"


def test_a_mountpoint_that_was_made_is_gone_if_mounting_fails(
    server: DemoServer, place: Place, tmp_path: Path
) -> None:
    place.refused(place.login(server.url, "wrong"), point=tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_a_mountpoint_that_was_made_goes_with_the_mount(server: DemoServer, tmp_path: Path) -> None:
    env = Place(tmp_path).login(server.url, "demo")
    point = tmp_path / "new" / "mnt"
    try:
        xnatfs("mount", str(point), env=env, check=True)
        assert (point / "projects").is_dir()
        xnatfs("umount", str(point), env=env, check=True)
    finally:
        clear_away(point, Path(os.environ["XNATFS_STATE_DIR"]))
    until(lambda: not point.exists())


def test_the_demo_makes_its_folder_too(tmp_path: Path) -> None:
    point = tmp_path / "new" / "mnt"
    done = xnatfs("demo", "--once", str(point), timeout=120)
    assert done.returncode == 0 and "Unmounted." in done.stdout, done.stderr
    until(lambda: not point.exists())


@pytest.mark.parametrize(("asked", "like"), [("ALF", "ALFA"), ("alfa", "ALFA"), ("NOTHING", "")])
def test_a_project_that_is_not_there(place: Place, asked: str, like: str) -> None:
    with DemoServer(lab_archive()) as lab:
        said = place.refused(place.login(lab.url, "demo"), "--project", asked)
    hint = f"; did you mean {like}?" if like else ""
    assert said == f"no project {asked!r} that demo can read{hint}"


def test_an_http_server_that_is_written_as_https(server: DemoServer, place: Place) -> None:
    said = place.refused(place.login(server.url.replace("http://", "https://")))
    assert "does not speak TLS there" in said and "certificate" not in said


def test_a_mountpoint_that_is_a_file(server: DemoServer, place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert (
        place.refused(place.login(server.url), point=tmp_path / "file") == f"{tmp_path}/file is not a folder"
    )


def test_a_mountpoint_that_is_not_empty(server: DemoServer, place: Place) -> None:
    (place.point / "something").write_text("precious")
    said = place.refused(place.login(server.url))
    assert said == f"{place.point} is not empty; mount at an empty folder"
    assert (place.point / "something").read_text() == "precious"


def test_a_mountpoint_that_is_taken_by_another_mount_of_ours(server: DemoServer, tmp_path: Path) -> None:
    with mount(server.url, tmp_path) as mounted:
        pid = mounted.pid
        done = xnatfs("mount", str(mounted.point), env=mounted.env)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr == (
            f"xnatfs: xnat:127.0.0.1:{server.port} is already mounted at {mounted.point}; `xnatfs unmount "
            f"{mounted.point}` ends it\n"
        )
        assert mounted.pid == pid and (mounted.point / "README.txt").is_file()
        assert fuse_mounts().count(str(mounted.point)) == 1


def in_a_namespace_of_its_own(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script where what it mounts is seen by nobody else."""
    own = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    assert shutil.which("unshare")
    return subprocess.run(
        [*own, "sh", "-c", LET_GO + script, "sh", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ,
    )


def test_a_mountpoint_that_is_taken_by_another_file_system(
    server: DemoServer, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in place.login(server.url, "demo").items():
        monkeypatch.setenv(name, value)
    script = 'mount -t tmpfs mine "$1" && exec "$2" -m xnatfs mount "$1"'
    said = place.plain(in_a_namespace_of_its_own(script, str(place.point), sys.executable), place.point)
    assert said == f"mine (tmpfs) is already mounted at {place.point}"


def test_a_machine_without_fuse(
    server: DemoServer, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in place.login(server.url, "demo").items():
        monkeypatch.setenv(name, value)
    (tmp_path / "nothing").write_text("")
    server.clear_log()
    script = 'mount --bind "$1" /dev/fuse && exec "$2" -m xnatfs mount "$3"'
    said = place.plain(
        in_a_namespace_of_its_own(script, str(tmp_path / "nothing"), sys.executable, str(place.point)),
        place.point,
    )
    assert "no /dev/fuse" in said and "modprobe fuse" in said
    assert server.requests() == []


@pytest.mark.parametrize("size", ["much", "20 apples", "-5G"])
def test_a_cache_size_that_is_none(server: DemoServer, place: Place, size: str) -> None:
    assert "is not a size" in place.refused(place.login(server.url), f"--cache-size={size}")


def test_a_cache_that_cannot_be_made(server: DemoServer, place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = place.refused(place.login(server.url, "demo"), "--cache-dir", str(tmp_path / "file/cache"))
    assert "cache" in said
