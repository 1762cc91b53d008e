"""What is known of the people of a BIDS dataset: looked up in the listings, put in BIDS's words.

Used by `bids_view`. The images need none of it: where it cannot be had now the dataset is there, and only
`participants.tsv` is an error, until it can.
Threading: any thread; no state.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from xnatfs.bids import metadata_files, participants
from xnatfs.bids.metadata_files import Person, VisitRow
from xnatfs.errors import Failure
from xnatfs.tree.resource import Sources

log = logging.getLogger(__name__)

FILES = ("participants.tsv", "participants.json")


class KnownPeople(NamedTuple):
    """What is known of participants, and the ages by session; or why it is not."""

    of: participants.ParticipantTable
    ages: Mapping[str, str]
    failure: Failure | None = None

    def files(self, people: Iterable[Person]) -> dict[str, bytes]:
        """The table of participants and its description.

        Raises:
            Failure: why they are not known.
        """
        if self.failure is not None:
            raise self.failure
        texts = (
            metadata_files.participants(people, self.of),
            metadata_files.described(metadata_files.PARTICIPANTS, self.of.columns),
        )
        return dict(zip(FILES, texts, strict=True))

    def of_sessions(self, visits: Iterable[VisitRow]) -> tuple[bytes, bytes]:
        """The table of a subject's sessions and its description."""
        visits = list(visits)
        theirs = {one.experiment.id: self.ages.get(one.experiment.id, "") for one in visits}
        known = {"age": participants.SESSION_AGE} if any(theirs.values()) else {}
        return (
            metadata_files.sessions(visits, theirs if known else {}),
            metadata_files.described(metadata_files.SESSIONS, known),
        )


def known_people(
    sources: Sources,
    projects: Iterable[str],
    people: Mapping[str, Person],
    visits: Mapping[str, Mapping[str, VisitRow]],
) -> KnownPeople:
    """What is known of the people of some projects; they and their visits by label."""
    details = sources.listing_service.details
    ages: dict[str, str] = {}
    first: dict[str, str] = {}
    try:
        listings = {project: details.subjects(project) for project in projects}
        for label, theirs in visits.items():
            for visit in sorted(theirs.values(), key=lambda visit: (visit.experiment.date, visit.label)):
                years = details.age(visit.project, visit.experiment, listings[visit.project]).years
                if text := participants.age(years):
                    ages[visit.experiment.id] = text
                    first.setdefault(people[label].accession, text)
    except Failure as failure:
        log.warning("what is known of the participants cannot be listed: %s", failure)
        return KnownPeople(participants.ParticipantTable(), {}, failure)
    whose = [(one.accession, one.project) for one in people.values()]
    return KnownPeople(participants.participants(whose, listings, first), ages)
