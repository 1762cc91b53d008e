"""The lab served to tests that only read it, and small servers for those that change what is served."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from tests.support import as_new, composed, lab_archive
from xnatfs import retry
from xnatfs.cli import main
from xnatfs.concurrency import recent_failures
from xnatfs.config import Limits
from xnatfs.core import Core
from xnatfs.demo.data.dicom_cases import Files
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.faults import Switches
from xnatfs.demo.model import Archive, CatalogEntry, Resource, Scan
from xnatfs.demo.server import DemoServer

# Nothing ages by itself in a test that does not ask for it.
LIMITS = Limits(cache_size=10**9, ttl=3600.0, progress_deadline=20.0, listing_deadline=30.0)
FOLDER = "/projects/P/subjects/s/S/RESOURCES/R"

Compose = Callable[..., Core]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here is what is tried, not the pauses between (`tests/unit/test_retry.py`)."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(recent_failures, "FIRST_PAUSE_S", 0.0)


@pytest.fixture(scope="package")
def _lab() -> Iterator[DemoServer]:
    with DemoServer(lab_archive()) as server:
        yield server


@pytest.fixture
def lab(_lab: DemoServer) -> Iterator[DemoServer]:
    """The lab, its switches, sessions and log as new. Its data must not be changed."""
    as_new(_lab)
    yield _lab


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Compose]:
    """Puts mounts together, without FUSE; all are closed in the end. `folder` names the cache and state."""
    with ExitStack() as stack:

        def make(
            server: DemoServer,
            folder: str = "mount",
            *,
            user: str = "demo",
            limits: Limits = LIMITS,
            **settings: object,
        ) -> Core:
            return stack.enter_context(
                composed(server.url, tmp_path / folder, user=user, limits=limits, **settings)
            )

        yield make


@dataclass
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Command:
    """Runs a command of xnatfs in this process, in the test's folder, as the user `demo` of a server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XNATFS_CONFIG_DIR", str(tmp_path / "config"))

    def run(server: DemoServer, *words: str) -> Done:
        for name, value in {"HOST": server.url, "USER": "demo", "PASS": "demo"}.items():
            monkeypatch.setenv(f"XNAT_{name}", value)
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        out, err = capfdbinary.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Done(code, out.decode(errors="surrogateescape"), err.decode())

    return run


class Shelf:
    """A server with one project P, subject s, session S and resource R, for files of the test's own."""

    def __init__(self, subject: str = "s", session: str = "S") -> None:
        self.archive = Archive(site="T")
        self.make = Maker(self.archive, datetime(2024, 1, 8, 9, 15))
        self.make.user("demo")
        self.project = self.make.project("P", "P", members=["demo"])
        self.subject = self.make.subject(self.project, subject)
        self.session = self.make.experiment(self.subject, session, date="2024-01-08")
        self.resource: Resource = self.make.resource(self.session, "R")
        self.server = DemoServer(self.archive)

    @property
    def switches(self) -> Switches:
        return self.server.switches

    def put(self, entry: CatalogEntry) -> CatalogEntry:
        """One more file."""
        self.server.call(lambda: self.resource.entries.append(entry))
        return entry

    def dicom(self, id: str, kind: str, files: Files, label: str = "DICOM") -> Scan:
        """One more scan, with a resource of DICOM files."""
        scan = self.make.scan(self.session, id, kind)
        self.make.resource(scan, label, files, format="DICOM")
        return scan

    def downloads(self) -> int:
        """Requests for contents so far."""
        return len(self.server.requests(r"^GET .*/resources/\d+/files(/|\?format=zip)"))


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    with made.server:
        yield made


@pytest.fixture
def thousand(shelf: Shelf) -> Iterator[Shelf]:
    """A project of 1,000 subjects with a session and two custom variables each."""
    shelf.subject.gender = "female"
    for number in range(999):
        subject = shelf.make.subject(shelf.project, f"s{number:04d}", gender="male", yob="1980")
        subject.custom = {"apoe": "e3/e3", "site": "x"}
        shelf.make.experiment(
            subject, f"S{number:04d}", date="2024-01-08", fields={"age": "44.5", "scanner": "3T"}
        )
    yield shelf
