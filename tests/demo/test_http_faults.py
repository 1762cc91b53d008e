"""Switches, the log, changes, and the server itself."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
import requests

from xnatfs.demo.faults import Line, Switches
from xnatfs.demo.server import DemoServer

from .conftest import Client, tiny

FILES = "/data/experiments/T_E1/resources/110/files"
BIG = f"{FILES}/f100k.bin"


def test_fail_next(alice: Client, server: DemoServer) -> None:
    server.switches.update({"fail_next": 2, "fail_status": 429, "retry_after": "7"})
    replies = [alice.get("/data/projects") for _ in range(3)]
    assert [reply.status_code for reply in replies] == [429, 429, 200] and replies[0].headers[
        "Retry-After"
    ] == "7"


def test_fail_rate_and_match(alice: Client, server: DemoServer) -> None:
    server.switches.update({"fail_rate": 1.0, "fail_status": 500, "match": r"plain\.txt$"})
    assert alice.get(f"{FILES}/plain.txt").status_code == 500
    assert alice.get("/data/projects").status_code == 200
    assert alice.get("/").status_code == 200


def test_failures_of_several_kinds_at_random(alice: Client, server: DemoServer) -> None:
    server.switches.update({"fail_rate": 0.7, "fail_kinds": ["500", "429", "reset"]})
    found = set()
    for _ in range(60):
        try:
            found.add(str(alice.get(f"{FILES}/plain.txt").status_code))
        except requests.ConnectionError:
            found.add("reset")
    assert found == {"200", "500", "429", "reset"}
    assert {one.fault for one in server.requests()} == {"", "500", "429", "reset"}


def test_breaks_at_random(alice: Client, server: DemoServer) -> None:
    server.switches.cut_rate = 1.0
    assert alice.get("/data/projects").status_code == 200  # only files and bulk
    sent = set()
    for _ in range(5):
        with pytest.raises(requests.RequestException):
            alice.get(BIG)
        sent.add(server.requests("f100k")[-1].sent)
    assert len(sent) > 1 and max(sent) < 100_000
    server.switches.update({"cut_rate": 0.0, "stall_rate": 1.0})
    with pytest.raises(requests.RequestException):
        alice.get(BIG, timeout=0.3)


def test_sessions_that_end_at_random(alice: Client, server: DemoServer) -> None:
    cookie = alice.get("/data/projects").cookies.get("JSESSIONID")
    server.switches.expire_rate = 1.0
    reply = requests.get(server.url + "/data/projects", cookies={"JSESSIONID": cookie or ""}, timeout=10)
    assert cookie and reply.status_code == 401 and server.requests()[-1].fault == "expired"


def test_html_instead(alice: Client, server: DemoServer) -> None:
    server.switches.html_instead = 1
    reply = alice.get(BIG)
    assert (
        reply.status_code == 200
        and reply.headers["Content-Type"].startswith("text/html")
        and b"<html>" in reply.content
    )
    assert alice.get(BIG).headers["Content-Length"] == "100000"


def test_refused_connections(alice: Client, server: DemoServer) -> None:
    server.switches.refuse_connections = True
    with pytest.raises(requests.ConnectionError):
        alice.get("/data/projects")
    server.switches.refuse_connections = False
    assert alice.get("/data/projects").status_code == 200


def test_cut(alice: Client, server: DemoServer) -> None:
    server.switches.update({"cut_after_bytes": 5000, "cut_next": 1})
    assert alice.get("/data/projects").status_code == 200  # only files and bulk, without `match`
    with pytest.raises(requests.RequestException):
        alice.get(BIG)
    assert server.requests("f100k")[0].sent == 5000
    assert len(alice.get(BIG).content) == 100_000


def test_truncated_file_and_listing(alice: Client, server: DemoServer) -> None:
    server.switches.truncate_after_bytes = 40
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        alice.get(BIG)
    reply = alice.get("/data/projects?format=json")
    assert reply.status_code == 200 and len(reply.content) == 40  # a clean last chunk is no proof
    with pytest.raises(ValueError):
        reply.json()


def test_stall(alice: Client, server: DemoServer) -> None:
    server.switches.update({"stall_after_bytes": 1000, "stall_next": 1})
    with pytest.raises(requests.exceptions.ConnectionError):
        alice.get(BIG, timeout=0.3)
    assert alice.get(BIG, timeout=5).status_code == 200


def test_latency(alice: Client, server: DemoServer) -> None:
    alice.get("/data/auth")
    server.switches.update({"latency_ms": 400, "listing_delay_ms": 1600})
    begin = time.monotonic()
    alice.get("/data/auth")
    single = time.monotonic() - begin
    alice.get("/data/projects")
    assert 0.39 < single < 1.9 < time.monotonic() - begin - single


def test_bandwidth_is_shared(server: DemoServer) -> None:
    server.switches.bandwidth = 400_000

    def fetch() -> None:
        with Client(server) as alice:
            assert len(alice.get(BIG).content) == 100_000

    threads = [threading.Thread(target=fetch) for _ in range(2)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begin > 0.4  # with so much for each it would be 0.25


def test_each_connection_has_a_limit_of_its_own_beside_the_shared_one() -> None:
    """As booked, without a clock: two connections that send at once."""
    shared, mine, other = Line(), Line(), Line()
    mine_at = [mine.book(1000, 1000.0, 100.0) for _ in range(2)][-1]
    other_at = [other.book(1000, 1000.0, 100.0) for _ in range(2)][-1]
    shared_at = [shared.book(1000, 1500.0, 100.0) for _ in range(4)][-1]
    assert mine_at == pytest.approx(102, abs=0.02) and other_at == pytest.approx(mine_at)
    assert shared_at == pytest.approx(102.67, abs=0.02)
    assert Line().book(10**9, 0.0, 100.0) == 100.0


def test_the_limit_of_a_connection_holds(server: DemoServer) -> None:
    server.switches.connection_bandwidth = 400_000
    with Client(server) as alice:
        begin = time.monotonic()
        assert len(alice.get(BIG).content) == 100_000
        assert time.monotonic() - begin > 0.2


def test_switches_over_http(nobody: Client, server: DemoServer) -> None:
    assert nobody.get("/demo/switches").json()["profile"] == "full"
    assert (
        nobody.post("/demo/switches", json={"profile": "proven", "latency_ms": 2.5}).json()["profile"]
        == "proven"
    )
    assert server.switches.proven_only and server.switches.latency_ms == 2.5
    mistakes: list[object] = [
        {"nonsense": 1},
        {"profile": "x"},
        {"fail_next": "two"},
        {"require_login": 1},
        [],
    ]
    for wrong in mistakes:
        assert nobody.post("/demo/switches", json=wrong).status_code == 400


def test_log(alice: Client, nobody: Client, server: DemoServer) -> None:
    alice.get(BIG + "?x=y", headers={"Range": "bytes=0-9", "User-Agent": "me"})
    (record,) = server.requests(r"^GET .*f100k")
    assert (record.path, record.query, record.user, record.status, record.sent) == (
        BIG,
        "x=y",
        "alice",
        206,
        10,
    )
    assert (record.range, record.user_agent) == ("bytes=0-9", "me") and record.connection > 0
    assert nobody.get("/demo/log?pattern=f100k").json()[0]["status"] == 206
    nobody.delete("/demo/log")
    assert server.requests() == []


def test_changes(own: DemoServer) -> None:
    with Client(own) as alice:

        def change(**operation: object) -> object:
            reply = requests.post(own.url + "/demo/change", json=operation, timeout=5)
            assert reply.status_code == 200, reply.text
            return reply.json()[0]

        def modified() -> list[str]:
            columns = "ID,xnat:mrSessionData/meta/last_modified"
            stamps = f"/data/projects/P1/experiments?xsiType=xnat:imageSessionData&columns={columns}"
            session = {row["ID"]: row["xnat:mrsessiondata/meta/last_modified"] for row in alice.rows(stamps)}
            return [
                session["T_E1"],
                alice.rows("/data/projects/P1/subjects?columns=last_modified&ID=T_S1")[0]["last_modified"],
            ]

        before = modified()
        change(
            op="put_file",
            resource=110,
            path="plain.txt",
            text="PLAIN.TXT",
            bump=False,
            modified="2024-04-01T00:00:00",
        )
        assert modified() == before
        reply = alice.get(f"{FILES}/plain.txt")
        assert reply.content == b"PLAIN.TXT" and reply.headers["Last-Modified"].startswith("Mon, 01 Apr 2024")
        change(op="put_file", resource=110, path="new.txt", base64="AAE=")
        after = modified()
        assert (
            after[0] > before[0] and after[1] > before[1] and alice.get(f"{FILES}/new.txt").content == b"\0\1"
        )
        change(op="delete_file", resource=110, path="new.txt")
        assert alice.get(f"{FILES}/new.txt").status_code == 404
        change(op="delete_file", resource=110, path="data", gone=True)
        assert (
            "data" in {row["Name"] for row in alice.rows(FILES)}
            and alice.get(f"{FILES}/data").status_code == 404
        )

        name = change(op="add_session", project="P1", subject="T_S1", label="later", date="2024-05-06")
        change(op="add_scan", session=name, scan="7", type="T2")
        number = change(op="add_resource", session=name, scan="7", label="NIFTI")
        change(op="put_file", resource=number, path="t2.nii", text="x")
        assert alice.rows("/data/projects/P1/experiments/later/scans/7/files")[0]["Name"] == "t2.nii"
        change(op="set_type", session=name, scan="7", type="FLAIR")
        assert alice.rows(f"/data/experiments/{name}/scans")[0]["type"] == "FLAIR"
        change(op="set_label", experiment=name, label="latest")
        assert alice.get("/data/projects/P1/experiments/latest/scans").status_code == 200
        change(op="delete_resource", resource=number)
        change(op="delete_scan", session=name, scan="7")
        change(op="delete_session", id=name)
        assert alice.get(f"/data/experiments/{name}/scans").status_code == 500
        change(op="break_catalog", resource=110)
        assert (
            alice.get(f"{FILES}/plain.txt").status_code
            == alice.get("/data/experiments/T_E1/files").status_code
            == 404
        )
        change(op="break_catalog", resource=110, broken=False)
        change(op="put_on_disk", resource=110, path="plain.txt", text="other")
        assert alice.get(f"{FILES}/plain.txt").content == b"other"
        change(op="refresh", resource=110, options="append,checksum")
        change(op="set_status", experiment="T_E1", status="quarantine")
        assert alice.get("/data/experiments/T_E1?format=json").status_code == 200  # a member may activate it
        own.call(
            lambda: (
                own.archive.projects["P1"].members.clear(),
                own.archive.projects["P1"].collaborators.add("alice"),
            )
        )
        assert alice.get("/data/experiments/T_E1?format=json").status_code == 404
        change(op="set_access", project="P1", access="private", members=[])
        own.call(own.archive.projects["P1"].collaborators.clear)
        assert alice.get("/data/projects/P1/subjects").status_code == 404
        assert requests.post(own.url + "/demo/change", json={"op": "nonsense"}, timeout=5).status_code == 400


def test_call_runs_on_the_server(own: DemoServer) -> None:
    assert own.call(lambda: threading.current_thread().name) == "xnatfs-demo"


def test_stop_while_a_connection_hangs_and_start_again() -> None:
    server = DemoServer(tiny(), Switches(hang_seconds=60, stall_after_bytes=10)).start()
    failed = threading.Event()

    def hang() -> None:
        try:
            requests.get(server.url + BIG, auth=("alice", "alice"), timeout=30)
        except requests.RequestException:
            failed.set()

    thread = threading.Thread(target=hang)
    thread.start()
    while not server.requests("f100k"):
        time.sleep(0.01)
    begin = time.monotonic()
    server.stop()
    thread.join(5)
    assert failed.is_set() and time.monotonic() - begin < 10
    port = server.port
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url, timeout=5)
    server.start()
    assert server.port == port and requests.get(server.url, timeout=5).status_code == 200
    server.close()


def test_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
         "-days", "1", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no openssl")
    with DemoServer(tiny(), tls=(certificate, key)) as server:
        assert server.url.startswith("https://")
        reply = requests.get(server.url + BIG, auth=("alice", "alice"), verify=str(certificate), timeout=5)
        assert len(reply.content) == 100_000
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(server.url, timeout=5)


def test_serve_in_the_foreground_until_interrupted() -> None:
    program = (
        "from tests.demo.conftest import tiny\n"
        "from xnatfs.demo.server import serve\n"
        "serve(tiny(), port=0, started=lambda url: print(url, flush=True))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None and process.stderr is not None
        url = process.stdout.readline().strip()
        assert requests.get(url + "/data/auth", auth=("alice", "alice"), timeout=5).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0 and process.stderr.read() == ""


def test_small_replies_do_not_wait_for_an_acknowledgement(alice: Client) -> None:
    alice.get("/data/experiments/T_E1/files?all=true")
    took = []
    for _ in range(30):
        begin = time.monotonic()
        alice.get("/data/experiments/T_E1/files?all=true")
        took.append(time.monotonic() - begin)
    assert sorted(took)[10] < 0.035, "each waits 40 ms"


# --- faults of a single reply, counted ----------------------------------------------------------------------


def _got(alice: Client, path: str) -> bytes:
    """What a client that trusts nothing but the connection has in the end."""
    with alice.get(path, stream=True, timeout=5) as reply:
        return reply.raw.read(200_000)


def test_redirect_to_the_login_page(alice: Client, server: DemoServer) -> None:
    server.switches.redirect_next = 1
    reply = alice.get("/data/projects", allow_redirects=False)
    assert (reply.status_code, reply.headers["Location"]) == (302, "/app/template/Login.vm")
    assert alice.get("/data/projects").status_code == 200
    assert server.switches.fired["redirect"] == 1


def test_silence(alice: Client, server: DemoServer) -> None:
    server.switches.silent_next = 1
    with pytest.raises(requests.exceptions.ReadTimeout):
        alice.get("/data/projects", timeout=0.3)
    assert alice.get("/data/projects", timeout=5).status_code == 200
    assert server.switches.fired["silent"] == 1


def test_taken_for_a_guest(alice: Client, server: DemoServer) -> None:
    server.switches.update({"require_login": False, "guest_next": 1})
    assert alice.get("/data/experiments/T_E1?format=json").status_code == 404
    assert alice.get("/data/experiments/T_E1?format=json").status_code == 200
    server.switches.guest_next = 1
    assert alice.get("/data/auth").text == "User 'guest' is logged in"
    server.switches.update({"require_login": True, "guest_next": 1})
    assert alice.get("/data/projects").status_code == 401
    assert server.switches.fired["guest"] == 3


def test_a_body_longer_than_announced(alice: Client, server: DemoServer) -> None:
    server.switches.update({"surplus_bytes": 30, "surplus_next": 2})
    assert len(_got(alice, BIG)) == 100_000  # the rest stands where the next answer should begin
    alice.close()  # where it would be read as the begin of the next answer, if it is there by then
    assert alice.get("/data/projects?format=json").content.endswith(b"}" + b"!" * 30)
    assert alice.get(BIG).headers["Content-Length"] == "100000"
    assert server.switches.fired["surplus"] == 2


@pytest.mark.parametrize("error", [50, -50])
def test_a_wrong_content_length(alice: Client, server: DemoServer, error: int) -> None:
    server.switches.update({"length_error": error, "length_error_next": 1})
    reply = alice.get(BIG, stream=True, timeout=5)
    assert reply.headers["Content-Length"] == str(100_000 + error)
    if error > 0:
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            reply.content  # noqa: B018  # reads it: the rest never comes
    else:
        assert len(reply.content) == 99_950
    assert alice.get("/data/projects?format=json").json()
    assert len(alice.get(BIG).content) == 100_000


def test_one_byte_is_changed_on_the_way(alice: Client, server: DemoServer) -> None:
    true = alice.get(BIG).content
    server.switches.damage_next = 2
    damaged = alice.get(BIG).content
    assert [at for at in range(100_000) if damaged[at] != true[at]] == [50_000]
    with (
        pytest.raises(zipfile.BadZipFile),
        zipfile.ZipFile(io.BytesIO(alice.get(f"{FILES}?format=zip").content)) as archive,
    ):
        if (name := archive.testzip()) is not None:
            raise zipfile.BadZipFile(name)
    assert alice.get(BIG).content == true
    assert server.switches.fired["damage"] == 2


@pytest.mark.parametrize(
    ("how", "error"), [("json", "Expecting property name"), ("utf8", "invalid start byte")]
)
def test_listings_that_do_not_parse(alice: Client, server: DemoServer, how: str, error: str) -> None:
    server.switches.update({"garble_listings": how, "garble_next": 1})
    with pytest.raises(ValueError, match=error):
        json.loads(alice.get("/data/projects?format=json").content)
    assert alice.get(BIG).status_code == 200  # no listing
    json.loads(alice.get("/data/projects?format=json").content)
    with pytest.raises(ValueError, match="json or utf8"):
        server.switches.update({"garble_listings": "yaml"})


def test_a_stale_size_in_the_catalog(alice: Client, server: DemoServer) -> None:
    server.switches.stale_size = "f100k"
    sizes = {row["Name"]: row["Size"] for row in alice.rows(f"{FILES}?format=json")}
    assert sizes["f100k.bin"] == "99000" and sizes["plain.txt"] == "9"
    assert len(alice.get(BIG).content) == 100_000


def test_lost_connections(alice: Client, nobody: Client, server: DemoServer) -> None:
    alice.get("/data/projects")
    assert nobody.delete("/demo/connections").json()["lost"] >= 1
    with pytest.raises(requests.exceptions.ReadTimeout):
        alice.get("/data/projects", timeout=0.3)
    assert alice.get("/data/projects", timeout=5).status_code == 200  # on a new one
    assert nobody.get("/demo/fired").json() == {"lost": 1}
