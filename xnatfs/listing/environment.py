"""What all listings of one server are made with.

Used by everything in `listing` that asks the server.
Threading: any thread; nothing in here changes once the listings are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from xnatfs.concurrency.clock import Clock
from xnatfs.concurrency.debounce import Debouncer
from xnatfs.concurrency.refreshable import Kept, Refreshable
from xnatfs.concurrency.single_flight import SingleFlight
from xnatfs.config import Limits
from xnatfs.diagnostics import Diagnostics
from xnatfs.errors import Failure
from xnatfs.listing.codec import StoredListings
from xnatfs.listing.mtimes import MtimeHistory
from xnatfs.listing.wait_policy import WaitPolicy
from xnatfs.server.listing_requests import ListingRequests
from xnatfs.server.resources import Resources

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class ListingEnvironment:
    """What all listings of one server are made with.

    Attributes:
        listings, resources: where they come from.
        calls: fetches single listings.
        limits: for how long a listing holds, how many file records are held.
        diagnostics: what is odd on the server is reported there.
        stored: what earlier mounts listed.
        history: when files changed.
        later: renews what was shown from the store.
        policy: when not to wait on.
        clock: listings age by.
        values: all that `refreshable` made, for who wants to know what cannot be listed now.
    """

    listings: ListingRequests
    resources: Resources
    calls: SingleFlight
    limits: Limits
    diagnostics: Diagnostics
    stored: StoredListings
    history: MtimeHistory
    later: Debouncer
    policy: WaitPolicy
    clock: Clock
    values: list[Refreshable[Any, Any]] = field(default_factory=list)

    def lasts(self, stamp: str) -> float:
        """For how many seconds a listing holds while its stamp stays: some changes move none (xnat-rest.md
        13). Without a stamp age is all there is.
        """
        return max(self.limits.relist_after, self.limits.ttl) if stamp else self.limits.ttl

    def refreshable(
        self,
        kind: str,
        stored: Callable[[K], Kept[V] | None],
        *,
        calls: SingleFlight | None = None,
        again_after: float = 0.0,
        as_stale: Callable[[V], V] = lambda value: value,
        capacity: int | None = None,
        sizeof: Callable[[V], int] = lambda value: 1,
    ) -> Refreshable[K, V]:
        """Values that are listed; see `Refreshable`.

        Args:
            as_stale: what to show of a value that could not be listed again.
        """

        def on_stale(value: V, failure: Failure) -> V:
            self.diagnostics.failed(failure)
            return as_stale(value)

        values = Refreshable(
            kind,
            calls or self.calls,
            self.clock,
            deadline=self.limits.listing_deadline,
            patience=self.policy,
            on_stale=on_stale,
            stored=stored,
            again_after=again_after,
            capacity=capacity,
            sizeof=sizeof,
        )
        self.values.append(values)
        return values
