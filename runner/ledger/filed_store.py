"""Which files were moved where, and which items are filed, since their document was.

A move is written before it is made, so that after a kill the document is found where it lies; it is
finished with the entry of the item that had the document. Filed is a state of the item: its row
says where the document went.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from paddock.engine.system.records import Struct

from .database import queries
from .item_events import FILED_COLUMNS, EventKind

if TYPE_CHECKING:
    from .ledger import Ledger

MOVED_BY_WATCH = ""
"""In place of a move's digest: whatever was in the file that a hot folder's watch moved."""


class MoveRow(Struct, frozen=True):
    """A file that was moved away, or is about to be."""

    path: str
    """Where it lay, as the ledger stores paths."""
    sha256: str
    target: str
    """Where it went; empty: it was deleted."""
    scope: str = ""
    """Scope and key of the item whose file it is, until that has its entry; then empty."""
    key: str = ""
    at: float = 0.0


class FiledRow(NamedTuple):
    """Where the document of a filed item is: columns of the item's row, and its result."""

    key: str
    name: str
    """The key of its file; other content under that name has `key` `name#2`."""
    path: str = ""
    """Where its document lay when it was listed."""
    sha256: str = ""
    target: str | None = None
    """Where it went; empty: it was deleted; None: no one knows."""
    made_by: str = ""
    """Digest of what the block's items have in common, as it was done last."""
    outdated_by: str = ""
    """That of a later version of the block, by which it would come out otherwise."""
    returns: str | None = None
    returns_object: str | None = None
    state: str = "done"
    """Of its entry: one that is not whole, such as one that a person rejected, is an item."""

    @property
    def has_result(self) -> bool:
        return self.returns not in (None, "null") or self.returns_object is not None

    def columns(self) -> dict[str, Any]:
        """Return the columns of the event with which its document left."""
        return {name: getattr(self, name) for name in FILED_COLUMNS}


def list_order(name: str, key: str) -> tuple[str, int, str]:
    """Return the place of an item in a table: by name, then in the order in which they came.

    >>> sorted(("a#10", "b", "a", "a#2"), key=lambda key: list_order(key[0], key))
    ['a', 'a#2', 'a#10', 'b']
    """
    return name, len(key), key


class FiledStore(Struct, frozen=True):
    """The moves and the filed items that a ledger knows."""

    _ledger: Ledger

    def record_move(self, move: MoveRow) -> None:
        columns: dict[str, Any] = {
            "origin": move.path,
            "sha256": move.sha256,
            "target": move.target,
        }
        self._ledger.append(EventKind.MOVED, move.scope, move.key, **columns)

    def moves_from(self, paths: Collection[str]) -> Mapping[tuple[str, str], MoveRow]:
        """Return the last moves of files at these paths, by path and digest."""
        rows = self._ledger.rows_of_keys(queries.LAST_MOVES, paths, "m.origin")
        return {(row[0], row[1]): MoveRow(*row) for row in rows}

    def unfinished(self, scope: str) -> list[MoveRow]:
        """Return the moves by runs that did not finish their items."""
        return [MoveRow(*row) for row in self._rows(queries.UNFINISHED_MOVES, scope=scope)]

    def of(self, scope: str) -> list[FiledRow]:
        return [*map(FiledRow._make, self._rows(queries.FILED_OF_SCOPE, scope=scope))]  # 100,000

    def targets(self, scope: str, key: str) -> list[str]:
        rows = self._rows(queries.FILED_TARGET, scope=scope, key=key)
        return [target for (target,) in rows if target]

    def came_from(self, target: str, since: float = 0.0) -> list[str]:
        return [path for (path,) in self._rows(queries.ORIGINS_OF, target=target, since=since)]

    def came_from_below(self, prefix: str) -> list[str]:
        rows = self._rows(queries.ORIGINS_BELOW, prefix=prefix, n=len(prefix))
        return [path for (path,) in rows]

    def of_content(self, sha256: str) -> list[tuple[str, str]]:
        return [(s, key) for s, key in self._rows(queries.FILED_OF_CONTENT, content=sha256)]

    def _rows(self, query: str, **values: str | float) -> Sequence[Sequence[Any]]:
        return self._ledger.rows(query, **values)
