"""The order in which a block's items begin: the longest first.

A long item that is begun last has the batch to itself at the end, so the longest come first, by
the tokens of their last run. What an item that never ran will take is estimated from others with
the same kind of file, by tokens per byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from paddock.engine.system.text import canonical_json

from .block_work import ItemWork


def longest_first(todo: Sequence[ItemWork], sizes: Mapping[str, float]) -> list[ItemWork]:
    """Return the items to do, the longest first by powers of two, else in their own order.

    In a simulation with document lengths (24 to 64 items, log-normal, 8 slots) a batch takes 2 to
    6 % less time.
    """
    return sorted(todo, key=lambda item: -int(sizes[item.key]).bit_length())


def expected_tokens(todo: Sequence[ItemWork], items: Iterable[ItemWork]) -> dict[str, float]:
    """Return how long each item to do will be, by key: the tokens of its last run.

    Else its size times the tokens per byte of other items with the same kind of file.
    """
    # Tokens per byte by kind of file; `""`: of all files.
    found: dict[str, list[float]] = {}
    for item in items:
        if tokens := _recorded_tokens(item):
            rate = tokens / max(1, _size_bytes(item))
            for kind in {"", _file_kind(item)}:
                found.setdefault(kind, []).append(rate)
    rates = {"": 1.0} | {kind: median(rates) for kind, rates in found.items()}
    return {
        item.key: _recorded_tokens(item)
        or _size_bytes(item) * rates.get(_file_kind(item), rates[""])
        for item in todo
    }


def _recorded_tokens(item: ItemWork) -> int:
    return item.entry.tokens if item.entry is not None else 0


def _file_kind(item: ItemWork) -> str:
    return str(item.item.get("suffix", "")) if isinstance(item.item, Mapping) else ""


def _size_bytes(item: ItemWork) -> int:
    size = item.item.get("size") if isinstance(item.item, Mapping) else None
    return size if isinstance(size, int) else len(canonical_json(item.item))
