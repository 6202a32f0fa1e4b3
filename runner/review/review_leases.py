"""Leases of reviews: two people who decide at the same time are not given the same item.

Each change is compared and set in one transaction (`ReviewStore.change`). The page takes a lease
of the item that it shows, and renews it.
"""

from __future__ import annotations

from dataclasses import replace

from paddock.engine.system import units
from paddock.runner.ledger.review_store import ReviewStore
from paddock.runner.ledger.reviews import DecisionRefused, Review, refuse_stranger

LEASE_S = 120.0
"""How long a person who looks at an item keeps it to themselves; a page renews it meanwhile."""


class LeasedReviews(ReviewStore):
    """The reviews of one ledger, which people keep to themselves while they look at them."""

    def take_lease(self, id_: str, by: str, seconds: float = LEASE_S) -> Review:
        """Keep an open review to one person for some time, or for longer.

        Raises:
            DecisionRefused: another person has it, or `by` is not among its reviewers.
        """

        def take(review: Review, now: float) -> Review:
            refuse_stranger(review, by)
            refuse_leased(review, by, now)
            return replace(review, lease_by=by, lease_until=now + seconds)

        return self.change(id_, take)

    def release(self, id_: str, by: str) -> Review:
        """End a lease; one of another person is left as it is."""

        def end(review: Review, now: float) -> Review:
            is_own = review.lease_by == by
            return replace(review, lease_by=None, lease_until=None) if is_own else review

        return self.change(id_, end)


def refuse_leased(review: Review, by: str, now: float) -> None:
    if review.lease_by not in (None, by) and (review.lease_until or 0.0) > now:
        until = units.local_time(review.lease_until or 0.0, "%H:%M:%S")
        raise DecisionRefused(
            f"{review.lease_by} looks at {review.shown_name} until {until}. "
            f"Take another one, or wait."
        )
