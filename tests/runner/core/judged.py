"""The verdict on an item by its parts alone: it has read and written nothing."""

import json
from collections.abc import Collection, Mapping
from typing import Any, cast

from paddock.engine.system.light_dataclasses import dataclass
from paddock.runner.core.traces.dependencies import Trace
from paddock.runner.core.traces.past_items import PastItems, SpecChanges
from paddock.runner.core.traces.verify import ItemNow, ItemVerdict, verify
from paddock.runner.core.traces.world import PreparedWorld, World
from paddock.runner.ledger.entries import Entry


@dataclass(frozen=True)
class Since(SpecChanges):
    content: str | None = None

    def content_then(self, item: Any) -> str | None:
        return self.content


class Past(PastItems):
    """Today's item would have had this content then."""

    def __init__(self, content: str | None) -> None:
        self._since = Since(content=content)

    def changes(self, key: str) -> SpecChanges:
        return self._since


def judged(
    entry: Entry,
    hash_: str,
    parts: Mapping[str, str],
    older: Mapping[str, Collection[str]] | None = None,
    content_then: str | None = None,
) -> ItemVerdict:
    world = PreparedWorld(World(cast(Any, None), cast(Any, None), cast(Any, None)))
    now = ItemNow(hash_, json.dumps(parts), older=older, key=entry.key)
    return verify(Trace("", entry, Past(content_then)), now, world)
