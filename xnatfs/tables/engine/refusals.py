"""What a failure says of one file or session, as opposed to the server.

Used by everything in `tables.engine` that goes on with the other sessions when one cannot be had.
Threading: any thread; no state.
"""

from __future__ import annotations

from xnatfs.errors import Cause, Failure
from xnatfs.listing.service import ListingService
from xnatfs.server.records import ExperimentRecord

_NO_LISTING = frozenset({Cause.BAD_LISTING, Cause.LISTING_EMPTY})


def of_this_file(failure: Failure) -> bool:
    """Whether the server refuses just this file: not that it is away or busy, where waiting helps and nothing
    is said of the file.
    """
    return failure.cause is Cause.TOO_LARGE or failure.status in (400, 403, 404, 410, 500)


def removed(failure: Failure, experiment: ExperimentRecord) -> bool:
    """Whether a listing made since has the project without this experiment."""
    return failure.cause is Cause.NO_ENTRY and failure.subject == experiment.id


def confirm_unlistable(failure: Failure, listing_service: ListingService, project: str) -> None:
    """Return if a listing failed for reasons of its own: a catalogue that cannot be read, a session in
    quarantine.

    Raises:
        Failure: the server is away, or in trouble.
    """
    if failure.away or not (of_this_file(failure) or failure.cause in _NO_LISTING):
        raise failure
    listing_service.projects.proof.check(project)
