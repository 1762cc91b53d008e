"""Recorded replies that the stand-in does not give, each with its reason. A test fails if one of them starts
agreeing.
"""

from __future__ import annotations

_PAGE = "an html page of XNAT's own screens; the recording server had none either"
_USERS = "user services, which were partly the recording server's own"

READS = {
    "site-023": "the list of recent experiments is made from workflows, which the stand-in does not keep",
    "projects-028": _PAGE,
    "item-025": _PAGE,
    "item-027": _PAGE,
    "auth-025": "build information, which the recording server made itself",
    "auth-026": "an alias token, made by the recording server itself: ids, lengths and times differ",
    "auth-031": _USERS,
    "auth-032": _USERS,
    "auth-033": _USERS,
    "auth-034": _USERS,
    "guest-028": _USERS,
    "more-020": "the prearchive, answered by the recording server itself; the stand-in has none",
}

_RENAMING = "renaming fails on the recording server, which has no anonymizer"

WRITES = {
    "edit-003": _RENAMING,
    "edit-004": _RENAMING,
    "edit-017": _RENAMING,
    "edit-018": _RENAMING,
}
