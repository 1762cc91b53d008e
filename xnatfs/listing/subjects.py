"""The subjects of a project, compared with another form where their listing is in doubt.

Used by `listing.bulk` and `listing.projects`.
Threading: any thread; no state.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from xnatfs.diagnostics import Diagnostics
from xnatfs.listing.cross_check import doubtful, subjects_differ
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.records import ExperimentRecord, SubjectRecord
from xnatfs.server.witness_requests import WitnessRequests


def confirmed(
    listings: ListingRequests,
    diagnostics: Diagnostics,
    project: str,
    listed: Collection[SubjectRecord],
    before: Collection[SubjectRecord],
    experiments: Mapping[str, ExperimentRecord],
) -> list[SubjectRecord]:
    """The subjects as listed if nothing speaks against it, else as a form names them that tells nothing but
    ids and labels.

    Args:
        before: the subjects as they were known.

    Raises:
        Failure: what keeps the server from answering.
    """
    found = {one.id: one for one in listed}
    nameless = sorted(
        {one.subject_id for one in experiments.values() if not one.subject_label} - found.keys()
    )
    if nameless:
        diagnostics.odd(
            f"project {project}: {len(nameless)} subjects are not listed and have no label ({nameless[0]})"
        )
    if not (found or experiments or before):
        return []
    if not doubtful(before, found) and not subjects_differ(experiments.values(), found):
        return list(found.values())
    labels = WitnessRequests(listings).subject_labels(project)
    named = [replace(one, label=labels.get(one.id) or one.label) for one in found.values()]
    lacking, more = labels.keys() - found.keys(), found.keys() - labels.keys()
    named += [SubjectRecord(one, labels[one], None, "") for one in sorted(lacking)]
    if lacking or more or named != list(found.values()):
        diagnostics.odd(
            f"project {project}: two listings of its {len(labels)} subjects differ "
            f"({len(lacking) + len(more)} are only in one, "
            f"{sum(one != found.get(one.id) for one in named) - len(lacking)} are named otherwise)"
        )
    return named
