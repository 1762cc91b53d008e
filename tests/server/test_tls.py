"""Certificates that are trusted, and those that are not."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.conftest import connection
from tests.server.scripted import Answer, Asked, scripted
from tests.support import NEW_KEY, certificate
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


def expired(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate of the year 2020: only `openssl ca` takes dates in every version."""
    (folder / "index").touch()
    (folder / "serial").write_text("01\n")
    (folder / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={folder}/index\nserial={folder}/serial\nnew_certs_dir={folder}\n"
        "default_md=sha256\npolicy=p\nx509_extensions=e\n[p]\ncommonName=supplied\n"
        "[e]\nsubjectAltName=IP:127.0.0.1\nbasicConstraints=CA:TRUE\n[req]\ndistinguished_name=n\n[n]\n"
    )
    key, request, cert = folder / "old.key", folder / "old.csr", folder / "old.crt"
    new = ["req", "-new", *NEW_KEY]
    sign = [
        "ca",
        "-batch",
        "-selfsign",
        "-notext",
        "-startdate",
        "20200101000000Z",
        "-enddate",
        "20200102000000Z",
    ]
    for command in (
        [*new, "-keyout", str(key), "-out", str(request)],
        [*sign, "-keyfile", str(key), "-in", str(request), "-out", str(cert)],
    ):
        subprocess.run(
            ["openssl", *command, "-config", str(folder / "ca.cnf")],
            check=True,
            capture_output=True,
            timeout=30,
        )
    return cert, key


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"), "good", "IP:127.0.0.1", "-days", "2")


@pytest.fixture(scope="module")
def secure(pair: tuple[Path, Path]) -> Iterator[DemoServer]:
    with DemoServer(build("empty"), tls=pair) as server:
        yield server


def test_a_certificate_of_a_known_authority_is_taken(secure: DemoServer, pair: tuple[Path, Path]) -> None:
    with connection(secure.url, verify=str(pair[0])) as made:
        assert made.login() == "demo"


def test_a_private_authority_can_be_named_in_the_environment(
    secure: DemoServer, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pair[0]))
    with connection(secure.url) as made:
        assert made.login() == "demo"


def test_a_certificate_nobody_knows_is_refused_before_anything_is_sent(secure: DemoServer) -> None:
    secure.clear_log()
    with connection(secure.url) as made, pytest.raises(Failure) as caught:
        made.login()
    assert caught.value.cause is Cause.BAD_CERTIFICATE
    assert "REQUESTS_CA_BUNDLE" in str(caught.value)
    assert secure.requests() == []


def test_a_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    pair = certificate(tmp_path, "other", "DNS:xnat.example.org", "-days", "2")
    with DemoServer(build("empty"), tls=pair) as server, connection(server.url, verify=str(pair[0])) as made:
        with pytest.raises(Failure) as caught:
            made.login()
        assert caught.value.cause is Cause.BAD_CERTIFICATE


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    pair = expired(tmp_path)
    with DemoServer(build("empty"), tls=pair) as server, connection(server.url, verify=str(pair[0])) as made:
        with pytest.raises(Failure) as caught:
            made.login()
        assert caught.value.cause is Cause.BAD_CERTIFICATE


def test_a_move_from_http_to_https_on_the_same_host_is_followed(
    secure: DemoServer, pair: tuple[Path, Path]
) -> None:
    def script(one: Asked) -> Answer:
        return Answer(301, headers={"Location": secure.url + one.target})

    with scripted(script) as plain, connection(plain.url, verify=str(pair[0])) as made:
        assert made.login() == "demo"
        assert made.server == secure.url
        assert not any("authorization" in one.headers for one in plain.asked)


def test_plain_http_to_a_tls_port_is_told(secure: DemoServer) -> None:
    with connection(secure.url.replace("https", "http")) as made, pytest.raises(Failure) as caught:
        made.login()
    assert caught.value.cause in (Cause.CUT_SHORT, Cause.UNREACHABLE, Cause.NOT_AN_XNAT)


def test_a_server_that_hangs_up_in_the_handshake_is_not_blamed_for_its_certificate() -> None:
    taken = []

    def hang_up() -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = listener.accept()
                taken.append(one)
                one.recv(1)
                one.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=hang_up, daemon=True).start()
        with (
            connection(f"https://127.0.0.1:{listener.getsockname()[1]}") as made,
            pytest.raises(Failure) as caught,
        ):
            made.login()
        listener.shutdown(socket.SHUT_RDWR)
    assert caught.value.cause is Cause.CUT_SHORT
    assert len(taken) >= 3, "it is worth another try"
