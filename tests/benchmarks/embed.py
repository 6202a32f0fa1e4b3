"""Short texts embedded: ours against llama-server.

uv run python tests/benchmarks/embed.py

2,000 texts of 5 to 60 words. Ours gets them in one request, as a step sends them; the servers get
requests of 64 texts, eight of them in flight. The last column is the lowest cosine
between a contender's vectors and ours, over all texts: one that computes something else would show.
"""

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from numpy.typing import NDArray

from paddock.engine.backends.local import LocalPool
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import EmbedRequest, ModelSpec
from tests.benchmarks import arena, client, loads
from tests.benchmarks.arena import Contest
from tests.benchmarks.contenders import available, with_tuned_copy
from tests.benchmarks.harness import NOTHING, summary
from tests.benchmarks.processes import OwnGrowth, free_port, peak_bytes, serve
from tests.benchmarks.servers import server_command
from tests.benchmarks.setup import Setup

FULL = {"texts": 2000, "rounds": 3}
QUICK = {"texts": 500, "rounds": 1}
PORTION, N_IN_FLIGHT = 64, 8
N_CTX_TOKENS = 512

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Embedding:
    """A contender in its turn: how it embeds, and how much memory it took at most."""

    embed: Callable[[Sequence[str]], Awaitable[Any]]
    peak_bytes: Callable[[], int | None]


Start = Callable[[Setup], AbstractAsyncContextManager[Embedding]]


@dataclass(frozen=True, slots=True)
class Turn:
    seconds: float
    vectors: Vectors
    peak_bytes: int | None


def main() -> None:
    parser = arena.parser(__doc__)
    parser.set_defaults(model="all-minilm")
    args = arena.arguments(parser, FULL, QUICK)
    setup = arena.setup_of(args)
    texts = loads.short_texts(args.texts)
    starts = {
        name: partial(start, setup)
        for name, start in available(args.only, _everybody(setup)).items()
    }

    async def measure() -> str:
        found = await arena.take_turns(starts, args.rounds, lambda one, _: play(texts, one))
        return report(found, len(texts))

    arena.show(
        args,
        measure,
        load="(e) short texts embedded",
        words=sum(len(text.split()) for text in texts),
    )


def _everybody(setup: Setup) -> dict[str, tuple[str, Start, bool]]:
    has_server = setup.server is not None
    packed = llama_server(32, "-b", "2048", "-ub", "2048")
    return {
        "paddock": ("paddock", ours, True),
        "paddock-tuned": ("paddock, tuned copy", tuned, True),
        "server": ("llama-server", llama_server(4), has_server),
        "server-packed": ("llama-server -np 32 -b 2048 -ub 2048", packed, has_server),
    }


async def play(texts: Sequence[str], one: Embedding) -> Turn:
    await one.embed(texts[:PORTION])  # loads and warms up
    began = time.perf_counter()
    vectors = np.asarray(await one.embed(texts), np.float32)
    return Turn(time.perf_counter() - began, vectors, one.peak_bytes())


# Contenders


@contextlib.asynccontextmanager
async def ours(setup: Setup) -> AsyncIterator[Embedding]:
    """Embed by our pool, as a step does: one request with all texts."""
    growth = OwnGrowth()
    settings = setup.settings()
    finder = ModelFinder(settings.models_dir, settings.cache_dir)
    spec = ModelSpec(str(setup.model), role="embed", keep_alive_s=-1)
    async with LocalPool(settings, models=finder) as pool:

        async def embed(texts: Sequence[str]) -> Any:
            return (await pool.embed(EmbedRequest(spec, tuple(texts)))).vectors

        def peak() -> int | None:
            workers, mine = peak_bytes(pool.worker_pids()), growth.peak()
            return None if workers is None or mine is None else workers + mine

        yield Embedding(embed, peak)


@contextlib.asynccontextmanager
async def tuned(setup: Setup) -> AsyncIterator[Embedding]:
    """Embed by our pool with the copy that an idle service makes here."""
    async with ours(with_tuned_copy(setup)) as embedding:
        yield embedding


def llama_server(n_slots: int, *flags: str) -> Start:
    """Embed by llama-server: pooled by the mean, as the model wants it."""

    @contextlib.asynccontextmanager
    async def start(setup: Setup) -> AsyncIterator[Embedding]:
        port = free_port()
        short = replace(setup, n_ctx_tokens=N_CTX_TOKENS)
        command = [*server_command(short, port, n_slots), "--embedding", "--pooling", "mean"]
        async with serve([*command, *flags], port, health="/health") as server:
            yield Embedding(_by_http(port), lambda: peak_bytes([server.pid]))

    return start


def _by_http(port: int) -> Callable[[Sequence[str]], Awaitable[Any]]:
    places = asyncio.Semaphore(N_IN_FLIGHT)

    async def portion(texts: Sequence[str]) -> list[list[float]]:
        async with places:
            body = {"input": list(texts), "model": "any"}
            found = await client.post(port, "/v1/embeddings", body)
            return [row["embedding"] for row in sorted(found["data"], key=lambda row: row["index"])]

    async def embed(texts: Sequence[str]) -> Any:
        starts = range(0, len(texts), PORTION)
        parts = await asyncio.gather(*(portion(texts[at : at + PORTION]) for at in starts))
        return [row for part in parts for row in part]

    return embed


# The table


def report(found: Contest[Turn], n_texts: int) -> str:
    mine = next(
        (one.vectors for one in found.turns.get("paddock", ()) if isinstance(one, Turn)), None
    )
    peers = [found.results(name) for name in found.turns if name != "paddock"]
    best_s = min(
        (statistics.median(one.seconds for one in turns) for turns in peers if turns), default=None
    )

    def cells(turns: list[Turn]) -> list[str]:
        spread = summary([n_texts / one.seconds for one in turns])
        median_s = statistics.median(one.seconds for one in turns)
        peaks = [one.peak_bytes for one in turns if one.peak_bytes is not None]
        return [
            f"{spread.median:.0f}",
            f"{spread.low:.0f} to {spread.high:.0f}",
            f"{best_s / median_s:.2f}" if best_s else NOTHING,
            f"{statistics.median(peaks) / 1e6:.0f}" if peaks else NOTHING,
            f"{lowest_cosine(mine, turns[0].vectors):.4f}" if mine is not None else NOTHING,
        ]

    headings = ["", "texts/s", "range", "to the best peer", "peak MB", "lowest cosine to ours"]
    return found.table(headings, cells)


def lowest_cosine(ours: Vectors, theirs: Vectors) -> float:
    """Compare row by row.

    >>> lowest_cosine(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    1.0
    """
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(np.min(np.sum(ours * theirs, axis=1) / lengths))


if __name__ == "__main__":
    main()
