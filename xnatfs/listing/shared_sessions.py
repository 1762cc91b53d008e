"""Sessions that are at home in another project, and which of their assessors are shared along.

Used by `listing.stamps`, `listing.bulk` and `listing.summaries`. Sharing an experiment into a project, or
ending that, moves its own stamp and no other (xnat-rest.md 13): the session of an assessor looks unchanged.
So what a project has of the assessors of such a session is a part of the session's record; one small request
a look, and only in projects with such sessions.
Threading: any thread; no state.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from xnatfs.errors import Failure
from xnatfs.server.bulk_rows import AssessorListing, ScanListing
from xnatfs.server.form_requests import is_refusal
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.records import ExperimentRecord
from xnatfs.server.witness_requests import WitnessRequests

log = logging.getLogger(__name__)

Experiments = dict[str, ExperimentRecord]
_FORM = "assessors of a project"  # without it no listing tells what is shared


def with_assessors(
    listings: ListingRequests, project: str, found: Experiments, before: Collection[ExperimentRecord]
) -> Experiments:
    """The experiments with what the project has of the assessors of those that are shared into it.

    Args:
        before: the experiments as they were known; nothing is asked where none of them is shared and none is
            new.

    Raises:
        Failure: what keeps the server from answering.
    """
    known = {one.id: one.shared_assessors for one in before}
    if not known:
        return found
    kept = {identity: replace(one, shared_assessors=known.get(identity)) for identity, one in found.items()}
    if not listings.capabilities.may(_FORM):
        return kept
    witness = WitnessRequests(listings)
    try:
        shared = {identity for identity, one in kept.items() if one.shared_assessors is not None}
        new = {identity for identity, one in kept.items() if identity not in known and one.may_have_scans}
        if new:
            homes = witness.homes(project)
            shared |= {identity for identity in new if homes.get(identity, project) != project}
        return _told(kept, shared, witness.assessors(project)) if shared else kept
    except Failure as failure:
        if failure.away or not is_refusal(failure):
            raise
        log.info("the shared assessors of project %s cannot be listed: %s", project, failure)
        return kept


def as_listed(
    project: str, experiments: Experiments, scans: ScanListing, assessors: AssessorListing
) -> Experiments:
    """The same from the bulk listings of a project, which tell where a session is at home."""
    homes = {identity: home or project for identity, (home, _) in scans.labels.items()}
    ids: dict[str, set[str]] = {}
    for one in assessors.assessors:
        ids.setdefault(one.session_id, set()).add(one.id)
    at_home = {
        identity: replace(one, shared_assessors=None) if homes.get(identity) == project else one
        for identity, one in experiments.items()
    }
    return _told(at_home, {one for one in experiments if homes.get(one, project) != project}, ids)


def with_homes(known: Iterable[ExperimentRecord], whole: Experiments) -> list[ExperimentRecord]:
    """Experiments as they were known, and of those that `whole` knows to be shared into the project that they
    are.
    """
    return [whole[one.id] if one.id in whole and one.shared_assessors is None else one for one in known]


def _told(experiments: Experiments, shared: Collection[str], ids: Mapping[str, set[str]]) -> Experiments:
    return {
        identity: replace(one, shared_assessors=_digest(ids.get(identity, ()))) if identity in shared else one
        for identity, one in experiments.items()
    }


def _digest(ids: Iterable[str]) -> str:
    text = "\n".join(sorted(ids))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12] if text else ""
