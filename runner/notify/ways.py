"""The ways to tell somebody: how each takes a message, and within which time. Plain nouns.

Each is a coroutine function that raises `Untold` when the message did not arrive.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

ATTEMPTS = 3
FIRST_WAIT_S = 1.0
ATTEMPT_S = 10.0
DEADLINE_S = 45.0
"""Of one message, all its attempts together."""


class Untold(Exception):
    """A message did not arrive; says why in words without the receiver's secrets."""

    def __init__(self, why: str, *, is_passing: bool = False) -> None:
        self.is_passing = is_passing
        """Whether another attempt may succeed."""
        super().__init__(why)


async def with_patience(send: Callable[[], Awaitable[None]]) -> None:
    """Send, and again after passing failures, within the deadline.

    Raises:
        Untold: it did not arrive.
    """
    try:
        async with asyncio.timeout(DEADLINE_S):
            await _attempts(send)
    except TimeoutError:
        raise Untold(f"there was no answer within {DEADLINE_S:g} s") from None


async def _attempts(send: Callable[[], Awaitable[None]]) -> None:
    for number in range(1, ATTEMPTS + 1):
        try:
            await send()
        except Untold as error:
            if not error.is_passing or number == ATTEMPTS:
                raise
            # Not all pipelines that failed with a network should call at the same moment again.
            wait_s = FIRST_WAIT_S * 3 ** (number - 1)
            await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))
        else:
            return
