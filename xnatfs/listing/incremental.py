"""A project's snapshot brought up to date with what changed, instead of listing all of it again.

Used by `projects`. An experiment or subject is taken as changed when its row is: its stamp moves with every
change below it (`stamps`). A changed session is marked as not complete and is asked for by itself when it is
looked at; so is a changed subject.
Threading: pure; the snapshot given is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from xnatfs.listing.prefetch import WalkOrder
from xnatfs.listing.snapshot import Derived, ProjectSnapshot
from xnatfs.server.bulk_rows import AssessorListing
from xnatfs.server.records import ExperimentRecord, Owner, ProjectRecord, ResourceRecord, SubjectRecord

_MOST_SUBJECTS = 64  # changed subjects: each costs a request when its own resources are looked at
_MOST = 8  # changed sessions; asking for more of them one by one costs what the whole project costs in bulk


def apply_changes(
    held: ProjectSnapshot,
    record: ProjectRecord,
    experiments: Mapping[str, ExperimentRecord],
    people: list[SubjectRecord] | None,
    own_resources: list[ResourceRecord],
    assessors: Callable[[], AssessorListing],
) -> ProjectSnapshot | None:
    """The snapshot as it is now: the same object if nothing changed, None if all has to be listed again.

    `people` is the subjects' listing; None leaves the subjects as they were. `assessors` lists those of the
    project, and is called if a session changed: a session's own listing has no assessor that has no resource,
    and all of a shared session's.
    """
    # Of an experiment without a stamp nothing tells whether it changed.
    changed = {
        identity
        for identity, one in experiments.items()
        if not one.changed or held.experiments.get(identity) != one
    }
    gone = held.experiments.keys() - experiments.keys()
    if len(changed) > _MOST:
        return None
    subjects = dict(held.subjects)
    stale: set[str] = set()
    if people is not None:
        subjects = {one.id: one for one in people}
        # Of those nobody listed, these come with their experiments (`put_in_order`).
        needed = {one.subject_id or one.subject_label for one in experiments.values()}
        made_up = {
            one.id
            for one in held.subjects.values()
            if not one.changed and one.id not in subjects and one.id in needed
        }
        stale = {
            identity
            for identity, one in subjects.items()
            if not one.changed or held.subjects.get(identity) != one
        }
        stale |= held.subjects.keys() - subjects.keys() - made_up
        if len(stale) > _MOST_SUBJECTS:
            return None
    elif any(one.subject_id not in held.subjects for one in experiments.values()):
        return None  # of whom nothing is known yet
    if not (changed or gone or stale) and own_resources == held.own_resources and record == held.project:
        return held
    touched = changed | gone
    resources = {
        owner: found for owner, found in list(held.resources.items()) if not _is_of(owner, touched, stale)
    }
    fresh = replace(
        held,
        project=record,
        subjects=subjects,
        experiments=dict(experiments),
        of_subject={},
        order=WalkOrder(),
        subject_order=WalkOrder(),
        scans={one: found for one, found in held.scans.items() if one not in touched},
        speaks_for=held.speaks_for - touched,
        scans_known=held.scans_known - touched,
        assessors={one: found for one, found in held.assessors.items() if one not in touched},
        reconstructions={one: found for one, found in held.reconstructions.items() if one not in touched},
        resources=resources,
        complete=held.complete - touched,
        complete_subjects=held.complete_subjects - stale,
        renewed=(held.renewed | changed) - gone,
        own_resources=own_resources,
        memo=Derived(),
    )
    if any(experiments[one].may_have_scans for one in changed):
        for assessor in assessors().assessors:
            if assessor.session_id in changed:
                fresh.assessors.setdefault(assessor.session_id, []).append(assessor)
    fresh.put_in_order()
    return fresh


def _is_of(owner: Owner, sessions: set[str], subjects: set[str]) -> bool:
    if owner.level == "subject":
        return owner.id in subjects
    return (owner.part if owner.level == "assessor" else owner.id) in sessions and owner.level != "project"
