"""What all tables of one server are built with.

Used by everything in `tables.engine` that asks the server or reads what earlier builds stored.
Threading: any thread; nothing in here changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from xnatfs.cache.measurement_store import MeasurementStore
from xnatfs.config import Limits
from xnatfs.content.temporary import TemporaryDownloads
from xnatfs.listing.service import ListingService
from xnatfs.listing.summaries import ProjectSummaries


@dataclass(frozen=True)
class TableServices:
    """What all tables of one server are built with.

    Attributes:
        summaries: the projects' sessions with their own resources.
        listing_service: for resources below scans and assessors, and for listings of resources.
        downloads: fetches files.
        store: keeps parsed rows, and which files of a session were read.
        limits: how many sessions at once, how long a build may take, after how many seconds a stored result
            is compared with a new listing though no stamp moved.
    """

    summaries: ProjectSummaries
    listing_service: ListingService
    downloads: TemporaryDownloads
    store: MeasurementStore
    limits: Limits
