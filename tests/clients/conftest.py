"""The served `lab` data, in both profiles: everything a stand-in can do, and only what real servers are known
to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import pytest

from tests.support import lab_archive
from xnatfs.demo.data import measurements
from xnatfs.demo.data.truth import TrueFile, files
from xnatfs.demo.faults import Switches
from xnatfs.demo.model import Archive
from xnatfs.demo.server import DemoServer


@dataclass(frozen=True)
class Lab:
    """A server with the `lab` data, and the truth about project ALFA."""

    url: str
    archive: Archive
    measurements: ModuleType
    profile: str

    def files(self, **wanted: str) -> list[TrueFile]:
        """The files of ALFA whose fields have these values: `files(session="sub001_MR1",
        resource="ASHS")`.
        """
        return [
            f
            for f in files(self.archive, "ALFA", "demo")
            if all(getattr(f, name) == value for name, value in wanted.items())
        ]


@pytest.fixture(scope="package", params=["full", "proven"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with DemoServer(lab_archive(), Switches(profile=request.param)) as server:
        yield Lab(server.url, server.archive, measurements, request.param)
