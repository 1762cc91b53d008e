"""Whether what a session lacks of what was known of it is really gone: the object it hung on says.

Used by `listing.sessions`.
Threading: any thread; no state.
"""

from __future__ import annotations

from xnatfs.errors import Cause, Failure
from xnatfs.listing.snapshot import SessionSnapshot
from xnatfs.server.resources import Resources


def prove_session(resources: Resources, before: SessionSnapshot, session: SessionSnapshot) -> None:
    """Return if a session has all that was known of it, or what it lacks is not there by itself either. One
    request for each scan, assessor or the like that is still listed and lacks a resource.

    Raises:
        Failure: UNPROVEN; what keeps the server from answering.
    """
    listed, there = session.numbers(), session.owners()
    known = {one.id: owner[:3] for owner, group in before.resources.items() for one in group}
    for owner, group in session.resources.items():
        if owner.level == "assessor" and owner[:3] not in there:
            # An assessor of another project's, or one whose id came otherwise than it is.
            moved = [one for one in group if known.get(one.id, owner[:3]) in there]
            if moved:
                what = f"{len(moved)} resources are now of an assessor that is not listed"
                raise Failure(Cause.UNPROVEN, owner.uri, what)
    for owner, group in before.resources.items():
        lacking = {one.id for one in group} - listed - {None}
        if lacking and (owner.level == "experiment" or owner[:3] in there):
            still = lacking & {one.id for one in resources.of(owner)}
            if still:
                what = f"{len(still)} resources are only in one of two listings"
                raise Failure(Cause.UNPROVEN, owner.uri, what)
