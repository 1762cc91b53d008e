"""Listings against the truth, with a server that grants every form and one that grants only what is
proven.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.server.conftest import connection
from xnatfs.demo.data.lab import READABLE
from xnatfs.demo.data.truth import files, label_in
from xnatfs.demo.model import Experiment, Resource
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Cause, Failure
from xnatfs.server.connection import Connection
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.records import Owner, parse_stamp
from xnatfs.server.resources import Resources, hostile

PROJECTS = list(READABLE)


@pytest.fixture
def listings(server: DemoServer, logged_in: Connection, profile: str) -> ListingRequests:
    server.switches.profile = profile
    return ListingRequests(logged_in)


@pytest.fixture
def resources(listings: ListingRequests) -> Resources:
    return Resources(listings)


def sessions(server: DemoServer, project: str) -> dict[str, Experiment]:
    """What the archive has in a project, by id, without assessors."""
    return {
        one.id: one
        for one in server.archive.experiments.values()
        if label_in(one, project) is not None and not one.is_assessor
    }


def assessors(server: DemoServer, project: str) -> dict[str, Experiment]:
    return {
        one.id: one
        for one in server.archive.experiments.values()
        if label_in(one, project) is not None and one.is_assessor
    }


def owned(owner: Owner, group: list[Resource]) -> set[tuple[Owner, str, int]]:
    return {(owner, one.label, one.id) for one in group}


def test_the_projects_are_those_the_user_may_read(listings: ListingRequests, server: DemoServer) -> None:
    found = listings.projects()
    assert sorted(one.id for one in found) == PROJECTS
    for one in found:
        truth = server.archive.projects[one.id]
        assert (one.name, one.description) == (truth.name, truth.description)
        assert one.inserted is None or abs(one.inserted - truth.insert_date.timestamp()) < 86400
    server.clear_log()
    listings.projects()
    assert len(server.requests()) <= 2


def test_another_user_sees_other_projects(server: DemoServer, profile: str) -> None:
    """MESSY is protected: listed for everybody, readable for its members."""
    server.switches.profile = profile
    for user, expected in (("admin", [*PROJECTS, "SECRET"]), ("outsider", ["DWI", "MESSY"])):
        with connection(server.url, user) as made:
            made.login()
            assert sorted(one.id for one in ListingRequests(made).projects()) == expected


@pytest.mark.parametrize("project", PROJECTS)
def test_subjects_are_the_projects_own_and_those_shared_into_it(
    listings: ListingRequests, server: DemoServer, project: str
) -> None:
    found, bulk = listings.subjects(project)
    truth = {one.id: one for one in server.archive.subjects.values() if label_in(one, project) is not None}
    assert {one.id: one.label for one in found} == {one.id: label_in(one, project) for one in truth.values()}
    for one in found:
        assert one.inserted == parse_stamp(str(truth[one.id].insert_date))
        assert one.changed
    told = {(one.owner, one.label) for one in bulk.resources}
    for one in truth.values():
        if one.id in bulk.known:
            assert {label for owner, label in told if owner.id == one.id} == {
                resource.label for resource in one.resources
            }
    assert bool(bulk.known) == (server.switches.profile == "full")


@pytest.mark.parametrize("project", PROJECTS)
def test_experiments_are_the_projects_own_and_those_shared_into_it(
    listings: ListingRequests, server: DemoServer, project: str
) -> None:
    found = {one.id: one for one in listings.experiments(project)}
    truth = sessions(server, project)
    assert {one.id: one.label for one in found.values()} == {
        one.id: label_in(one, project) for one in truth.values()
    }
    for one in found.values():
        real = truth[one.id]
        assert (one.xsi_type, one.date, one.subject_id) == (real.xsi_type, real.date, real.subject_id)
        assert one.inserted == parse_stamp(str(real.insert_date))
    assert len(server.requests()) == 1


@pytest.mark.parametrize("project", PROJECTS)
def test_scans_are_told_with_their_resources(
    listings: ListingRequests, server: DemoServer, project: str
) -> None:
    found = listings.scans(project)
    truth = sessions(server, project)
    spoken_for = {identity: truth[identity] for identity in found.sessions}
    own = {one.id for one in truth.values() if one.project == project and one.is_image_session}
    assert own <= set(spoken_for)
    expected = {
        (one.id, scan.id): (scan.type, scan.series_description, scan.quality)
        for one in spoken_for.values()
        for scan in one.scans
    }
    assert {
        (one.session_id, one.id): (one.type, one.series_description, one.quality) for one in found.scans
    } == expected
    for session in found.resources.known:
        expected_labels = Counter(
            (scan.id, one.label) for scan in truth[session].scans for one in scan.resources
        )
        told = Counter(
            (one.owner.part, one.label) for one in found.resources.resources if one.owner.id == session
        )
        assert told == expected_labels
    if server.switches.profile == "full":
        assert set(spoken_for) == {one.id for one in truth.values() if one.is_image_session}
        assert found.resources.known == set(spoken_for)
        counts = {one.id: one.file_count for one in found.resources.resources}
        for one in truth.values():
            for resource in (resource for scan in one.scans for resource in scan.resources):
                assert (
                    str(counts[resource.id] if counts[resource.id] is not None else "") == resource.file_count
                )


@pytest.mark.parametrize("project", PROJECTS)
def test_assessors_are_told_with_their_resources(
    listings: ListingRequests, server: DemoServer, project: str
) -> None:
    found = listings.assessors(project)
    truth = assessors(server, project)
    told = {one.id: (one.label, one.session_id, one.xsi_type) for one in found.assessors}
    expected = {one.id: (one.label, one.session_id, one.xsi_type) for one in truth.values()}
    assert told == {identity: value for identity, value in expected.items() if identity in told}
    own = {one.id for one in truth.values() if one.project == project}
    assert own <= set(told)
    if server.switches.profile == "full":
        assert set(told) == set(truth)
    for identity in found.resources.known:
        real = truth[identity]
        ways = (("out", real.out_resources), ("in", real.in_resources), ("", real.resources))
        expected_resources = {
            item
            for way, group in ways
            for item in owned(Owner("assessor", identity, real.session_id, way), group)
        }
        assert {
            (one.owner, one.label, one.id) for one in found.resources.resources if one.owner.id == identity
        } == expected_resources


@pytest.mark.parametrize("project", PROJECTS)
def test_reconstructions_are_told_with_their_resources_or_not_at_all(
    listings: ListingRequests, server: DemoServer, project: str
) -> None:
    found = listings.reconstructions(project)
    if server.switches.profile == "proven":
        assert found is None
        assert listings.reconstructions(project) is None
        assert len(server.requests()) <= 2
        return
    assert found is not None
    truth = {
        (one.id, image.id): image
        for one in sessions(server, project).values()
        for image in one.reconstructions
    }
    assert {(one.session_id, one.id): one.type for one in found.reconstructions} == {
        key: image.type for key, image in truth.items()
    }
    told = {
        (one.owner, one.label) for one in found.resources.resources if one.owner.id in found.resources.known
    }
    assert told == {
        (Owner("reconstruction", *key, way), resource.label)
        for key, image in truth.items()
        for way, group in (("out", image.out_resources), ("in", image.in_resources))
        for resource in group
    }


@pytest.mark.parametrize("project", PROJECTS)
def test_experiment_resources_are_told_or_not_at_all(
    listings: ListingRequests, server: DemoServer, project: str
) -> None:
    bulk = listings.experiment_resources(project)
    truth = sessions(server, project)
    if server.switches.profile == "proven":
        assert not bulk.known
        return
    assert bulk.known == set(truth)
    expected = Counter((one.id, resource.label) for one in truth.values() for resource in one.resources)
    assert Counter((one.owner.id, one.label) for one in bulk.resources) == expected


@pytest.mark.parametrize("project", PROJECTS)
def test_the_resources_of_a_session_are_all_there(
    resources: Resources, server: DemoServer, project: str
) -> None:
    for one in sessions(server, project).values():
        if one.project != project:
            continue
        found = {(item.owner[:3], item.label, item.id) for item in resources.of_session(one.id)}
        expected = {(Owner("experiment", one.id)[:3], item.label, item.id) for item in one.resources}
        expected |= {
            (Owner("scan", one.id, scan.id)[:3], item.label, item.id)
            for scan in one.scans
            for item in scan.resources
        }
        expected |= {
            (Owner("reconstruction", one.id, image.id)[:3], item.label, item.id)
            for image in one.reconstructions
            for item in image.out_resources
        }
        owners = {
            "assessor": [item for item in assessors(server, project).values() if item.session_id == one.id]
        }
        for assessor in owners["assessor"]:
            if assessor.session_id == one.id:
                group = [*assessor.out_resources, *assessor.resources]
                expected |= {
                    (Owner("assessor", assessor.id, one.id)[:3], item.label, item.id) for item in group
                }
        assert found == expected
        # Inputs are in a listing of their own.
        for level, some in (("assessor", owners["assessor"]), ("reconstruction", one.reconstructions)):
            if not some:  # asked for only where there is one that may have inputs
                continue
            told = {item.id for item in resources.inputs_of_session(one.id, level)}
            images = {item.id for image in one.reconstructions for item in image.in_resources}
            inputs = {
                item.id
                for it in server.archive.experiments.values()
                if it.session_id == one.id
                for item in it.in_resources
            }
            assert told == (inputs if level == "assessor" else images)


@pytest.mark.parametrize("project", PROJECTS)
def test_one_request_a_session_tells_every_file(
    resources: Resources, server: DemoServer, project: str
) -> None:
    truth = [one for one in files(server.archive, project, "demo") if one.direction != "in"]
    for session in {one.session_id for one in truth if one.session_id}:
        server.clear_log()
        listed = resources.files_of_session(session)
        assert len(server.requests()) == 1
        theirs = {
            (one.resource_id, one.path): one for one in truth if one.session_id == session and not one.hostile
        }
        found = {(one.resource_id, one.path): one for one in listed.files}
        # An assessor that is not shared along with its session is listed all the same; it is another
        # project's.
        assert set(theirs) <= set(found)
        for key, one in theirs.items():
            record = found[key]
            assert record.size == one.listed_size
            assert record.digest == (one.listed_digest if server.switches.profile == "full" else "")
            assert record.resource_label == one.resource
            owner = record.owner
            expected = {
                "session": ("experiment", ""),
                "scan": ("scan", one.scan),
                "assessor": ("assessor", ""),
                "reconstruction": ("reconstruction", one.assessor),
            }
            level, part = expected[one.kind]
            assert owner.level == level
            if level in ("scan", "reconstruction"):
                assert (owner.id, owner.part) == (session, part)
            if level == "assessor":
                assert (owner.id, owner.part) == (one.assessor_id, session)
        assert len(listed.odd) == len([one for one in truth if one.session_id == session and one.hostile])


def test_hostile_paths_are_told_and_left_out(resources: Resources, server: DemoServer) -> None:
    session = next(one for one in server.archive.experiments.values() if one.label == "m05_names")
    listed = resources.files_of_session(session.id)
    assert [one.path for one in listed.files if one.resource_label == "HOSTILE"] == ["harmless.txt"]
    assert len(listed.odd) == 7
    assert any("leaves its resource" in one for one in listed.odd)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/etc/passwd", "absolute"),
        ("a/../b", "leaves"),
        ("..", "leaves"),
        ("./a", "single dot"),
        ("a//b", "empty"),
        ("a/", "empty"),
        ("", "empty"),
        ("a\0b", "NUL"),
    ],
)
def test_a_path_that_must_not_be_followed_is_recognised(path: str, why: str) -> None:
    assert why in hostile(path)


@pytest.mark.parametrize("path", ["a", "a/b", "...", "a/..b", "~", "C:\\x", "-rf", " "])
def test_an_odd_but_harmless_path_is_kept(path: str) -> None:
    assert hostile(path) == ""


def test_other_levels_list_their_own_files(resources: Resources, server: DemoServer) -> None:
    truth = files(server.archive, "MESSY", "demo")
    assert {one.path for one in resources.files_of(Owner("project", "MESSY")).files} == {
        one.path for one in truth if one.kind == "project"
    }
    subject = next(one for one in truth if one.kind == "subject")
    listed = resources.files_of(Owner("subject", subject.subject_id))
    assert {one.path for one in listed.files} == {
        one.path for one in truth if one.kind == "subject" and one.subject_id == subject.subject_id
    }
    assert {one.owner for one in listed.files} == {Owner("subject", subject.subject_id)}


def test_one_resource_is_listed_by_its_number(resources: Resources, server: DemoServer) -> None:
    truth = next(one for one in files(server.archive, "MESSY", "demo") if one.resource == "12345")
    record = next(one for one in resources.of_session(truth.session_id) if one.id == truth.resource_id)
    assert [one.path for one in resources.files_of_resource(record).files] == [truth.path]


def test_what_the_server_denies_is_not_taken_for_gone(resources: Resources) -> None:
    """A status is no proof: XNAT without its database says 404 to what is there."""
    for ask in (
        resources.of_session,
        resources.files_of_session,
        lambda name: resources.of(Owner("experiment", name)),
    ):
        with pytest.raises(Failure) as caught:
            ask("NO_E99")
        assert caught.value.cause in (Cause.UNPROVEN, Cause.SERVER_ERROR)


def test_a_project_that_is_gone_is_told(listings: ListingRequests) -> None:
    for ask in (listings.subjects, listings.experiments):
        with pytest.raises(Failure) as caught:
            ask("NOPE")  # type: ignore[operator]
        assert caught.value.cause is Cause.UNPROVEN
    assert listings.capabilities.may("subject resource labels")  # a project that is gone refuses no form


def test_scans_of_one_session(listings: ListingRequests, server: DemoServer) -> None:
    session = next(one for one in server.archive.experiments.values() if one.label == "m01_scans")
    assert {one.id: one.type for one in listings.scans_of_session(session.id)} == {
        scan.id: scan.type for scan in session.scans
    }
    with pytest.raises(Failure) as caught:
        listings.scans_of_session("NO_E99")
    assert caught.value.cause in (Cause.UNPROVEN, Cause.SERVER_ERROR)


def test_assessors_of_one_session_are_those_of_the_project(
    listings: ListingRequests, server: DemoServer
) -> None:
    session = next(one for one in server.archive.experiments.values() if one.label == "m04_MR1")
    expected = {one.id for one in server.archive.experiments.values() if one.session_id == session.id}
    assert {one.id for one in listings.assessors_of_session(session.id, "MESSY")} == expected
    assert listings.assessors_of_session(session.id, "ALFA") == []
