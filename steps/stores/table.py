"""A store's table in LanceDB: the one module that knows the library. Blocking; for a thread.

Every change is one commit: it is there as a whole or not at all, whenever the process is killed.
A commit's files are brought to the disk before it counts, since an entry in the ledger will say
that it is done. Who may write when is decided elsewhere (`store`).
"""

from __future__ import annotations

import contextlib
import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from paddock.steps.step import StepError
from paddock.steps.storage import EmbedModel, Hit

from .catalogue import TABLE, Label, table_folder
from .refusals import told
from .rows import Change, Cut, Kept, Known, Sum, Wish

_ABOUT = b"paddock"
_VERSION = 1
_BATCH_ROWS = 8_192
_TIED_ROWS = 16
"""So many more are looked at, so that equal scores are cut in one way only."""


class Missing(Exception):
    """There is no table here."""


class Table:
    """An open table. Reading may go on in several threads; one writes at a time."""

    def __init__(self, path: Path, table: Any, label: Label) -> None:
        self.path = path
        self.label = label
        self._table = table
        self._on_disk: set[str] = set()

    @classmethod
    def open(cls, path: Path) -> Table:
        """Open the table of a store.

        Raises:
            Missing: there is none.
            StepError: it cannot be read, or is none of ours.
        """
        library = _library()
        if not table_folder(path).is_dir():
            raise Missing
        with told(path, "read"):
            table = library.connect(path).open_table(TABLE)
            said = (table.schema.metadata or {}).get(_ABOUT)
        if said is None:
            raise StepError(
                f"'{path}' holds a table that Paddock did not make.",
                remedy="Name another folder for the store.",
            )
        return cls(path, table, _label(path, said))

    @classmethod
    def make(cls, path: Path, label: Label) -> Table:
        """Make an empty one; its label is part of the same commit.

        Raises:
            StepError: it cannot be written.
        """
        library = _library()
        with told(path, "written"):
            path.mkdir(parents=True, exist_ok=True)
            table = library.connect(path).create_table(TABLE, schema=_schema(label))
        made = cls(path, table, label)
        made._to_disk()
        return made

    # --- what it holds

    @property
    def version(self) -> int:
        """Give the version that is read from here."""
        return int(self._table.version)

    def renew(self) -> int:
        """Look at the newest version, whoever wrote it, and give its number."""
        with told(self.path, "read"):
            self._table.checkout_latest()
            return self.version

    def sums(self) -> dict[str, Sum]:
        """Give what each owner has."""
        found: dict[str, Sum] = {}
        for batch in self._scan("", ["owner", "print"]):
            for owner, print_ in zip(*(batch[name].to_pylist() for name in batch), strict=True):
                found[owner] = found.get(owner, Sum()) + Sum(int(print_, 16), 1)
        return found

    def known(self, owners: Iterable[str]) -> list[Known]:
        """Give the rows of some owners, in short."""
        names = ["owner", "step", "index", "print"]
        batches = self._scan(_owned_by(owners), names)
        return [
            Known(*row)
            for batch in batches
            for row in zip(*(batch[name].to_pylist() for name in names), strict=True)
        ]

    def vectors(self, owner: str, step: str, made: str) -> dict[str, array[float]]:
        """Give the vectors that a step keeps for an owner and made in this way, by text."""
        where = f"{_owned_by([owner])} AND step = {_quoted(step)} AND made = {_quoted(made)}"
        found = {}
        for batch in self._scan(where, ["text", "vector"]):
            for text, vector in zip(batch["text"].to_pylist(), batch["vector"], strict=True):
                found[text] = array("f", vector.as_py())
        return found

    def _scan(self, where: str, names: list[str]) -> Iterator[dict[str, Any]]:
        """Yield the columns of the rows that meet a condition, some thousand rows at a time."""
        with told(self.path, "read"):
            query = self._table.search().select(names)
            if where:
                query = query.where(where)
            for batch in query.to_batches(batch_size=_BATCH_ROWS):
                yield {name: batch.column(name) for name in names}

    # --- changing it

    def commit(self, change: Change) -> None:
        """Write a change, as one commit.

        Raises:
            StepError: it cannot be written; then nothing has changed.
        """
        with told(self.path, "written"):
            if change.put and not change.has_old and not change.drop:
                self._table.add(self._rows(change.put))
            elif change.put:
                merge = self._table.merge_insert("id").when_matched_update_all()
                merge = merge.when_not_matched_insert_all()
                if change.drop:
                    merge = merge.when_not_matched_by_source_delete(_dropped(change.drop))
                merge.execute(self._rows(change.put))
            else:
                self._table.delete(_dropped(change.drop))
        self._to_disk()

    def drop(self, owners: Sequence[str]) -> None:
        """Drop all rows of some owners, as one commit."""
        with told(self.path, "written"):
            self._table.delete(_owned_by(owners))
        self._to_disk()

    def tidy(self, old_s: float) -> None:
        """Put what many commits wrote together, and drop versions that are older than this.

        Raises:
            StepError: it cannot be written; nothing is lost by that.
        """
        with told(self.path, "written"):
            self._table.optimize(cleanup_older_than=timedelta(seconds=old_s))
        self._to_disk()

    def n_versions(self) -> int:
        """Tell how many versions lie on the disk."""
        try:
            return len(os.listdir(table_folder(self.path) / "_versions"))  # noqa: PTH208
        except OSError:
            return 0

    def index_words(self) -> None:
        """Index the words of all rows anew.

        From scratch: an index that grew with its rows ranks by other numbers than one that was
        made of the same rows at once, and leaves out some of the nearest.
        """
        from lancedb.index import FTS

        words = FTS(
            base_tokenizer="icu/split",  # words of languages that write no spaces, too
            stem=False,  # documents are in any language
            remove_stop_words=False,
            max_token_length=None,
        )
        with told(self.path, "written"):
            self._table.create_index("text", config=words, replace=True)
        self._to_disk()

    def are_words_indexed(self) -> bool:
        """Tell whether an index of words has all rows."""
        with told(self.path, "read"):
            names = [one.name for one in self._table.list_indices() if "text" in one.columns]
            if not names:
                return False
            stats = self._table.index_stats(names[0])
            return stats is not None and stats.num_unindexed_rows == 0

    def _rows(self, put: Sequence[tuple[Wish, Kept]]) -> Any:
        arrow = _arrow()
        schema = _schema(self.label)
        floats = array("f")
        for _, kept in put:
            floats.extend(kept.row.vector)
        values = arrow.FloatArray.from_buffers(
            arrow.float32(), len(floats), [None, arrow.py_buffer(floats.tobytes())]
        )
        vectors = arrow.FixedSizeListArray.from_arrays(values, self.label.dimensions)
        fields = [name for name in schema.names if name != "vector"]
        said = [_said(wish, kept) for wish, kept in put]
        columns = [
            arrow.array([one[name] for one in said], schema.field(name).type) for name in fields
        ]
        return arrow.Table.from_arrays([*columns, vectors], schema=schema)

    def _to_disk(self) -> None:
        """Wait until the files that came since the last time would survive a power cut."""
        for folder in (
            table_folder(self.path) / name for name in ("data", "_deletions", "_versions")
        ):
            with contextlib.suppress(OSError):  # gone by now, or a file system that cannot
                for name in {*os.listdir(folder)} - self._on_disk:  # noqa: PTH208
                    _synced(folder / name)
                    self._on_disk.add(name)
                _synced(folder)

    # --- searching it

    def nearest(self, vector: Sequence[float], k: int, where: str) -> list[Hit]:
        """Give the rows whose vectors are the most alike; every one is compared."""
        with told(self.path, "read"):
            query = self._table.search(list(vector)).distance_type("cosine")
            if where:
                query = query.where(where, prefilter=True)
            rows = query.limit(k + _TIED_ROWS).to_list()
        return _ranked(rows, k, lambda row: 1.0 - row["_distance"])

    def matching(self, text: str, k: int, where: str) -> list[Hit]:
        """Give the rows whose words match the best; the words must have been indexed."""
        from lancedb.query import MatchQuery

        with told(self.path, "read"):
            words: Any = MatchQuery  # its stub asks for what has defaults
            query = self._table.search(words(text, "text"), query_type="fts")
            if where:
                query = query.where(where, prefilter=True)
            rows = query.limit(k + _TIED_ROWS).to_list()
        return _ranked(rows, k, lambda row: row["_score"])


_NEEDS = "vector stores need LanceDB, which is not installed."
_REMEDY = "Install it: pip install 'paddock-llm[retrieval]'."


def missing_library() -> tuple[str, str] | None:
    """Return what is wrong and what to do where the library is not installed; imports nothing."""
    from importlib.util import find_spec

    return (_NEEDS, _REMEDY) if find_spec("lancedb") is None else None


def _library() -> Any:
    try:
        import lancedb
    except ImportError as error:
        raise StepError(_NEEDS, remedy=_REMEDY, is_fatal=True) from error
    return lancedb


def _arrow() -> Any:
    import pyarrow  # type: ignore[import-untyped]  # comes with LanceDB, whose tables it makes

    return pyarrow


def _schema(label: Label) -> Any:
    arrow = _arrow()
    text, number = arrow.string(), arrow.int32()
    model = {"ref": label.model.ref, "digest": label.model.digest}
    about = {"version": _VERSION, "model": model, "dimensions": label.dimensions}
    columns = [
        arrow.field("id", text, nullable=False),
        *((name, text) for name in ("owner", "step", "item", "source")),
        ("index", number),
        ("page", number),
        ("page_end", number),
        ("headings", arrow.list_(text)),
        ("text", text),
        ("print", text),
        ("made", text),
        ("vector", arrow.list_(arrow.float32(), label.dimensions)),
    ]
    return arrow.schema(columns, metadata={_ABOUT: json.dumps(about).encode()})


def _label(path: Path, said: bytes) -> Label:
    about = json.loads(said)
    if about["version"] > _VERSION:
        raise StepError(
            f"the store '{path}' was written by a newer Paddock.",
            remedy="Update Paddock, or name another folder for the store.",
            is_fatal=True,
        )
    model = EmbedModel(about["model"]["ref"], about["model"]["digest"])
    return Label(model, about["dimensions"])


def _said(wish: Wish, kept: Kept) -> dict[str, Any]:
    row = kept.row
    return {
        "id": kept.id,
        "owner": wish.owner,
        "step": wish.step,
        "item": _clean(wish.item),
        "source": _clean(row.source or wish.source),
        "index": row.index,
        "page": row.page,
        "page_end": row.page_end,
        "headings": [_clean(one) for one in row.headings],
        "text": _clean(row.text),
        "print": kept.print,
        "made": row.made,
    }


def _clean(text: str) -> str:
    """Give what can be written: half a character, as in some file names, cannot."""
    return text.encode("utf-8", "replace").decode()


def _ranked(
    rows: Sequence[dict[str, Any]], k: int, score: Callable[[dict[str, Any]], float]
) -> list[Hit]:
    """Order by score; equal ones by where they come from, so that every machine agrees."""
    hits = [
        Hit(
            text=row["text"],
            score=round(score(row), 6),
            source=row["source"],
            item=row["item"],
            step=row["step"],
            index=row["index"],
            page=row["page"],
            page_end=row["page_end"],
            headings=tuple(row["headings"] or ()),
        )
        for row in rows
    ]
    hits.sort(key=lambda hit: (-hit.score, hit.source, hit.item, hit.step, hit.index))
    return hits[:k]


def _owned_by(owners: Iterable[str]) -> str:
    return f"owner IN ({', '.join(_quoted(owner) for owner in owners)})"


def _dropped(cuts: Iterable[Cut]) -> str:
    return " OR ".join(f"({_cut(one)})" for one in cuts)


def _cut(cut: Cut) -> str:
    parts = [f"owner = {_quoted(cut.owner)}"]
    if cut.step is not None:
        parts.append(f"step = {_quoted(cut.step)}")
    if cut.above is not None:
        parts.append(f"`index` > {cut.above}")
    if cut.indexes:
        parts.append(f"`index` IN ({', '.join(map(str, cut.indexes))})")
    return " AND ".join(parts)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _synced(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
