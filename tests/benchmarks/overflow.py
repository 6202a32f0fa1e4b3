"""A cache that is too small for all: sixteen documents at once where five fit. Who gets an answer?

uv run python tests/benchmarks/overflow.py

Each document is of some 750 tokens with its instructions and its answer, and the whole cache has
4,096 cells for everybody: sixteen slots in a unified cache for llama-server, as many sequences for
ours.
"""

import asyncio
import collections
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import arena, loads
from tests.benchmarks.arena import FAILURES, Contest
from tests.benchmarks.contenders import PADDOCK, chosen
from tests.benchmarks.harness import NOTHING
from tests.benchmarks.loads import Ask
from tests.benchmarks.servers import llama_server
from tests.benchmarks.setup import Contender, Running

N_AT_ONCE = 16
FULL = {"documents": 16, "cells": 4096, "answer_tokens": 64, "words": 400}
CONTENDERS = (
    PADDOCK,
    Contender("server", "llama-server -np 16 -kvu", llama_server("-kvu", n_slots=N_AT_ONCE)),
)


@dataclass(frozen=True, slots=True)
class Turn:
    seconds: float
    n_answers: int
    errors: Sequence[str]


def main() -> None:
    args = arena.arguments(arena.parser(__doc__), FULL, FULL)  # it takes seconds
    setup = replace(arena.setup_of(args), n_cells=args.cells, n_parallel=N_AT_ONCE)
    setup = replace(setup, n_ctx_tokens=min(setup.n_ctx_tokens, args.cells))
    asks = loads.summaries(0, args.documents, args.answer_tokens, args.words)
    contenders = chosen(args.only, CONTENDERS)

    async def measure() -> str:
        found = await arena.contest(contenders, setup, 1, lambda one, _: play(asks, one))
        return report(found, len(asks))

    arena.show(args, measure, load="(g) more documents at once than the cache holds")


async def play(asks: Sequence[Ask], one: Running) -> Turn:
    """Ask all at once; an error is a result."""
    began = time.perf_counter()
    outcomes = await asyncio.gather(*(one.ask(ask) for ask in asks), return_exceptions=True)
    seconds = time.perf_counter() - began
    errors = []
    for outcome in outcomes:
        if isinstance(outcome, FAILURES):
            errors.append(str(outcome) or repr(outcome))
        elif isinstance(outcome, BaseException):
            raise outcome
    return Turn(seconds, len(outcomes) - len(errors), errors)


def report(found: Contest[Turn], n_asked: int) -> str:
    def cells(turns: list[Turn]) -> list[str]:
        (turn,) = turns
        said = collections.Counter(turn.errors).most_common(1)
        return [
            f"{turn.n_answers} of {n_asked}",
            f"{turn.seconds:.1f}",
            f"{said[0][1]} times: {said[0][0]}" if said else NOTHING,
        ]

    return found.table(["", "answers", "seconds", "the others"], cells)


if __name__ == "__main__":
    main()
