"""Which resource of a session a table reads: the session's own, its assessors', its scans'.

Used by `collect` and `resource_reader`. Asks the server only where the project's summary does not say.
Threading: any thread; no state.
"""

from __future__ import annotations

from collections.abc import Mapping

from xnatfs.listing.sessions import SessionListings
from xnatfs.listing.snapshot import ProjectSummary, SessionSnapshot
from xnatfs.server.records import ExperimentRecord, ResourceRecord, natural
from xnatfs.tables.engine.overrides import Spec, Wanted

_LEVELS = ("experiment", "assessor", "reconstruction", "scan")  # best first


def fitting_resources(
    spec: Spec, summary: ProjectSummary, sessions: SessionListings, experiment: ExperimentRecord
) -> tuple[list[ResourceRecord], bool]:
    """The resources of a session that would do, best first: the session's own, its assessors', its scans';
    each in the order the site names them. And whether they are those of another moment than the stamp.

    Raises:
        Failure: the session cannot be listed.
    """
    own_resources = summary.session_resources(experiment.id) or []
    wanted = [
        resource
        for want in spec.wanted
        if not want.xsi_type
        for resource in own_resources
        if resource.label == want.label
    ]
    if wanted:
        return wanted, False
    every = summary.every.get(experiment.id)
    shared = experiment.shared_assessors is not None
    if every is not None and not shared and not any(want.xsi_type for want in spec.wanted):
        return _fitting(spec, every, {}), False
    session: SessionSnapshot = sessions.get(summary.project, experiment.id)
    types = {assessor.id: assessor.xsi_type for assessor in session.assessors}
    stale = not session.experiment.of_one_moment(experiment)
    # A shared session brings resources of assessors that are none of this project's (xnat-rest.md 12).
    resources = [
        resource
        for owner, group in session.resources.items()
        for resource in group
        if owner.level != "assessor" or owner.id in types
    ]
    return _fitting(spec, resources, types), stale


def describe(resource: ResourceRecord) -> str:
    """A resource in a sentence for people."""
    owner = resource.owner
    if owner.level == "experiment":
        return resource.label
    return f"{owner.level} {owner.id if owner.level == 'assessor' else owner.part}, {resource.label}"


def _fitting(spec: Spec, resources: list[ResourceRecord], types: Mapping[str, str]) -> list[ResourceRecord]:
    wanted: list[ResourceRecord] = []
    for want in spec.wanted:
        for level in _LEVELS:
            fitting = [
                resource
                for resource in resources
                if resource.owner.level == level and _fits(want, resource, types)
            ]
            wanted += sorted(fitting, key=_order)
    return wanted


def _order(resource: ResourceRecord) -> tuple[object, int]:
    return natural(resource.owner.id + "/" + resource.owner.part), resource.id or 0


def _fits(want: Wanted, resource: ResourceRecord, types: Mapping[str, str]) -> bool:
    return resource.label == want.label and (
        not want.xsi_type
        or (resource.owner.level == "assessor" and types.get(resource.owner.id) == want.xsi_type)
    )
