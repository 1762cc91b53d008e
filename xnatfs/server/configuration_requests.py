"""Asking XNAT's configuration service for what a lab keeps there: mapping files of other programs.

Used by `listing.configurations`. The service holds texts by tool and path, of a project or of the site.
Threading: any thread; no state.
"""

from __future__ import annotations

from collections.abc import Mapping

from xnatfs.errors import Cause, Failure
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.resultset import pick
from xnatfs.server.urls import segment

# What is asked for, by tool: where dcm2bids' configuration and XNAT's BIDS maps are kept.
PATHS: Mapping[str, str] = {"dcm2bids": "bidsconfig", "bids": "bidsmap"}
_SITE_TOOLS = ("bids",)
_REFUSALS = frozenset({400, 403, 404, 405, 406, 501})  # a server without it, or a user who may not


class ConfigurationRequests:
    """The configuration service of one server."""

    def __init__(self, listings: ListingRequests) -> None:
        self._listings = listings

    def texts(self, project: str) -> dict[str, str]:
        """The mapping files of a project, or ("") of the site, by tool. One request where there is none: the
        list of a project's tools, the one file of the site's.

        Raises:
            Failure: what keeps the server from answering; not that it has none.
        """
        root = f"/data/projects/{segment(project)}/config" if project else "/data/config"
        tools = self._tools(root) if project else _SITE_TOOLS
        found = {tool: self._text(f"{root}/{tool}/{path}") for tool, path in PATHS.items() if tool in tools}
        return {tool: text for tool, text in found.items() if text is not None}

    def _tools(self, root: str) -> set[str]:
        try:
            return {pick(row, "tool") for row in self._listings.table(root)}
        except Failure as failure:
            if not _is_none(failure):
                raise
            return set()

    def _text(self, path: str) -> str | None:
        try:
            return self._listings.object(path, _decoded, contents="true")
        except Failure as failure:
            if not _is_none(failure):
                raise
            return None


def _is_none(failure: Failure) -> bool:
    return not failure.away and (failure.status in _REFUSALS or failure.cause is Cause.NOT_DATA)


def _decoded(body: bytes) -> str:
    """Servers differ in how they write what is not ASCII."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return body.decode("latin-1")
