"""What the deliveries of a message share: attempts and a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from paddock.engine.system.retry import Backoff

ATTEMPTS = 3
# Pipelines that failed with one network do not all retry at the same moment.
BACKOFF = Backoff(1.0, 30.0, factor=3.0, spread=0.25)
ATTEMPT_S = 10.0
DEADLINE_S = 45.0
"""For all attempts of one message together."""


class NotDelivered(Exception):
    """A message was not delivered; the reason holds none of the receiver's secrets."""

    def __init__(self, why: str, *, is_passing: bool = False) -> None:
        self.is_passing = is_passing
        """Whether another attempt may succeed."""
        super().__init__(why)


async def with_retries(send: Callable[[], Awaitable[None]]) -> None:
    """Send; retry transient failures until the deadline.

    Raises:
        NotDelivered: it was not delivered.
    """
    try:
        async with asyncio.timeout(DEADLINE_S):
            for number in range(1, ATTEMPTS + 1):
                try:
                    return await send()
                except NotDelivered as error:
                    if not error.is_passing or number == ATTEMPTS:
                        raise
                await asyncio.sleep(BACKOFF.pause_s(number))
    except TimeoutError:
        raise NotDelivered(f"there was no answer within {DEADLINE_S:g} s") from None
