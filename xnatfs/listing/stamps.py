"""The experiments of a project with the stamps that move: what every listing that is kept is kept by.

Used by `listing.service` and `listing.summaries`. An experiment's own `last_modified` stays when anything
below it changes and is blank until the experiment itself is edited. What moves is the stamp of its most
derived type and the one of its subject (xnat-rest.md 13, executed on XNAT's own code); both come in one
request beside the experiments (xnat-rest.md 14). Where a server tells neither, the subjects' listing does,
which every XNAT answers; an experiment whose subject is not listed either has no stamp, and what is kept of
it ages.

What moves no stamp at all (a file overwritten by one of equal size) is found by listing anew after
`Limits.relist_after`.
Threading: any thread; the types of a project are replaced, never changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from xnatfs.diagnostics import Diagnostics
from xnatfs.errors import Cause, Failure
from xnatfs.listing.cross_check import doubtful
from xnatfs.listing.shared_sessions import with_assessors
from xnatfs.server.listing_requests import STAMPS, ListingRequests
from xnatfs.server.records import ExperimentRecord, SubjectRecord, parse_stamp
from xnatfs.server.witness_requests import WitnessRequests

log = logging.getLogger(__name__)

NEVER = "never"  # a blank stamp: nothing was changed since it was made. It equals itself
# Asked for in a project nobody has listed yet; another type found there costs a second request, once.
_USUAL = (
    "xnat:mrSessionData",
    "xnat:petSessionData",
    "xnat:ctSessionData",
    "xnat:petmrSessionData",
    "xnat:subjectVariablesData",
)

Told = list[tuple[ExperimentRecord, str | None, str | None]]


class ExperimentListings:
    """Lists the experiments of one server's projects, always asking it."""

    def __init__(self, listings: ListingRequests, diagnostics: Diagnostics) -> None:
        self._listings = listings
        self._diagnostics = diagnostics
        self._types: dict[str, tuple[str, ...]] = {}  # by project
        self.proven = False  # that the form with stamps lists what the plain one does

    def get(
        self,
        project: str,
        people: Callable[[], Iterable[SubjectRecord]],
        before: Collection[ExperimentRecord] = (),
    ) -> dict[str, ExperimentRecord]:
        """The experiments by accession id, `changed` filled in.

        Args:
            people: lists the subjects; called where the experiments' listing does not tell the stamps.
            before: the experiments as they were known, for their types and to tell what is new.

        Raises:
            Failure: what keeps the server from answering.
        """
        types = self._types.get(project) or tuple(sorted({one.xsi_type for one in before})) or _USUAL
        told = self._told(project, types)
        if told is not None:
            seen = {one.xsi_type for one, stamp, _ in told if stamp is None} - set(types)
            wanted = tuple(sorted({one.xsi_type for one, _, _ in told if one.xsi_type}))
            if seen:
                told = self._told(project, wanted)
            self._types[project] = wanted
        if told is None:
            asked_both = self._listings.capabilities.may(STAMPS)
            told = [(one, None, None) for one in self._listings.experiments(project)]
            if not told and asked_both:
                return {}  # as both forms say
        if any(stamp is None and subject is None for _, stamp, subject in told):
            subjects = {one.id: one.changed or None for one in people()}
            told = [
                (one, stamp, subjects.get(one.subject_id) if subject is None else subject)
                for one, stamp, subject in told
            ]
        found = {one.id: replace(one, changed=_moving(stamp, subject)) for one, stamp, subject in told}
        found = with_assessors(self._listings, project, found, before)
        return self.named(project, found) if doubtful(before, found) else found

    def named(self, project: str, found: dict[str, ExperimentRecord]) -> dict[str, ExperimentRecord]:
        """The experiments as a form names them that tells nothing but ids and labels; called where something
        in the listing is in doubt.

        Raises:
            Failure: UNPROVEN if that form has experiments that no other tells of; what keeps the server from
                answering.
        """
        labels = WitnessRequests(self._listings).labels(project)
        named = {
            identity: replace(one, label=labels.get(identity) or one.label) for identity, one in found.items()
        }
        lacking, more = labels.keys() - named.keys(), named.keys() - labels.keys()
        if not lacking and not more and named == found:
            return found
        self._diagnostics.odd(
            f"project {project}: two listings of its {len(labels)} experiments differ "
            f"({len(lacking) + len(more)} are only in one, "
            f"{sum(named[one] != found[one] for one in found)} are named otherwise)"
        )
        if self._listings.capabilities.may(STAMPS):
            self._listings.capabilities.refuse(STAMPS)
            if lacking:
                plain = {one.id: one for one in self._listings.experiments(project)}
                named |= {one: replace(plain[one], label=labels[one]) for one in lacking & plain.keys()}
                lacking = labels.keys() - named.keys()
        if lacking:
            what = f"the experiments of project {project}"
            raise Failure(Cause.UNPROVEN, what, f"{len(lacking)} are only in one of two listings")
        return named

    def confirm(
        self, project: str, experiments: dict[str, ExperimentRecord], witness: set[str]
    ) -> dict[str, ExperimentRecord]:
        """The experiments, once the form with stamps is known to leave out none: `witness` are those another
        form has (none: it was not answered). Where they differ the plain form decides.

        Raises:
            Failure: what keeps the server from answering.
        """
        if (
            not self._listings.capabilities.may(STAMPS)
            or (witness and witness <= experiments.keys())
            or (not witness and self.proven)
        ):
            self.proven = self.proven or bool(witness)
            return experiments
        plain = {one.id: one for one in self._listings.experiments(project)}
        lacking = plain.keys() - experiments.keys()
        if not lacking:
            self.proven = (
                True  # what the other form had was made a moment ago, or is no experiment of this listing
            )
            return experiments
        again = self._told(project, self._types.get(project, _USUAL)) or []
        if plain.keys() <= {one.id for one, _, _ in again}:
            return experiments | {
                one: plain[one] for one in lacking
            }  # made meanwhile; without a stamp it is asked for again soon
        self._diagnostics.odd(
            f"project {project}: the listing of experiments with their stamps leaves out {len(lacking)} "
            f"of {len(plain)}"
        )
        self._listings.capabilities.refuse(STAMPS)
        return {one: experiments.get(one, record) for one, record in plain.items()}

    def _told(self, project: str, types: tuple[str, ...]) -> Told | None:
        told = self._listings.stamped_experiments(project, types)
        if told and all(stamp is None and subject is None for _, stamp, subject in told):
            self._listings.capabilities.refuse(STAMPS)  # it dropped the columns
            return None
        return told


def _moving(stamp: str | None, subject: str | None) -> str:
    """The stamp to keep things by. A type's that is blank says that nothing changed below; should a server
    leave the column blank whatever happens, the subject's moves all the same.
    """
    for text in (stamp, subject):
        if text and parse_stamp(text) is not None:  # whatever else is there does not move
            return text
    return NEVER if "" in (stamp, subject) else ""
