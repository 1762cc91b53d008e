"""Forms that a server may refuse: asked once, remembered, and never confused with trouble."""

from __future__ import annotations

import re
import time

import pytest

from xnatfs.demo.data.lab import READABLE
from xnatfs.demo.server import DemoServer
from xnatfs.errors import Failure
from xnatfs.server.capabilities import Capabilities
from xnatfs.server.listing_requests import ListingRequests

FORMS = {
    "experiment_resources": "experiment resource labels",
    "subjects": "subject resource labels",
    "scans": "scans of a project",
    "assessors": "assessor resource labels",
    "reconstructions": "reconstructions of a project",
}


def form_of(query: str) -> str:
    """A request's columns, without the project."""
    return re.sub(r"&?project=[A-Z]+", "", query)


def test_what_was_refused_is_remembered_in_order() -> None:
    capabilities = Capabilities()
    assert capabilities.may("b")
    capabilities.refuse("b")
    capabilities.refuse("a")
    capabilities.refuse("b")
    assert not capabilities.may("b")
    assert capabilities.refused == ["a", "b"]


@pytest.mark.parametrize("later_mount", [False, True])
def test_a_refusal_is_forgotten_within_the_hour(monkeypatch: pytest.MonkeyPatch, later_mount: bool) -> None:
    """A table of the database that was locked for a minute looks like a refusal; nor does a later mount begin
    its hour anew, or believe a refusal of a clock that was ahead.
    """
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    capabilities = Capabilities()
    capabilities.refuse("a")
    now += 3590
    assert not capabilities.may("a")
    if later_mount:
        before, capabilities = capabilities, Capabilities()
        capabilities.recall({**before.refused_at, "of a clock ahead": now + 7200})
        assert capabilities.refused == ["a"]
    now += 20
    assert capabilities.may("a") and capabilities.refused == []
    capabilities.refuse("a")
    assert not capabilities.may("a")


@pytest.mark.parametrize(("name", "form"), [item for item in FORMS.items() if item[0] != "assessors"])
def test_a_form_that_was_refused_is_not_asked_again(
    server: DemoServer, listings: ListingRequests, name: str, form: str
) -> None:
    server.switches.profile = "proven"
    ask = getattr(listings, name)
    ask("ALFA")
    assert form in listings.capabilities.refused
    forms = {form_of(one.query) for one in server.requests()}
    server.clear_log()
    ask("DWI")
    assert len(server.requests()) <= 1
    assert len(forms | {form_of(one.query) for one in server.requests()}) == len(forms) + (name == "subjects")


@pytest.mark.parametrize(("name", "form"), FORMS.items())
def test_a_granted_form_stays_in_use(
    server: DemoServer, listings: ListingRequests, name: str, form: str
) -> None:
    getattr(listings, name)("ALFA")
    assert listings.capabilities.may(form)
    assert len(server.requests()) == 1


@pytest.mark.parametrize(("name", "form"), FORMS.items())
@pytest.mark.parametrize("status", [503, 429])
def test_a_passing_trouble_is_no_refusal(
    server: DemoServer, listings: ListingRequests, name: str, form: str, status: int
) -> None:
    server.switches.fail_status, server.switches.fail_next = status, -1
    with pytest.raises(Failure) as caught:
        getattr(listings, name)("ALFA")
    assert caught.value.status == status
    assert listings.capabilities.refused == []
    server.switches.fail_next = 0
    server.clear_log()
    getattr(listings, name)("ALFA")
    assert listings.capabilities.may(form)


def test_the_dates_of_projects_are_done_without_where_that_form_is_refused(
    server: DemoServer, listings: ListingRequests
) -> None:
    server.switches.profile = "proven"
    server.switches.match = "accessible"
    server.switches.fail_status, server.switches.fail_next = 404, -1
    assert [one.inserted for one in listings.projects()] == [None] * len(READABLE)
    server.clear_log()
    assert len(listings.projects()) == len(READABLE)
    assert len(server.requests()) == 1


def test_assessors_are_listed_in_the_documented_way_where_the_project_form_is_refused(
    server: DemoServer, listings: ListingRequests
) -> None:
    server.switches.match = "projects/ALFA/experiments.*imageAssessorData"
    server.switches.fail_status, server.switches.fail_next = 404, -1
    found = listings.assessors("ALFA")
    expected = {
        one.id for one in server.archive.experiments.values() if one.is_assessor and one.project == "ALFA"
    }
    assert {one.id for one in found.assessors} == expected
    assert "assessors of a project" in listings.capabilities.refused
