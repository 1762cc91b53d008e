"""Mounts of the sample data that many tests share because they only read: one server and two logins for each
profile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.spelling import Spelling
from tests.support import Mount, lab_archive, mount
from xnatfs.demo.data.truth import TrueFile, files
from xnatfs.demo.faults import Switches
from xnatfs.demo.model import Archive
from xnatfs.demo.server import DemoServer


@dataclass(frozen=True)
class Lab:
    """A served lab and its mounts as two users."""

    server: DemoServer
    profile: str
    demo: Mount
    admin: Mount

    @property
    def archive(self) -> Archive:
        return self.server.archive

    def login(self, project: str) -> str:
        """Who reads a project in these tests."""
        return "admin" if project == "SECRET" else "demo"

    def mount(self, project: str) -> Mount:
        """The mount of that user."""
        return self.admin if project == "SECRET" else self.demo

    def files(self, project: str, **wanted: str) -> list[TrueFile]:
        """The true files of a project whose fields have these values."""
        found = files(self.archive, project, self.login(project))
        return [file for file in found if all(getattr(file, name) == value for name, value in wanted.items())]

    def spelling(self, project: str) -> Spelling:
        """Where the mount has to show them."""
        return Spelling(self.archive, self.files(project))

    def people(self, project: str) -> dict[Path, TrueFile]:
        """Every true file at its place below `projects/`."""
        root = self.mount(project).point / "projects" / project
        return {root / path: file for path, file in self.spelling(project).people().items()}

    def programs(self, project: str) -> dict[Path, TrueFile]:
        """Every true file at its place below `archive/`."""
        root = self.mount(project).point / "archive/projects" / project
        return {root / path: file for path, file in self.spelling(project).programs().items()}


class Labs:
    """Labs by profile, started when first asked for."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._started: dict[str, Lab] = {}

    def get(self, profile: str) -> Lab:
        """The lab of a profile."""
        if profile not in self._started:
            server = self._stack.enter_context(DemoServer(lab_archive(), Switches(profile=profile)))
            mounts = []
            for user in ("demo", "admin"):
                folder = self._folder / profile / user
                mounts.append(
                    self._stack.enter_context(mount(server.url, folder, user=user, env={"HOME": str(folder)}))
                )
            self._started[profile] = Lab(server, profile, *mounts)
        return self._started[profile]


@pytest.fixture(scope="session")
def labs(tmp_path_factory: pytest.TempPathFactory, nothing_left_mounted: None) -> Iterator[Labs]:
    with ExitStack() as stack:
        yield Labs(tmp_path_factory.mktemp("lab"), stack)


@pytest.fixture(params=["full", "proven"])
def lab(request: pytest.FixtureRequest, labs: Labs) -> Lab:
    """The lab, once on a server that grants everything and once on one that grants only what real servers are
    known to.
    """
    return labs.get(request.param)


@pytest.fixture
def full(labs: Labs) -> Lab:
    """The lab on a server that grants everything."""
    return labs.get("full")
