"""What is kept over a remount of the details of subjects, sessions and assessors.

Used by `details`. Nothing is kept here that the mount does not show (`config.Privacy`): what is handed in is
reduced already.
Threading: any thread; values in, values out.
"""

from __future__ import annotations

from typing import Any

from xnatfs.concurrency.refreshable import Kept
from xnatfs.listing.codec import StoredListings
from xnatfs.server.detail_requests import DetailListing, Details


class StoredDetails:
    """Typed access to the details in a `StoredListings`."""

    def __init__(self, stored: StoredListings) -> None:
        self._stored = stored

    def details(self, kind: str, project: str) -> Kept[DetailListing] | None:
        """The details of a project's subjects, or of its sessions (`kind`)."""
        return self._stored.read(f"details of {kind}", project, _details)

    def put_details(self, kind: str, project: str, stamp: str, listing: DetailListing) -> None:
        """Keep them."""
        of = {one: [dict(found.values), dict(found.custom)] for one, found in listing.of.items()}
        body = {"of": of, "columns": listing.columns, "odd": listing.odd}
        self._stored.keep(f"details of {kind}", project, stamp, body)

    def fields(self, kind: str, project: str) -> dict[str, tuple[str, dict[str, str]]]:
        """What was asked for object by object: by accession id the stamp it came with, and the fields."""
        kept = self._stored.read(
            f"fields of {kind}",
            project,
            lambda body: {
                str(one): (str(stamp), {str(name): str(value) for name, value in fields.items()})
                for one, (stamp, fields) in body.items()
            },
        )
        return kept.value if kept is not None else {}

    def put_fields(self, kind: str, project: str, fields: dict[str, tuple[str, dict[str, str]]]) -> None:
        """Keep them."""
        self._stored.keep(f"fields of {kind}", project, "", fields)


def _details(body: Any) -> DetailListing:
    of = {str(one): Details(dict(values), dict(custom)) for one, (values, custom) in body["of"].items()}
    return DetailListing(of, list(body["columns"]), list(body["odd"]))
