"""The table of `gpu.py`: a row for each measurement, and ours to the best of the others. Pure."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.contenders import PADDOCK
from tests.benchmarks.harness import NOTHING, table
from tests.benchmarks.setup import Contender, Setup

OURS = PADDOCK.name


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: a number or a word for each of the columns that have one."""

    what: str
    cells: Mapping[str, float | str]
    is_better_more: bool | None = None
    """None: nothing to be compared."""


@dataclass(slots=True)
class Bench:
    """What the parts share."""

    args: argparse.Namespace
    setup: Setup
    batched_bench: Path | None
    servers: Sequence[Contender]
    best: Contender | None = None
    """The quickest llama-server of the job."""
    rows: list[Row] = field(default_factory=list)


def report(rows: Sequence[Row]) -> str:
    """Return the table: a column for each contender, and ours to the best of the others.

    >>> print(report([Row("speed", {"paddock": 3.0, "other": 2.0}, True)]))
    |  | paddock | other | to the best peer |
    |---|--:|--:|--:|
    | speed | 3 | 2 | 1.50 |
    """
    names = list(dict.fromkeys(name for row in rows for name in row.cells))
    names.sort(key=lambda name: name != OURS)
    lines = [
        [row.what, *(row.cells.get(name, NOTHING) for name in names), _ratio(row)] for row in rows
    ]
    return table(["", *names, "to the best peer"], lines)


def _ratio(row: Row) -> str:
    """Return ours to the best peer, above 1 where ours is better."""
    mine = row.cells.get(OURS)
    others = [
        value for name, value in row.cells.items() if name != OURS and isinstance(value, float)
    ]
    if row.is_better_more is None or not isinstance(mine, float) or not others or not mine:
        return NOTHING
    best = max(others) if row.is_better_more else min(others)
    return f"{mine / best if row.is_better_more else best / mine:.2f}"
