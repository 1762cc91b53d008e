"""To whom the password goes, and to whom never: plain http, redirects, certificates, addresses of last
time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.conftest import connection
from tests.server.scripted import Answer, Asked, scripted, xnat
from tests.support import certificate
from xnatfs.config import normal_url, shown_url
from xnatfs.demo.data import build
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure, UsageError
from xnatfs.server.connection import Connection
from xnatfs.server.login_state import Known
from xnatfs.server.resultset import rows_of

PLAIN = "http://xnat.example.org"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"), "good", "IP:127.0.0.1", "-days", "2")


@pytest.fixture(scope="module")
def secure(pair: tuple[Path, Path]) -> object:
    with DemoServer(build("empty"), tls=pair) as server:
        yield server


def failed(made: Connection, known: Known | None = None) -> Failure:
    with pytest.raises(Failure) as caught:
        made.login(known)
    return caught.value


def proxied(one: Asked) -> Answer:
    """Plays xnat.example.org, as a proxy that the environment names: no test talks to anything but this
    machine.
    """
    return xnat(Asked(one.method, one.target.removeprefix(PLAIN), one.headers))


# --- plain http ---------------------------------------------------------------------------------------------


@pytest.fixture
def through_proxy(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def use(url: str) -> None:
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", url)

    return use


def test_no_password_crosses_a_network_in_the_clear_unless_that_is_asked_for(
    through_proxy: Callable[[str], None],
) -> None:
    with scripted(proxied) as network:
        through_proxy(network.url)
        with connection(PLAIN) as made:
            failure = failed(made)
        assert failure.cause is Cause.PLAIN_HTTP
        assert "--allow-http" in str(failure) and PLAIN in str(failure)
        assert [("authorization" in one.headers, "cookie" in one.headers) for one in network.asked] == [
            (False, False)
        ]
        with connection(PLAIN, allow_http=True) as made:
            assert made.login() == "demo"


def test_an_address_of_last_time_does_not_get_round_that(through_proxy: Callable[[str], None]) -> None:
    with scripted(proxied) as network:
        through_proxy(network.url)
        with connection(PLAIN) as made:
            assert failed(made, Known(PLAIN, "demo", "")).cause is Cause.PLAIN_HTTP
        assert not any("authorization" in one.headers for one in network.asked)


def test_this_machine_is_no_network_unless_a_proxy_stands_between(
    through_proxy: Callable[[str], None],
) -> None:
    with scripted(xnat) as server:
        with connection(server.url) as made:
            assert made.login() == "demo"
        with scripted(
            lambda one: xnat(Asked(one.method, one.target.removeprefix(server.url), one.headers))
        ) as network:
            through_proxy(network.url)
            with connection(server.url) as made:
                assert failed(made).cause is Cause.PLAIN_HTTP
            assert not any("authorization" in one.headers for one in network.asked)


# --- redirects ----------------------------------------------------------------------------------------------


def test_from_https_nobody_is_led_to_http(pair: tuple[Path, Path]) -> None:
    with scripted(xnat) as plain:
        with scripted(
            lambda one: Answer(302, headers={"Location": plain.url + one.target}), tls=pair
        ) as server:
            with connection(server.url, verify=str(pair[0])) as made:
                failure = failed(made)
            assert failure.cause is Cause.MOVED and plain.url in str(failure)
            assert not any("authorization" in one.headers for one in server.asked)
        assert plain.asked == []


@pytest.mark.parametrize("where", ["/data/projects", "/data/JSESSION", "/data/auth"])
def test_no_request_with_a_password_or_a_cookie_follows_a_redirect(where: str) -> None:
    with scripted(xnat) as thief:

        def script(one: Asked) -> Answer:
            if one.target.startswith(where):
                return Answer(307, headers={"Location": f"{thief.url}{one.target}"})
            return xnat(one)

        with scripted(script) as server, connection(server.url) as made, pytest.raises(Failure):
            made.login()
            made.listing("/data/projects", {}, rows_of)
        assert thief.asked == []


def test_the_address_of_last_time_is_used_only_if_it_is_the_same_host(pair: tuple[Path, Path]) -> None:
    with scripted(xnat) as thief, scripted(xnat) as server, connection(server.url) as made:
        for stolen in (thief.url, thief.url.replace("127.0.0.1", "localhost"), "http://[", ""):
            assert made.login(Known(stolen, "demo", "")) == "demo"
            assert made.server == server.url
        assert thief.asked == []


def test_a_remembered_upgrade_is_used_at_once(pair: tuple[Path, Path]) -> None:
    def script(one: Asked) -> Answer:
        return Answer(body=b"User 'demo' is logged in", headers={"Set-Cookie": "JSESSIONID=1; Path=/"})

    with (
        scripted(script, tls=pair) as upgraded,
        scripted(xnat) as plain,
        connection(plain.url, verify=str(pair[0])) as made,
    ):
        made.login(Known(upgraded.url, "demo", ""))
        assert made.server == upgraded.url
        assert plain.asked == []


@pytest.mark.parametrize(
    "location",
    [
        "http://[",
        "http://:80:80/",
        "//",
        "",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "http://u:pw@127.0.0.1:1/x?secret=1;jsessionid=A",
    ],
)
def test_a_location_that_is_nonsense_ends_in_a_sentence(location: str) -> None:
    with (
        scripted(lambda one: Answer(302, headers={"Location": location})) as odd,
        connection(odd.url) as made,
    ):
        failure = failed(made)
    assert failure.cause in (Cause.MOVED, Cause.NOT_AN_XNAT)
    for secret in ("pw", "secret", "jsessionid"):
        assert secret not in str(failure)


def test_a_url_is_shown_without_what_is_secret_in_it() -> None:
    assert shown_url("https://me:pw@h.org:8443/a/b;jsessionid=1?token=2#3") == "https://h.org:8443/a/b"
    for text in ("https://me:p/w@h.org", "http://me:pw@h.org", "me:p:w@h:x"):
        with pytest.raises(UsageError) as caught:
            normal_url(text)
        assert "w@h" not in str(caught.value)


# --- certificates -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_private_authority_is_named_by_any_of_the_usual_variables(
    secure: DemoServer, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(pair[0]))
    with connection(secure.url) as made:
        assert made.login() == "demo"


def test_a_file_of_certificates_that_is_not_there_ends_in_a_sentence(
    secure: DemoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with connection(secure.url) as made:
        failure = failed(made)
    assert failure.cause is Cause.BAD_CERTIFICATE and "/nowhere/ca.pem" in str(failure)


def test_verify_false_is_done_and_warned_about(secure: DemoServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), connection(secure.url, verify=False) as made:
        assert made.login() == "demo"
    assert "certificate" in caplog.text and "not checked" in caplog.text


# --- answers to a login -------------------------------------------------------------------------------------


def test_an_answer_without_an_end_is_not_read_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def script(one: Asked) -> Answer:
        asked.append(one)
        return Answer(body=b"x" * 2**20, length=2**40)

    with scripted(script) as odd, connection(odd.url) as made:
        assert failed(made).cause is Cause.NOT_AN_XNAT


def test_cookies_without_an_end_are_not_all_kept() -> None:
    def script(one: Asked) -> Answer:
        return Answer(200, b"{}", {"Set-Cookie": f"c{one.target.rpartition('=')[2]}={'x' * 3000}; Path=/"})

    with scripted(script) as odd, connection(odd.url) as made:
        for number in range(100):
            made.get("/x", params={"n": str(number)})
        assert len(made.transport.cookies) <= 40
        assert "c99" not in str(odd.asked[-1].headers.get("cookie"))


@pytest.mark.parametrize(
    "headers",
    [{f"X-{n}": "y" for n in range(500)}, {"X": "y" * 100_000}, {"Set-Cookie": ";;;=\x01=; Path=\xff"}],
)
def test_headers_that_are_nonsense_end_in_a_sentence(headers: dict[str, str]) -> None:
    with scripted(lambda one: Answer(200, b"{}", headers)) as odd, connection(odd.url) as made:
        assert failed(made).cause in (Cause.CUT_SHORT, Cause.UNREACHABLE, Cause.NOT_AN_XNAT)
