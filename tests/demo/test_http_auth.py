"""Sessions, logins, tokens (xnat-rest.md 1)."""

from __future__ import annotations

import pytest
import requests

from xnatfs.demo.server import DemoServer

from .conftest import Client


def test_each_cookieless_request_makes_a_session(server: DemoServer) -> None:
    ids = {
        requests.get(server.url + "/data/JSESSION", auth=("alice", "alice"), timeout=5).text for _ in range(3)
    }
    assert len(ids) == 3


def test_cookie_is_the_session_and_basic_heals_it(alice: Client, server: DemoServer) -> None:
    first = alice.get("/data/JSESSION").text
    assert alice.cookies["JSESSIONID"] == first == alice.get("/data/JSESSION").text
    server.expire_sessions()
    healed = alice.get("/data/JSESSION")
    assert healed.status_code == 200 and healed.text != first


def test_session_alone_is_enough_until_it_expires(alice: Client, nobody: Client, server: DemoServer) -> None:
    alice.get("/data/JSESSION")
    nobody.cookies.update(alice.cookies)
    assert nobody.get("/data/auth").text == "User 'alice' is logged in"
    server.switches.expire_after_requests = 1
    reply = nobody.get("/data/auth")
    assert reply.status_code == 401 and reply.headers["WWW-Authenticate"].startswith("Basic")


def test_idle_timeout(alice: Client, nobody: Client, server: DemoServer) -> None:
    alice.get("/data/JSESSION")
    nobody.cookies.update(alice.cookies)
    server.switches.session_timeout_s = 0.0
    assert nobody.get("/data/auth").status_code == 401


def test_browser_is_sent_to_a_login_page(nobody: Client) -> None:
    reply = nobody.get("/data/projects", headers={"User-Agent": "Mozilla/5.0"})
    assert (
        reply.status_code == 200 and reply.url.endswith("/app/template/Login.vm") and "<html>" in reply.text
    )
    assert reply.history[0].status_code == 302
    assert (
        nobody.get("/data/projects", headers={"User-Agent": "Mozilla XNATDesktopClient"}).status_code == 401
    )


def test_guest_when_no_login_is_required(nobody: Client, server: DemoServer) -> None:
    server.switches.require_login = False
    assert nobody.get("/data/auth").text == "User 'guest' is logged in"
    assert nobody.get("/data/JSESSION").status_code == 200
    assert {row["ID"] for row in nobody.rows("/data/projects")} == {"PUB", "PROT"}


def test_expired_session_is_silently_guest_there(alice: Client, nobody: Client, server: DemoServer) -> None:
    server.switches.require_login = False
    nobody.cookies["JSESSIONID"] = alice.get("/data/JSESSION").text
    assert {row["ID"] for row in nobody.rows("/data/projects")} == {"P1", "PUB", "PROT"}
    server.expire_sessions()
    assert {row["ID"] for row in nobody.rows("/data/projects")} == {"PUB", "PROT"}  # a 200 with fewer rows
    assert nobody.get("/data/experiments/T_E1/scans").status_code == 500
    assert nobody.get("/data/experiments/T_E1/resources").status_code == 404


def test_jsession_is_refused_to_nobody(nobody: Client) -> None:
    reply = nobody.get("/data/JSESSION")
    assert reply.status_code == 401 and "XNAT Protected Area" in reply.headers["WWW-Authenticate"]


def test_wrong_password_and_lockout(nobody: Client, server: DemoServer) -> None:
    server.switches.max_failed_logins = 2
    for _ in range(2):
        reply = nobody.get("/data/projects", auth=("bob", "wrong"))
        assert reply.status_code == 401 and "HTTP Status 401" in reply.text
    assert nobody.get("/data/projects", auth=("bob", "bob")).status_code == 401
    server.switches.lockout_s = 0.0
    assert nobody.get("/data/projects", auth=("bob", "bob")).status_code == 200


def test_session_cap(server: DemoServer) -> None:
    server.switches.max_sessions = 2
    statuses = [
        requests.get(server.url + "/data/auth", auth=("alice", "alice"), timeout=5).status_code
        for _ in range(3)
    ]
    assert statuses == [200, 200, 401]


def test_expiration_cookie_on_every_response(alice: Client) -> None:
    for path in ("/data/projects", "/data/projects/NOPE"):
        now, timeout = alice.get(path).cookies["SESSION_EXPIRATION_TIME"].strip('"').split(",")
        assert int(now) > 1e12 and timeout == "900000"


def test_logout_and_csrf(alice: Client) -> None:
    body = alice.post("/data/JSESSION?CSRF=true").text
    session, _, token = body.partition("; XNAT_CSRF=")
    browser = {"User-Agent": "Mozilla/5.0"}
    assert alice.delete("/data/JSESSION", headers=browser).status_code == 500
    assert alice.delete(f"/data/JSESSION?XNAT_CSRF={token}", headers=browser).text == ""
    assert alice.get("/data/JSESSION").text != session


def test_provider_prefix(nobody: Client) -> None:
    assert nobody.get("/data/auth", auth=("localdb/alice", "alice")).text == "User 'alice' is logged in"


def test_form_login(nobody: Client) -> None:
    reply = nobody.put("/data/services/auth", data={"username": "alice", "password": "alice"})
    assert reply.text == nobody.cookies["JSESSIONID"]
    assert nobody.get("/data/auth").text == "User 'alice' is logged in"
    assert nobody.put("/data/services/auth", data={"username": "alice", "password": "no"}).status_code == 401


def test_alias_token(alice: Client, nobody: Client, server: DemoServer) -> None:
    token = alice.get("/data/services/tokens/issue").json()
    assert 0 < token["estimatedExpirationTime"] - token["created"] <= 172_800_000
    pair = (token["alias"], token["secret"])
    assert nobody.get("/data/auth", auth=pair).text == "User 'alice' is logged in"
    assert alice.get("/data/services/tokens/validate/{}/{}".format(*pair)).json() == {"valid": "alice"}
    shown = alice.get("/data/services/tokens/show").json()
    assert token in shown and {row["xdatUserId"] for row in shown} == {"alice"}
    assert nobody.get("/data/services/tokens/show", auth=("bob", "bob")).json() == []
    assert nobody.get(f"/data/services/tokens/invalidate/{pair[0]}", auth=("bob", "bob")).status_code == 403
    assert alice.get(f"/data/services/tokens/validate/{pair[0]}/wrong").json() == {"valid": None}
    assert alice.get(f"/data/services/tokens/invalidate/{pair[0]}").json() == {"result": "OK"}
    assert requests.get(server.url + "/data/auth", auth=pair, timeout=5).status_code == 401
    assert alice.get(f"/data/services/tokens/invalidate/{pair[0]}").status_code == 404
    assert alice.get("/data/services/tokens/issue/user/bob").status_code == 403


def test_token_of_a_cookie_session_is_not_checked_again(alice: Client) -> None:
    token = alice.get("/data/services/tokens/issue").json()
    session = alice.get("/data/JSESSION").text
    assert alice.get("/data/JSESSION", auth=(token["alias"], token["secret"])).text == session


def test_admin_kills_sessions(admin: Client, nobody: Client) -> None:
    nobody.put("/data/services/auth", data={"username": "alice", "password": "alice"})
    assert admin.delete("/xapi/users/active/alice").status_code == 200
    assert nobody.get("/data/auth").status_code == 401


def test_site_routes(nobody: Client, alice: Client) -> None:
    assert nobody.get("/").status_code == 200
    assert nobody.get("/xapi/siteConfig/buildInfo?format=json").json()["version"]
    assert nobody.get("/xapi/schemas").status_code == 401
    assert alice.get("/data/version").status_code == 404
    assert alice.get("/nothing/here").status_code == 404
    assert alice.post("/data/services/refresh/catalog?resource=/archive/experiments/T_E2").status_code == 200


@pytest.mark.parametrize("prefix", ["/data", "/data/archive", "/REST", "/REST/archive"])
def test_prefixes(alice: Client, prefix: str) -> None:
    assert alice.rows(f"{prefix}/experiments/T_E1/scans")[0]["URI"] == "/data/experiments/T_E1/scans/1"


def test_tunnel(alice: Client) -> None:
    assert alice.post("/data/projects?method=GET").status_code == 200
    assert alice.get("/data/projects?media=x&encoding=y").status_code == 200
