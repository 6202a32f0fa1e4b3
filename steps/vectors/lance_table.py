"""Table of a vector store in LanceDB. Blocking: call it in a thread.

The only module that knows the library, which takes a second to load: it is imported when a store is
opened. Every change is one commit: it is there as a whole or not at all, whenever the process is
killed. A commit's files are synced to the disk before it counts, since a ledger entry will say that
it is done. The writer in `open_stores` decides who writes when.
"""

from __future__ import annotations

import contextlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import lancedb
import numpy as np
import pyarrow as arrow  # type: ignore[import-untyped]  # comes with LanceDB

from paddock.engine.system.files import sync_file, sync_folder
from paddock.engine.system.text import one_line, shorten
from paddock.pipelines.checking.folding import composed
from paddock.steps.base import EmbedModel, SearchHit, StepError
from paddock.steps.item_rows import RowSum

from .row_changes import TABLE_COLUMNS, HashedRow, KnownRow, RowChanges, RowsToDrop, RowsToKeep
from .store_manifest import TABLE_NAME, MissingTable, StoreFormat, table_folder
from .where_filter import KIND_WORDS, ColumnKind, sql_literal, value_kind


@contextlib.contextmanager
def store_errors(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except StepError:
        raise
    except Exception as error:  # the library raises many kinds, RuntimeError for most
        message = one_line(str(error))
        is_full = "No space left" in message or "Disk quota" in message
        if is_full:
            reason = f"the store '{path}' cannot be written: the disk is full."
            remedy = "Free some space, then run the same command again."
        elif "Permission denied" in message or "Read-only file system" in message:
            reason = f"the store '{path}' cannot be written: permission denied."
            remedy = "Change its permissions, or use another folder."
        else:
            reason = f"the store '{path}' cannot be {what} ({message[:200]})."
            remedy = (
                "If it is broken, delete that folder and run the pipeline that fills it: the "
                "vectors are cached, so no model is called for them."
            )
        raise StepError(reason, remedy=remedy, is_fatal=is_full, kind="io") from error


_METADATA_KEY = b"paddock"
_TABLE_VERSION = 1
_BATCH_ROWS = 8_192
_EXTRA_ROWS = 16
"""Extra rows that are read so that ties are cut deterministically."""


class LanceTable:
    """An open table. Several threads may read; one writes at a time.

    Methods raise `StepError` where it cannot be read or written; then nothing has changed.
    """

    def __init__(self, path: Path, table: Any, label: StoreFormat) -> None:
        """`path` is the store's, for people."""
        self.path = path
        self.label = label
        self._table = table
        self._on_disk: set[str] = set()

    @classmethod
    def open(cls, place: Path, path: Path) -> LanceTable:
        """Open the table of a store; `place` leads to its folder, `path` is its name for people.

        Raises:
            MissingTable: there is none.
            StepError: it cannot be read, or is none of ours.
        """
        if not table_folder(place).is_dir():
            raise MissingTable
        with store_errors(path, "read"):
            table = lancedb.connect(place).open_table(TABLE_NAME)
            metadata = (table.schema.metadata or {}).get(_METADATA_KEY)
        if metadata is None:
            raise StepError(
                f"'{path}' holds a table that Paddock did not make.",
                remedy="Use another folder for the store.",
            )
        about = json.loads(metadata)
        if about["version"] > _TABLE_VERSION:
            raise StepError(
                f"the store '{path}' was written by a newer Paddock.",
                remedy="Update Paddock, or use another folder for the store.",
                is_fatal=True,
            )
        model = EmbedModel(about["model"]["ref"], about["model"]["digest"])
        return cls(path, table, StoreFormat(model, about["dimensions"]))

    @classmethod
    def make(cls, place: Path, path: Path, label: StoreFormat) -> LanceTable:
        """Create an empty one in a folder; its format is part of the same commit."""
        with store_errors(path, "written"):
            table = lancedb.connect(place).create_table(TABLE_NAME, schema=_arrow_schema(label))
        made = cls(path, table, label)
        made._to_disk()
        return made

    # --- content

    @property
    def columns(self) -> dict[str, ColumnKind]:
        kinds = {"string": "text", "double": "number", "bool": "truth"}
        return {
            field.name: cast("ColumnKind", kinds[str(field.type)])
            for field in self._table.schema
            if field.name not in TABLE_COLUMNS and str(field.type) in kinds
        }

    @property
    def version(self) -> int:
        return int(self._table.version)

    def renew(self) -> int:
        with store_errors(self.path, "read"):
            self._table.checkout_latest()
            return self.version

    def sums(self) -> dict[str, RowSum]:
        found: dict[str, RowSum] = {}
        for batch in self._scan("", ["owner", "print"]):
            for owner, print_ in zip(*(batch[name].to_pylist() for name in batch), strict=True):
                found[owner] = found.get(owner, RowSum()) + RowSum(int(print_, 16), 1)
        return found

    def known(self, owners: Iterable[str]) -> list[KnownRow]:
        names = ["owner", "step", "index", "print"]
        batches = self._scan(_owned_by(owners), names)
        return [
            KnownRow(*row)
            for batch in batches
            for row in zip(*(batch[name].to_pylist() for name in names), strict=True)
        ]

    def vectors(self, owner: str, step: str, made: str) -> dict[str, array[float]]:
        """Return the vectors of a step's rows of an owner with this `made`, by text."""
        where = (
            f"{_owned_by([owner])} AND step = {sql_literal(step)} AND made = {sql_literal(made)}"
        )
        found = {}
        written = [name for name in ("_text", "text") if name in self._table.schema.names]
        for batch in self._scan(where, [*written, "vector"]):
            texts = zip(*(batch[name].to_pylist() for name in written), strict=True)
            for forms, vector in zip(texts, batch["vector"], strict=True):
                found[next(filter(None, forms), "")] = array("f", vector.as_py())
        return found

    def _scan(self, where: str, names: list[str]) -> Iterator[dict[str, Any]]:
        """Yield columns of the rows that meet a condition, in batches of some thousand rows."""
        with store_errors(self.path, "read"):
            query = self._table.search().select(names)
            if where:
                query = query.where(where)
            for batch in query.to_batches(batch_size=_BATCH_ROWS):
                yield {name: batch.column(name) for name in names}

    # --- writing

    def commit(self, change: RowChanges) -> None:
        """Add the columns that rows have and the table has not, then change the rows.

        Raises:
            StepError: a value is not of its column's kind, or the store cannot be written.
        """
        known = self.columns
        new: dict[str, ColumnKind] = {}
        for _, kept in change.put:
            for name, value in kept.row.columns.items():
                kind = value_kind(value)
                assert kind is not None  # `embed` checks it
                if known.get(name, new.setdefault(name, kind)) != kind:
                    raise StepError(
                        f"the column '{name}' of the store '{self.path}' holds "
                        f"{KIND_WORDS[known.get(name, new[name])]}; {shorten(str(value), 60)!r} is "
                        "none.",
                        remedy="Give it the same kind of value in each item.",
                    )
        types = {"text": arrow.string(), "number": arrow.float64(), "truth": arrow.bool_()}
        added = [arrow.field(name, types[new[name]]) for name in new if name not in known]
        if added:
            with store_errors(self.path, "written"):
                self._table.add_columns(added)
        with store_errors(self.path, "written"):
            if change.put and not change.has_old and not change.drop:
                self._table.add(self._rows(change.put))
            elif change.put:
                merge = self._table.merge_insert("id").when_matched_update_all()
                merge = merge.when_not_matched_insert_all()
                if change.drop:
                    merge = merge.when_not_matched_by_source_delete(_drop_condition(change.drop))
                merge.execute(self._rows(change.put))
            else:
                self._table.delete(_drop_condition(change.drop))
        self._to_disk()

    def tidy(self, old_s: float) -> None:
        with store_errors(self.path, "written"):
            self._table.optimize(cleanup_older_than=timedelta(seconds=old_s))
        self._to_disk()

    def n_versions(self) -> int:
        try:
            return len(os.listdir(table_folder(self.path) / "_versions"))  # noqa: PTH208
        except OSError:
            return 0

    def index_words(self) -> None:
        """Rebuild the full-text index.

        From scratch: an index that grew with its rows ranks by other numbers than one that was
        made of the same rows at once, and leaves out some of the nearest.
        """
        words = lancedb.index.FTS(
            base_tokenizer="icu/split",  # also splits languages without spaces
            stem=False,  # documents are in any language
            remove_stop_words=False,
            max_token_length=None,
        )
        with store_errors(self.path, "written"):
            self._table.create_index("text", config=words, replace=True)
        self._to_disk()

    def are_words_indexed(self) -> bool:
        with store_errors(self.path, "read"):
            names = [index.name for index in self._table.list_indices() if "text" in index.columns]
            if not names:
                return False
            stats = self._table.index_stats(names[0])
            return stats is not None and stats.num_unindexed_rows == 0

    def _rows(self, put: Sequence[tuple[RowsToKeep, HashedRow]]) -> Any:
        schema, own = _arrow_schema(self.label), self.columns
        for name in own:
            schema = schema.append(self._table.schema.field(name))
        floats = array("f")
        for _, kept in put:
            floats.extend(kept.row.vector)
        values = arrow.FloatArray.from_buffers(
            arrow.float32(), len(floats), [None, arrow.py_buffer(floats.tobytes())]
        )
        vectors = arrow.FixedSizeListArray.from_arrays(values, self.label.dimensions)
        fields = [name for name in schema.names if name != "vector"]
        rows: list[dict[str, Any]] = [
            {
                "id": kept.id,
                "owner": target.owner,
                "step": target.step,
                "item": _clean(target.item),
                "source": _clean(kept.row.source or target.source),
                "index": kept.row.index,
                "page": kept.row.page,
                "page_end": kept.row.page_end,
                "headings": [_clean(heading) for heading in kept.row.headings],
                "text": (text := _clean(kept.row.text)) and composed(text),
                "_text": text if text != composed(text) else None,
                "print": kept.print,
                "made": kept.row.made,
                **{name: _clean(kept.row.columns.get(name)) for name in own},
            }
            for target, kept in put
        ]
        columns = {
            name: arrow.array([row[name] for row in rows], schema.field(name).type)
            for name in fields
        }
        columns["vector"] = vectors
        return arrow.Table.from_arrays([columns[name] for name in schema.names], schema=schema)

    def _to_disk(self) -> None:
        for part in ("data", "_deletions", "_versions"):
            folder = table_folder(self.path) / part
            with contextlib.suppress(OSError):  # gone by now, or a file system that cannot
                for name in {*os.listdir(folder)} - self._on_disk:  # noqa: PTH208
                    sync_file(folder / name)
                    self._on_disk.add(name)
                sync_folder(folder)

    # --- searching

    def nearest(
        self, vectors: Sequence[Sequence[float]], k: int, where: str
    ) -> list[list[SearchHit]]:
        """Return for each vector the rows with the most similar ones; exact search.

        The library compares one vector after the other; here a batch of rows is compared with all.
        The scores of those that are returned do not depend on the other vectors of the call.
        """
        exact_queries = _unit_rows(np.asarray(vectors, dtype=np.float64))
        queries = exact_queries.astype(np.float32)
        scores = np.empty((len(queries), 0), dtype=np.float32)
        ids = np.empty((len(queries), 0), dtype=np.int64)
        with store_errors(self.path, "read"):
            query = self._table.search().select(["vector"]).with_row_id(True)
            for batch in (query.where(where) if where else query).to_batches(_BATCH_ROWS):
                flat = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
                found = _unit_rows(flat.reshape(-1, self.label.dimensions))
                row_ids = batch.column("_rowid").to_numpy(zero_copy_only=False).astype(np.int64)
                scores = np.hstack([scores, queries @ found.T])
                ids = np.hstack([ids, np.broadcast_to(row_ids, (len(queries), len(row_ids)))])
                scores, ids = _best_rows(scores, ids, k + _EXTRA_ROWS)
            needed = [int(row_id) for row_id in np.unique(ids)]
            if not needed:
                return [[] for _ in vectors]
            query = self._table.take_row_ids(needed).select(self._table.schema.names).with_row_id()
            found = query.to_arrow().combine_chunks()
            columns = self.columns
        flat = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        exact = _unit_rows(flat.reshape(-1, self.label.dimensions).astype(np.float64))
        rows = found.drop_columns(["vector"]).to_pylist()
        places = {int(row["_rowid"]): place for place, row in enumerate(rows)}
        hits: list[list[SearchHit]] = []
        for own, vector in zip(ids, exact_queries, strict=True):
            at = [places[int(row_id)] for row_id in own]
            scored = (exact[at] * vector).sum(axis=1)
            best = [rows[i] | {"_score": float(score)} for i, score in zip(at, scored, strict=True)]
            hits.append(_ranked_hits(best, k, columns))
        return hits

    def matching(self, text: str, k: int, where: str) -> list[SearchHit]:
        """Return the rows that match the words best; requires the index."""
        with store_errors(self.path, "read"):
            words = lancedb.query.MatchQuery(composed(text), "text")  # type: ignore[call-arg]  # pydantic's defaults
            query = self._table.search(words, query_type="fts")
            query = query.where(where, prefilter=True) if where else query
            rows: list[dict[str, Any]] = query.limit(k + _EXTRA_ROWS).to_list()
        return _ranked_hits(rows, k, self.columns)


def _arrow_schema(label: StoreFormat) -> Any:
    text, number = arrow.string(), arrow.int32()
    model = {"ref": label.model.ref, "digest": label.model.digest}
    about = {"version": _TABLE_VERSION, "model": model, "dimensions": label.dimensions}
    columns = [
        arrow.field("id", text, nullable=False),
        *((name, text) for name in ("owner", "step", "item", "source")),
        ("index", number),
        ("page", number),
        ("page_end", number),
        ("headings", arrow.list_(text)),
        ("text", text),
        ("_text", text),
        ("print", text),
        ("made", text),
        ("vector", arrow.list_(arrow.float32(), label.dimensions)),
    ]
    return arrow.schema(columns, metadata={_METADATA_KEY: json.dumps(about).encode()})


def _clean(value: Any) -> Any:
    """Return what can be written: half a character, as in some file names, cannot."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unit_rows(vectors: Any) -> Any:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def _best_rows(scores: Any, ids: Any, limit: int) -> tuple[Any, Any]:
    """Return for each query the columns with the highest scores, in no order.

    >>> _best_rows(np.array([[0.1, 0.9, 0.5]]), np.array([[7, 8, 9]]), 1)
    (array([[0.9]]), array([[8]]))
    """
    if scores.shape[1] <= limit:
        return scores, ids
    best = np.argpartition(-scores, limit, axis=1)[:, :limit]
    return np.take_along_axis(scores, best, axis=1), np.take_along_axis(ids, best, axis=1)


def _ranked_hits(rows: Sequence[dict[str, Any]], k: int, columns: Iterable[str]) -> list[SearchHit]:
    """Order by score; equal ones by where they come from, so that every machine agrees."""
    names = ("source", "item", "step", "index", "page", "page_end")
    hits = [
        SearchHit(
            **{name: row[name] for name in names},
            text=row.get("_text") or row["text"],
            score=round(row["_score"], 6),
            headings=tuple(row["headings"] or ()),
            columns={name: _plain(row[name]) for name in columns if row[name] is not None},
        )
        for row in rows
    ]
    hits.sort(key=lambda hit: (-hit.score, hit.source, hit.item, hit.step, hit.index))
    return hits[:k]


def _owned_by(owners: Iterable[str]) -> str:
    return f"owner IN ({', '.join(sql_literal(owner) for owner in owners)})"


def _drop_condition(cuts: Iterable[RowsToDrop]) -> str:
    conditions: list[str] = []
    for cut in cuts:
        parts = [f"owner = {sql_literal(cut.owner)}"]
        if cut.step is not None:
            parts.append(f"step = {sql_literal(cut.step)}")
        if cut.above is not None:
            parts.append(f"`index` > {cut.above}")
        if cut.indexes:
            parts.append(f"`index` IN ({', '.join(map(str, cut.indexes))})")
        conditions.append(f"({' AND '.join(parts)})")
    return " OR ".join(conditions)
