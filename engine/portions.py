"""A request for vectors, sent to a worker in portions and put together again.

Some portions are ahead of the one that is computed, so that the device never waits for the next,
and texts of other requests find their way in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from paddock.engine.errors import TextRefused, TextTooLong
from paddock.engine.workers.wire import Embedded

# Small enough that a waiting text is seen to move, large enough to be packed well.
PORTION_TEXTS = 64
# One portion is computed, the next is tokenised, a third is on its way.
N_AHEAD = 3

Send = Callable[[tuple[str, ...], int], Awaitable[Embedded]]
"""Embeds some texts, of which the first has this index in the request."""


@dataclass(frozen=True, slots=True)
class Whole:
    """The vectors of all texts, in their order."""

    vectors: tuple[tuple[float, ...], ...]
    n_tokens: int
    n_pieces: tuple[int, ...]
    """Empty: every text was read whole."""
    n_cut_tokens: tuple[int, ...]
    """Empty: none was cut."""


async def embed_in_portions(texts: tuple[str, ...], send: Send) -> Whole:
    """Send a request's texts, and give all that comes back.

    Raises:
        TextTooLong, TextRefused: with the text's index in the request.
        EngineError: whatever else `send` raises; the first ends the others.
    """
    ahead = asyncio.Semaphore(N_AHEAD)

    async def portion(start: int) -> Embedded:
        async with ahead:
            return await _portion(texts, start, send)

    tasks = [asyncio.create_task(portion(start)) for start in range(0, len(texts), PORTION_TEXTS)]
    try:
        parts = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return _joined(parts)


async def _portion(texts: tuple[str, ...], start: int, send: Send) -> Embedded:
    try:
        return await send(texts[start : start + PORTION_TEXTS], start)
    except TextTooLong as error:
        index = start + error.index
        raise TextTooLong(index, error.n_tokens, error.n_ctx_tokens) from None
    except TextRefused as error:
        raise TextRefused(start + error.index, error.why) from None


def _joined(parts: list[Embedded]) -> Whole:
    n_pieces = tuple(n for part in parts for n in part.n_pieces)
    n_cut = tuple(n for part in parts for n in part.n_cut_tokens)
    return Whole(
        tuple(vector for part in parts for vector in part.vectors),
        sum(part.n_tokens for part in parts),
        n_pieces if any(n > 1 for n in n_pieces) else (),
        n_cut if any(n_cut) else (),
    )
