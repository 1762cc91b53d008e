"""The listing forms xnatfs sends, each by what its requests look like.

Used by `cells` and the tests; one of these says that every request of a walk is of a form named here, so that
a new form cannot come without its cells.
Threading: pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from tests.dialects.world import Asked

_EXPERIMENTS = re.compile(r"/data/projects/[^/]+/experiments")


def _project_form(xsi_type: str | None, *, has: str = "", lacks: str = "\0") -> Callable[[Asked], bool]:
    def fits(asked: Asked) -> bool:
        return (
            _EXPERIMENTS.fullmatch(asked.path) is not None
            and asked.query.get("xsiType") == xsi_type
            and has in asked.columns
            and lacks not in asked.columns
            and "limit" not in asked.query
        )

    return fits


def _below(pattern: str, *, every: bool | None = None) -> Callable[[Asked], bool]:
    compiled = re.compile(pattern)
    return lambda asked: (
        compiled.fullmatch(asked.path) is not None and (every is None or ("all" in asked.query) is every)
    )


def _at(path: str, has: str = "", lacks: str = "\0") -> Callable[[Asked], bool]:
    compiled = re.compile(path)
    return lambda asked: (
        compiled.fullmatch(asked.path) is not None and has in asked.columns and lacks not in asked.columns
    )


FORMS: Mapping[str, Callable[[Asked], bool]] = {
    "labels": lambda asked: asked.columns == "ID,label",
    "projects with columns": lambda asked: asked.path == "/data/projects" and "name" in asked.columns,
    "projects accessible": lambda asked: asked.path == "/data/projects" and "accessible" in asked.query,
    "projects": lambda asked: (
        asked.path == "/data/projects" and not asked.columns and "accessible" not in asked.query
    ),
    "subjects with resources": _at(r"/data/projects/[^/]+/subjects", "resources/resource"),
    "subjects": _at(r"/data/projects/[^/]+/subjects", "ID", "resources/resource"),
    "experiments with stamps": _project_form("xnat:subjectAssessorData"),
    "experiments": _project_form(None, has="subject_ID"),
    "some experiment": lambda asked: "limit" in asked.query,
    "ids of projects": lambda asked: asked.path == "/data/projects" and asked.columns == "ID",
    "only ids": lambda asked: asked.columns == "ID" and "limit" not in asked.query,
    "resources of experiments": _project_form(None, has="experimentData/resources"),
    "scans": _project_form("xnat:imageSessionData", has="imageScanData"),
    "scans of experiments": _at(r"/data/experiments", "imageScanData"),
    "assessors": _project_form("xnat:imageAssessorData"),
    "assessors of experiments": lambda asked: (
        asked.path == "/data/experiments" and asked.query.get("xsiType") == "xnat:imageAssessorData"
    ),
    "reconstructions": _project_form("xnat:imageSessionData", has="reconstructedImageData"),
    "resources of a session": _below(r"/data/experiments/[^/]+/resources", every=True),
    "scans of a session": _below(r"/data/experiments/[^/]+/scans"),
    "assessors of a session": _below(r"/data/experiments/[^/]+/assessors"),
    "item of a subject": _below(r"/data/subjects/[^/]*"),
    "inputs of a session": _below(r"/data/experiments/[^/]+/(assessors|reconstructions)/ALL/in/resources"),
    "resources of one object": _below(r"/data/.+/resources", every=False),
    "files of sessions": _below(r"/data/experiments/[^/]*,[^/]*/files", every=True),
    "files of a session": _below(r"/data/experiments/[^/,]+/files", every=True),
    "files of one resource": _below(r"/data/.+/resources/[^/]+/files", every=False),
    "files of one object": _below(r"/data/.+/files", every=False),
}
NO_LISTINGS = re.compile(
    r"/(xapi/siteConfig/buildInfo|data/JSESSION|data/auth|data/.*/resources/\d+/files/.+)"
)


def form_of(asked: Asked) -> str | None:
    """The form of a request; None for what is no listing.

    Raises:
        LookupError: it is of none.
    """
    if NO_LISTINGS.fullmatch(asked.path):
        return None
    for name, fits in FORMS.items():
        if fits(asked):
            return name
    raise LookupError(f"{asked.path}?{asked.query}")
