"""The verdict on an item by its parts alone: it has read and written nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, cast

from paddock.runner.core.dependencies import Trace, World
from paddock.runner.core.stale_reasons import PastItem, PastItems
from paddock.runner.core.verify import ItemNow, ItemVerdict, verify
from paddock.runner.ledger.entries import Entry


class Past(PastItems):
    def __init__(self, past: PastItem) -> None:
        self._past = past

    def of(self, key: str, item: Any) -> PastItem:
        return self._past


def judged(
    entry: Entry,
    hash_: str,
    parts: Mapping[str, str],
    older: Mapping[str, Collection[str]] | None = None,
    past: PastItem | None = None,
) -> ItemVerdict:
    world = World(cast(Any, None), cast(Any, None))
    now = ItemNow(hash_, json.dumps(parts), older=older)
    return verify(Trace("", entry, Past(past or PastItem())), now, world)
