"""Store of lineage: the steps, calls and spec behind each entry, and its rows in vector stores.

One row for each item, and one for each vector store of an item, replaced when it is made again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from paddock.engine.system.records import Struct

from .database import queries
from .entries import LineageRow, StoredRow

if TYPE_CHECKING:
    from .ledger import Ledger


class LineageStore(Struct, frozen=True):
    ledger: Ledger

    # --- items

    def record_spec(self, text: str) -> str:
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.ledger.put("specs", {"spec": digest, "text": text})
        return digest

    def of_item(self, scope: str, key: str) -> LineageRow | None:
        return next(self._rows(queries.LINEAGE_OF_ITEM, scope=scope, key=key), None)

    def of_run(self, run: str) -> Iterator[LineageRow]:
        return self._rows(queries.LINEAGE_OF_RUN, run=run)

    def of_source(self, source: str) -> tuple[LineageRow, ...]:
        return tuple(self._rows(queries.LINEAGE_OF_SOURCE, source=source))

    def sources_below(self, folder: str, file: str, states: Container[str]) -> set[str]:
        """Return the documents below a folder whose items, of a pipeline, all have such states."""
        values = {"file": file, "prefix": f"{folder}/", "n": len(folder) + 1}
        rows = self.ledger.rows(queries.STATES_OF_SOURCES_BELOW, **values)
        return {source for source, _ in rows} - {
            path for path, state in rows if state not in states
        }

    def of_scope(self, scope: str, keys: Collection[str] | None = None) -> dict[str, LineageRow]:
        found = self.ledger.rows_of_keys(queries.LINEAGE_OF_SCOPE, keys, "i.key", scope=scope)
        return {row.key: row for row in self._read(found)}

    def specs_of(self, scope: str) -> dict[str, str]:
        rows = self.ledger.rows(queries.SPECS_OF_SCOPE, scope=scope)
        return {str(key): str(spec) for key, spec in rows}

    def spec(self, digest: str) -> str | None:
        found = self.ledger.rows(queries.SPEC, spec=digest)
        return str(found[0][0]) if found else None

    def _rows(self, query: str, **values: Any) -> Iterator[LineageRow]:
        return self._read(self.ledger.rows(query, **values))

    def _read(self, rows: Sequence[Sequence[Any]]) -> Iterator[LineageRow]:
        for *head, text, object_ in rows:
            columns = [*head, self.ledger.load_value(text, object_)]
            yield LineageRow(*columns)

    def calls_of(self, scope: str, key: str) -> tuple[str, ...]:
        rows = self.ledger.rows(queries.CALLS_OF_ITEM, scope=scope, key=key)
        return tuple(row[0] for row in rows)

    # --- vector stores

    def rows_in(self, path: str) -> Sequence[StoredRow]:
        return tuple(self._stored(queries.STORED_IN, path=path))

    def rows_of_scopes(self, scopes: Container[str]) -> Sequence[StoredRow]:
        return [row for row in self._stored(queries.STORED) if row.scope in scopes]

    def rows_of_file(self, file: str, place: Any) -> Iterator[tuple[str, bool, StoredRow]]:
        """Yield what items of a pipeline's file have in stores: (step, has it an entry, row).

        Only items of these folders: another run may work on others of the same file.
        """
        rows = self.ledger.rows(queries.STORED_BY_FILE, file=file)
        for inputs, step, has_entry, *row in rows:
            if json.loads(inputs)[0] == place:
                yield step, bool(has_entry), StoredRow(*row)

    def stores(self) -> tuple[str, ...]:
        return tuple(path for (path,) in self.ledger.rows(queries.STORES))

    def record_rows(self, row: StoredRow, run: str) -> None:
        self.ledger.put_row("stored", row, run=run, at=time.time())

    def drop_rows(self, row: StoredRow) -> None:
        self.ledger.drop("stored", {"scope": row.scope, "path": row.path, "key": row.key})

    def _stored(self, query: str, **values: str) -> Iterator[StoredRow]:
        return (StoredRow(*row) for row in self.ledger.rows(query, **values))
