"""The cells of the matrix as tests: each runs, and what it found is compared with `docs/reliability.md`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults import matrix, report
from tests.faults.catalogue import CONTROL, FAULTS, Fault
from tests.faults.operations import Operation
from tests.faults.world import World


@dataclass(frozen=True)
class Run:
    """One cell, on one of the stand-in's profiles."""

    operation: Operation
    fault: Fault
    profile: str = "full"

    def __str__(self) -> str:
        return f"{self.fault}{'' if self.profile == 'full' else f' ({self.profile})'}"

    def __call__(self, request: pytest.FixtureRequest) -> None:
        """Run it; anything wrong is an AssertionError."""
        server = request.getfixturevalue("secure" if self.fault.tls else "plain")
        server.switches.profile = self.profile
        folder: Path = (
            request.getfixturevalue("small_disk" if "disk" in self.fault.name else "tmp_path") / "mount"
        )
        monkeypatch = request.getfixturevalue("monkeypatch")
        url = server.url.replace("127.0.0.1", "localhost") if "name" in self.fault.name else ""
        verify = str(server._tls[0]) if server._tls is not None else None
        world = World(server, folder, url, verify, self.operation.ttl)
        try:
            found = matrix.run(world, self.operation, self.fault, monkeypatch)
        finally:
            world.unmount()
            shutil.rmtree(folder, ignore_errors=True)
        report.note(self.fault, self.operation, self.profile, found)


def cells(operation: Operation) -> list[Run]:
    """Every fault, and no fault; listings on both profiles."""
    profiles = ("full", "proven") if operation.both_profiles else ("full",)
    every = [Run(operation, fault, profile) for profile in profiles for fault in (CONTROL, *FAULTS)]
    return [one for one in every if not report.missing(one.fault, one.profile)]
