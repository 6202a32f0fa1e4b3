"""Embedding requests in portions, some of which are sent ahead of the one being computed.

So the device never waits for the next one, and texts of other requests find their way in between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from paddock.engine.errors import EngineError, TextRefused, TextTooLong
from paddock.engine.request import PackedVectors
from paddock.engine.system.tasks import run_concurrently
from paddock.engine.workers.worker_protocol import Embedded

# Small enough that a waiting text is seen to move, large enough to be packed well.
PORTION_TEXTS = 64
# One portion is computed, the next is tokenised, a third is on its way.
PORTIONS_AHEAD = 3

SendPortion = Callable[[tuple[str, ...], int], Awaitable[Embedded]]


async def embed_in_portions(texts: tuple[str, ...], send: SendPortion) -> Embedded:
    """Send a request's texts in portions, and join what comes back.

    Raises:
        TextTooLong, TextRefused: with the text's index in the request.
        EngineError: whatever else `send` raises; the first ends the others.
    """

    async def portion(start: int) -> Embedded:
        try:
            return await send(texts[start : start + PORTION_TEXTS], start)
        except TextTooLong as error:
            index = start + error.index
            raise TextTooLong(index, error.n_tokens, error.n_ctx_tokens) from None
        except TextRefused as error:
            raise TextRefused(start + error.index, error.why) from None

    starts = range(0, len(texts), PORTION_TEXTS)
    parts = await run_concurrently(portion, starts, PORTIONS_AHEAD)
    if len({len(part.vectors.packed) // len(part.vectors) for part in parts}) > 1:
        raise EngineError("the vectors of one answer have different lengths: its model has changed")
    n_pieces = tuple(n for part in parts for n in part.n_pieces)
    n_cut = tuple(n for part in parts for n in part.n_cut_tokens)
    unknown = tuple(n for part in parts for n in part.unknown_shares)
    return Embedded(
        PackedVectors(len(texts), b"".join([part.vectors.packed for part in parts])),
        sum(part.n_tokens for part in parts),
        n_pieces if any(n > 1 for n in n_pieces) else (),
        n_cut if any(n_cut) else (),
        unknown if any(unknown) else (),
    )
