"""What lies on this disk or in a project's resource: maps, tables.toml, lists, logins, stored listings.
`UsageError`, or as if it were not there; never another exception."""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.support import FUZZ, JUNK, ODD_TEXTS, as_json, bounded, changed, damaged
from xnatfs.auth import credentials
from xnatfs.bids import map_file
from xnatfs.cache.listing_store import ListingStore, Stored
from xnatfs.config import normal_url, parse_size
from xnatfs.errors import UsageError
from xnatfs.listing.codec import StoredListings
from xnatfs.listing.snapshot import FileIndex, ProjectSnapshot, ProjectSummary, SessionSnapshot
from xnatfs.server.records import (
    AssessorRecord,
    ExperimentRecord,
    FileRecord,
    Owner,
    ProjectRecord,
    ReconstructionRecord,
    ResourceRecord,
    ScanRecord,
    SubjectRecord,
)
from xnatfs.tables.engine import overrides
from xnatfs.tables.registry import all_tables
from xnatfs.tree.lists import read_list

# --- TOML ---------------------------------------------------------------------------------------------------


def toml(value: Any) -> str:
    """A value as TOML, as far as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value) if abs(value) < 10**300 else "9" * 5000
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key, ensure_ascii=False)} = {toml(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    return "2024-01-01"


def document(value: Any) -> str:
    """A table at the top."""
    parts = value if isinstance(value, dict) else {"x": value}
    return "\n".join(f"{json.dumps(key, ensure_ascii=False)} = {toml(one)}" for key, one in parts.items())


RULE = {
    "type": ["*T1*", "re:mp(?P<n>[0-9]+)rage"],
    "words": ["t1", "t2*"],
    "without": "localizer",
    "frames": "2-",
    "to": "func/bold",
    "entities": {"task": "rest", "run": 1},
    "sidecar": {"RepetitionTime": 2.0},
    "intended_for": ["func"],
}
MAP = {
    "images": ["NIFTI"],
    "runs": "always",
    "only": False,
    "labels": {"subject": "S(\\d+)$"},
    "rule": [RULE, {"any": "*", "skip": "no"}],
}
SITE = {
    "labels": {"FREESURFER6": ["FS6"]},
    "tables": {"ashs/volumes": {"resources": ["x"], "files": {"left": "*left*.txt"}}},
}
SCANS = st.builds(ScanRecord, st.just("E"), ODD_TEXTS, ODD_TEXTS, ODD_TEXTS, ODD_TEXTS, ODD_TEXTS)


def _texts(base: Any) -> st.SearchStrategy[str]:
    made = changed(st.just(base)).map(document)
    return made | damaged(made.map(lambda text: text.encode("utf-8", "surrogatepass"))).map(
        lambda data: data.decode("utf-8", "replace")
    )


@FUZZ
@given(_texts(MAP), st.lists(SCANS, max_size=3))
@example("x = " + "[" * 100_000, [])
@example("x = " + "9" * 5000, [])
@example('[[rule]]\nany = "*"\nto = "anat/T1w"\nframes = ' + "9" * 5000, [])
@example('[[rule]]\nany = "*"\nto = "anat/T1w"\nframes = "' + "9" * 5000 + '"', [])
@example('[[rule]]\nany = "*"\nto = "anat/T1w"\nframes = 0x' + "f" * 5000, [])
@example('[[rule]]\nany = "re:a{99999999999}"\nskip = "x"', [])
@example('[[rule]]\nany = "re:' + "(" * 5000 + '"\nskip = "x"', [])
@example('[labels]\nsubject = "(a{99999999999})"', [])
@example('[[rule]]\nany = "*"\nto = "anat/T1w"\nframes = "1"', [ScanRecord("E", "1", "", "", "", "9" * 5000)])
def test_a_map_is_understood_or_refused(text: str, scans: list[ScanRecord]) -> None:
    try:
        found = bounded(len(text), lambda: map_file.parse(text, "the map"))
    except UsageError:
        return
    for scan in scans:
        found.place(scan, "a.nii.gz")
        found.may_place(scan)
    assert found.fingerprint


def test_a_right_map_comes_back() -> None:
    found = map_file.parse(document(MAP), "the map")
    assert [rule.skip for rule in found.rules] == ["", "no"] and found.rules[0].entities == {
        "task": "rest",
        "run": "1",
    }
    assert found.number_always and found.subject is not None and found.images == ("NIFTI",)


@FUZZ
@given(_texts(SITE))
@example("x = " + "[" * 100_000)
@example("x = " + "9" * 5000)
@example('[tables."ashs/volumes"]\nresources = [1]')
def test_a_site_is_understood_or_refused(text: str) -> None:
    try:
        found = bounded(len(text), lambda: overrides.parse(text, "tables.toml", all_tables()))
    except UsageError:
        return
    assert found.spec(all_tables()["ashs/volumes"])


# --- files of this user -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("local")


@FUZZ
@given(
    damaged(
        st.lists(ODD_TEXTS, max_size=6).map(lambda some: "\n".join(some).encode("utf-8", "surrogatepass"))
    )
)
def test_a_list_is_read_or_refused(folder: Path, body: bytes) -> None:
    path = folder / "list.txt"
    path.write_bytes(body)
    with contextlib.suppress(UsageError):
        names = read_list(path)
        assert len(set(names)) == len(names) and all(name == name.strip() and name for name in names)


LOGIN = {"server": "https://x.org", "user": "u", "password": "p", "verify": True, "proxy": None}
NETRC = b"machine x.org login u password p\nmacdef m\n\nmachine y.org login v\n"
PASS = b"+u@https://x.org=p\nv@y.org=q\n"


@pytest.mark.parametrize("name", ["config", "netrc", "pass"])
@FUZZ
@given(st.data())
@example(("config", b'{"server": ' + b"[" * 100_000))
@example(("config", b'{"server": "http://["}'))
@example(("config", b'["server"]'))
@example(("config", b'{"server": "x.org", "user": 5, "password": {}}'))
@example(("netrc", b"machine \xff login"))
@example(("pass", b"u@http://[=p"))
@example(("pass", b"u@http://a:b@c=p"))
def test_a_login_is_found_or_not(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: Any) -> None:
    if isinstance(data, tuple):
        if data[0] != name:
            return
        body = data[1]
    else:
        bases = {
            "config": changed(st.just(LOGIN)).map(as_json),
            "netrc": st.just(NETRC),
            "pass": st.just(PASS),
        }
        body = data.draw(damaged(bases[name]))
    home = folder / name
    home.mkdir(exist_ok=True)
    path = home / {"config": ".xnat.cfg", "netrc": ".netrc", "pass": ".xnatPass"}[name]
    path.write_bytes(body)
    path.chmod(0o600)
    with monkeypatch.context() as patched:
        for one in [one for one in os.environ if one.startswith(("XNAT_", "XNATPY_", "NETRC"))]:
            patched.delenv(one)
        patched.setenv("HOME", str(home))
        patched.setenv("XNATFS_CONFIG_DIR", str(home / "xnatfs"))
        named = {"config": path} if name == "config" else {"netrc_file": path} if name == "netrc" else {}
        for options in (named, {}):
            with contextlib.suppress(UsageError):
                found = credentials.find("https://x.org", prompt=False, **options)
                assert isinstance(found.user, str) and isinstance(found.password, str)


@FUZZ
@given(ODD_TEXTS | st.from_regex(r"https?://[a-z\[\]:@/0-9.]{0,20}", fullmatch=True))
@example("http://[")
@example("http://a:99999999")
@example("http://\u2100.org")
def test_urls_and_sizes_are_understood_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert normal_url(normal_url(text)) == normal_url(text)
    with contextlib.suppress(UsageError):
        assert parse_size(text) >= 0


# --- stored listings ----------------------------------------------------------------------------------------


class _Memory:
    """A store that keeps the last body, and gives back another."""

    def __init__(self) -> None:
        self.body = ""
        self.given: str | None = None

    def get(self, *_: str) -> Stored:
        return Stored("", time.time(), self.body if self.given is None else self.given)

    def put(self, _kind: str, _key: str, _stamp: str, body: str) -> None:
        self.body = body


EXPERIMENT = ExperimentRecord("E1", "S_MR1", "S1", "S", "xnat:mrSessionData", "2024-01-01", 1.0, "x")
RESOURCES = [
    ResourceRecord(Owner("scan", "E1", "1"), "DICOM", 7, "DICOM", 2, 100),
    ResourceRecord(Owner("experiment", "E1"), "R"),
]
FILE = FileRecord(Owner("scan", "E1", "1"), 7, "DICOM", "a/1.dcm", 5, "")


def _project() -> ProjectSnapshot:
    made = ProjectSnapshot(ProjectRecord("P", "p"))
    made.subjects = {"S1": SubjectRecord("S1", "S", None, "")}
    made.experiments = {"E1": EXPERIMENT}
    made.scans = {"E1": [ScanRecord("E1", "1", "T1")]}
    made.assessors = {"E1": [AssessorRecord("A", "a", "E1", "x", None)]}
    made.reconstructions = {"E1": [ReconstructionRecord("E1", "r")]}
    made.add_resources(RESOURCES)
    made.put_in_order()
    return made


KEPT: dict[str, tuple[Callable[[StoredListings], None], Callable[[StoredListings], Any]]] = {
    "projects": (lambda one: one.put_projects({"P": ProjectRecord("P", "p")}), lambda one: one.projects()),
    "project": (lambda one: one.put_project(_project()), lambda one: one.project("P")),
    "session": (
        lambda one: one.put_session(
            "P", SessionSnapshot(EXPERIMENT, [], [], [], {RESOURCES[0].owner: RESOURCES[:1]})
        ),
        lambda one: one.session("P", "E1"),
    ),
    "subject": (lambda one: one.put_subject("S1", "", RESOURCES), lambda one: one.subject("S1")),
    "outline": (
        lambda one: one.put_outline(
            ProjectSummary("P", {"E1": EXPERIMENT}, RESOURCES, {"E1": RESOURCES}, {"E1"}, {"E1": RESOURCES})
        ),
        lambda one: one.summary("P"),
    ),
    "files": (
        lambda one: one.put_files(("files", "E1"), "", FileIndex.of([FILE])),
        lambda one: one.files(("files", "E1")),
    ),
    "forms": (lambda one: one.put_forms({"a": 1.0}, ["b"]), lambda one: one.forms()),
}


@FUZZ
@given(st.sampled_from(sorted(KEPT)), st.data())
@example(
    "outline",
    '[2, {"project": "P", "experiments": [], "resources": [], "own": [], "known": [], "every": {}}]',
)
@example("files", "[2, " + "[" * 100_000)
@example("projects", "[" + "9" * 5000 + ", {}]")
def test_a_stored_listing_is_read_or_left_aside(kind: str, data: Any) -> None:
    memory = _Memory()
    stored = StoredListings(memory)  # type: ignore[arg-type]
    put, get = KEPT[kind]
    put(stored)
    assert get(stored)
    if isinstance(data, str):
        memory.given = data
    else:
        body = data.draw(damaged(changed(st.just(json.loads(memory.body))).map(as_json), most=1))
        memory.given = body.decode("utf-8", "replace")
    get(stored)


@FUZZ
@given(damaged(st.just(zlib.compress(b"[2, []]"))) | JUNK.map(repr).map(str.encode))
def test_a_damaged_row_of_the_store_is_left_aside(folder: Path, body: bytes) -> None:
    store = ListingStore(folder / "listings.sqlite")
    try:
        store.put("projects", "", "", "[2, []]")
        store.flush()
        store._database.execute("UPDATE listings SET body = ?", (body,))
        StoredListings(store).projects()
    finally:
        store.close()
