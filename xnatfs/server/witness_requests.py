"""The smallest forms about the same objects: asked only where two listings differ, or one lacks something.

Used by everything in `listing` that has to prove an absence or to settle a contradiction. Each tells ids and
nothing that another form has a reason to hide.
Threading: any thread; no state.
"""

from __future__ import annotations

from xnatfs.server import claims
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.resultset import Row, pick
from xnatfs.server.urls import segment


class WitnessRequests:
    """The witnesses of one server."""

    def __init__(self, listings: ListingRequests) -> None:
        self._table = listings.table

    def project_ids(self) -> set[str]:
        """The ids of the projects this user can read, in a form that tells nothing else: what decides where
        the list of projects lacks one.
        """
        return {pick(row, "id") for row in self._table("/data/projects", claims.ONLY_IDS, columns="ID")}

    def subject_labels(self, project: str) -> dict[str, str]:
        """The label of each subject of a project, in a form that tells nothing else: what decides where two
        others differ.
        """
        path = f"/data/projects/{segment(project)}/subjects"
        rows = self._table(path, claims.ONLY_IDS, columns="ID,label")
        return {pick(row, "id"): pick(row, "label") for row in rows}

    def labels(self, project: str) -> dict[str, str]:
        """The label of each experiment of a project, in a form that tells nothing else: what decides where
        two others differ.
        """
        path = f"/data/projects/{segment(project)}/experiments"
        rows = self._table(path, claims.ONLY_IDS, columns="ID,label")
        return {pick(row, "id"): pick(row, "label") for row in rows}

    def homes(self, project: str) -> dict[str, str]:
        """The project that each experiment of a project is at home in, which comes along unasked; beside a
        label it would be the project asked about (xnat-rest.md 12).
        """
        path = f"/data/projects/{segment(project)}/experiments"
        rows = self._table(path, claims.ONLY_IDS, columns="ID")
        return {pick(row, "id"): pick(row, "project") or project for row in rows}

    def assessors(self, project: str) -> dict[str, set[str]]:
        """The accession ids of the image assessors of a project, by session."""
        path = f"/data/projects/{segment(project)}/experiments"
        rows = self._table(path, claims.ONLY_IDS, columns="ID,session_ID", xsiType="xnat:imageAssessorData")
        found: dict[str, set[str]] = {}
        for row in rows:
            found.setdefault(pick(row, "session_id", "/imagesession_id"), set()).add(pick(row, "id"))
        return found

    def first_experiment(self, project: str) -> list[Row]:
        """Some experiment of a project, or none: the cheapest look whether the server's database answers
        about it.
        """
        return self._table(f"/data/projects/{segment(project)}/experiments", columns="ID", limit="1")
