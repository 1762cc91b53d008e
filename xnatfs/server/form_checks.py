"""What the checks of listing forms share: what the forms about a whole project said, and how resources are
compared.

Used by `project_checks` and `session_checks`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

from xnatfs.server.bulk_rows import AssessorListing, BulkResources, ReconstructionListing, ScanListing
from xnatfs.server.records import ExperimentRecord, FileRecord, ResourceRecord

HUGE = 20_000  # experiments: what lists them once more is left out
MOST_FILES = 20_000  # of an object that is looked into
LARGE = "left out: the project is large"

Key = tuple[int | None, str, str]  # of a resource: number, scan or the like, label


@dataclass
class BulkView:
    """What the forms about the whole project say of it."""

    id: str
    experiments: dict[str, ExperimentRecord]
    plain: dict[str, ExperimentRecord] = field(default_factory=dict)
    stamped: dict[str, ExperimentRecord] = field(default_factory=dict)
    stamps: list[str] = field(default_factory=list)
    own: BulkResources = field(default_factory=BulkResources)
    scans: ScanListing = field(default_factory=ScanListing)
    assessors: AssessorListing = field(default_factory=AssessorListing)
    reconstructions: ReconstructionListing = field(default_factory=ReconstructionListing)
    files: list[FileRecord] = field(default_factory=list)  # of the project itself

    def of_session(self, session: str) -> Mapping[str, list[ResourceRecord]]:
        """The resources of a session and all below it, by level."""
        return self._by_session.get(session, {})

    @cached_property
    def _by_session(self) -> dict[str, dict[str, list[ResourceRecord]]]:
        """Once all forms were asked: a project has tens of thousands of resources."""
        found: dict[str, dict[str, list[ResourceRecord]]] = {}
        listings = (self.own, self.scans.resources, self.assessors.resources, self.reconstructions.resources)
        for one in chain.from_iterable(listing.resources for listing in listings):
            owner = one.owner
            session = owner.part if owner.level == "assessor" else owner.id
            found.setdefault(session, {}).setdefault(owner.level, []).append(one)
        return found


def resource_key(one: ResourceRecord) -> Key:
    """What a resource is compared by."""
    owner = one.owner
    return one.id, owner.id if owner.level == "assessor" else owner.part, one.label


def without_number(key: Key) -> Key:
    """The same of a form that tells no numbers."""
    return None, *key[1:]


def comparable(some: Iterable[ResourceRecord], others: Iterable[ResourceRecord]) -> tuple[set[Key], set[Key]]:
    """The resources as what both sides tell of them: without numbers where one does not know them."""
    one, other = {resource_key(each) for each in some}, {resource_key(each) for each in others}
    if any(number is None for number, _, _ in one):
        return {without_number(key) for key in one}, {without_number(key) for key in other}
    return one, other
