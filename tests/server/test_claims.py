"""What each form claims holds for every listing that XNAT's own code was recorded to answer; what breaks a
claim is not believed.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.demo.replies import HERE, MISSING, recorded
from tests.dialects.forms import FORMS
from tests.dialects.world import Asked
from xnatfs.server import claims
from xnatfs.server.claims import Claim

CLAIMS = {
    "projects with columns": claims.PROJECTS,
    "projects accessible": claims.PROJECTS,
    "projects": claims.PROJECTS,
    "subjects with resources": claims.SUBJECTS,
    "subjects": claims.SUBJECTS,
    "experiments with stamps": claims.EXPERIMENTS,
    "experiments": claims.EXPERIMENTS,
    "resources of experiments": claims.EXPERIMENT_RESOURCES,
    "scans": claims.SCANS,
    "scans of experiments": claims.SCANS,
    "assessors": claims.ASSESSORS,
    "assessors of experiments": claims.ASSESSORS,
    "reconstructions": claims.RECONSTRUCTIONS,
    "resources of a session": claims.RESOURCES_OF_SESSION,
    "scans of a session": claims.SCANS_OF_SESSION,
    "assessors of a session": claims.ASSESSORS_OF_SESSION,
    "inputs of a session": claims.INPUTS,
    "resources of one object": claims.RESOURCES,
    "labels": claims.ONLY_IDS,
}
# Only of requests for the columns that a claim is about: others were recorded too, for other questions.
NEEDED = {
    "subjects": "label",
    "subjects with resources": "label",
    "experiments": "label",
    "experiments with stamps": "label",
    "assessors": "label",
    "assessors of experiments": "label",
    "scans": "imageScanData/ID",
    "scans of experiments": "imageScanData/ID",
}


@pytest.mark.skipif(not HERE.is_dir(), reason=MISSING)
def test_the_claims_hold_for_every_recorded_listing() -> None:
    looked: Counter[str] = Counter()
    for entry in recorded("replies"):
        asked = Asked.of(f"http://server{entry['target']}")
        form = next((name for name, fits in FORMS.items() if fits(asked)), "")
        rows = (
            entry["body"].get("ResultSet", {}).get("Result") if isinstance(entry.get("body"), dict) else None
        )
        columns = asked.columns.split(",")
        wanted = NEEDED.get(form, "")
        if form not in CLAIMS or not isinstance(rows, list) or entry["method"] != "GET":
            continue
        if wanted and asked.columns and not any(column.split(":")[-1] == wanted for column in columns):
            continue
        named = [
            {key.lower(): "" if value is None else str(value) for key, value in row.items()} for row in rows
        ]
        CLAIMS[form].check(named)
        looked[form] += 1
    assert looked.total() > 150 and len(looked) >= 15


@pytest.mark.parametrize(
    ("claim", "row"),
    [
        (claims.PROJECTS, {"id": "", "name": "P"}),
        (claims.SUBJECTS, {"id": "S1", "label": ""}),
        (
            claims.EXPERIMENTS,
            {"id": "E1", "label": "a", "xsitype": "", "subject_id": "S", "subject_label": "s"},
        ),
        (
            claims.EXPERIMENTS,
            {"id": "E1", "label": "a", "xsitype": "E1", "subject_id": "S", "subject_label": "s"},
        ),
        (
            claims.EXPERIMENTS,
            {"id": "E1", "label": "a", "xsitype": "x:y", "subject_id": "E1", "subject_label": "s"},
        ),
        (claims.SCANS, {"id": "E1", "xnat:imagescandata/id": "E1"}),
        (claims.SCANS, {"id": "E1", "xnat:imagescandata/id": "", "xnat:imagescandata/type": "T1"}),
        (claims.RECONSTRUCTIONS, {"id": "E1", "xnat:reconstructedimagedata/id": "E1"}),
        (claims.RESOURCES, {"xnat_abstractresource_id": "x", "label": "R"}),
        (claims.RESOURCES_OF_SESSION, {"xnat_abstractresource_id": "1", "category": ""}),
        (claims.INPUTS, {"xnat_abstractresource_id": "1", "cat_id": ""}),
    ],
)
def test_what_breaks_a_claim_is_refused(claim: Claim, row: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        claim.check([row])
