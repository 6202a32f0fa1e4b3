"""The order in which a block's items begin: the longest first.

In a simulation with document lengths (24 to 64 items, log-normal, 8 slots) a batch takes 2 to 6 %
less time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from paddock.engine.system.text import canonical_json

from .staleness import ItemWork


def longest_first(todo: Sequence[ItemWork], items: Iterable[ItemWork]) -> list[ItemWork]:
    """Return the items to do, the longest first by powers of two, else in their own order.

    Length is the tokens of the item's last run, else its size times the tokens per byte of other
    items with the same kind of file.
    """
    rates = _tokens_per_byte(items)
    return sorted(todo, key=lambda item: -int(_expected_tokens(item, rates)).bit_length())


def _expected_tokens(item: ItemWork, rates: Mapping[str, float]) -> float:
    return _recorded_tokens(item) or _size_bytes(item) * rates.get(_file_kind(item), rates[""])


def _tokens_per_byte(items: Iterable[ItemWork]) -> dict[str, float]:
    """Return tokens per byte by kind of file; `""`: of all files."""
    found: dict[str, list[float]] = {}
    for item in items:
        if tokens := _recorded_tokens(item):
            rate = tokens / max(1, _size_bytes(item))
            for kind in {"", _file_kind(item)}:
                found.setdefault(kind, []).append(rate)
    return {"": 1.0} | {kind: median(rates) for kind, rates in found.items()}


def _recorded_tokens(item: ItemWork) -> int:
    return item.entry.tokens if item.entry is not None else 0


def _file_kind(item: ItemWork) -> str:
    return str(item.item.get("suffix", "")) if isinstance(item.item, Mapping) else ""


def _size_bytes(item: ItemWork) -> int:
    size = item.item.get("size") if isinstance(item.item, Mapping) else None
    return size if isinstance(size, int) else len(canonical_json(item.item))
