"""One order made of several: reciprocal rank fusion. Pure.

Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
Learning Methods", SIGIR 2009: scores of different kinds cannot be added, ranks can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .storage import Hit

RANK_OFFSET = 60
"""The paper's k: how little the first ranks weigh more than those that follow."""


def fused(*orders: Sequence[Hit]) -> list[Hit]:
    """Give all hits in one order, each once; its score is the sum of 1 / (60 + rank)."""
    scores: dict[tuple[str, str, str, int], float] = {}
    known: dict[tuple[str, str, str, int], Hit] = {}
    for order in orders:
        for rank, hit in enumerate(order, 1):
            name = (hit.source, hit.item, hit.step, hit.index)
            known[name] = hit
            scores[name] = scores.get(name, 0.0) + 1 / (RANK_OFFSET + rank)
    names = sorted(known, key=lambda name: (-scores[name], name))
    return [replace(known[name], score=round(scores[name], 6)) for name in names]
