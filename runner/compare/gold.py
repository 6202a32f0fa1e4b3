"""Gold data: the right answers by item, from a file or from decisions. Pure.

A file is CSV, TSV or JSON lines: the item's key, and a column for each field; or decisions, as
`paddock review --export jsonl` writes them. An empty cell says nothing about its field. What is
wrong in it is a sentence with its place, and the rest counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import cell_text, counted
from paddock.pipelines.errors import did_you_mean
from paddock.runner.ledger.reviews.reviews import Review
from paddock.runner.review.csv_and_gold_data import gold_jsonl
from paddock.steps.tables.row_formats import UnreadableRows
from paddock.steps.tables.table_files import text_formats

from .metrics import FieldMetric, GoldNotFitting

REVIEWS = "reviews"
"""The value of `gold.from` that stands for the decisions in the folder's ledger."""
REVIEWS_WORDS = (
    "items that people decided on: more doubtful ones than there are, and edits begin with the "
    "words of the model that was asked then"
)
_KEY_COLUMNS = ("item", "key")
_DECISION_COLUMNS = frozenset(("decision", "value", "step", "item"))
_MOST_FAULTS = 20
_MOST_ABSENT = 3


class UnreadableGold(Exception):
    """A file that is no gold data; one sentence with its place."""


class GoldRow(Struct, frozen=True):
    key: str
    fields: Mapping[str, Any]
    """An answer that is a text has the one field ``."""
    place: str
    """Such as `gold.csv:3`."""
    step: str = ""
    """Whose answer it is about; empty: that of the comparison."""


class Gold(Struct, frozen=True):
    rows: tuple[GoldRow, ...]
    origin: str
    """What it is made of, for reports."""
    notes: tuple[str, ...] = ()

    def of_step(
        self, step: str, keys: Sequence[str], fields: Collection[str], *, is_part: bool = False
    ) -> Gold:
        """Return what is about a step's items and fields; `fields`: empty where any may be.

        What is about an unknown item or field becomes a note; `is_part`: there are other items.
        """
        kept: dict[str, GoldRow] = {}
        absent: list[GoldRow] = []
        notes: list[str] = []
        known = frozenset(keys)
        unknown = dict.fromkeys(
            name for row in self.rows for name in row.fields if fields and name not in fields
        )
        for row in self.rows:
            if row.step not in ("", step):
                continue
            if row.key not in known:
                absent += [] if is_part else [row]
            elif row.key in kept:
                first = kept[row.key].place
                notes.append(f"{row.place}: item '{row.key}' is here twice; {first} counts.")
            else:
                own = {name: value for name, value in row.fields.items() if name not in unknown}
                kept[row.key] = replace(row, fields=own)
        columns = [
            f"{self.origin}: '{name}' is no field of '{step}'. {did_you_mean(name, fields)}"
            for name in unknown
        ]
        rows = tuple(row for row in kept.values() if row.fields)
        return Gold(
            rows, self.origin, (*self.notes, *columns, *_absent(absent, keys), *_bounded(notes))
        )

    def fitting(self, metrics: Iterable[FieldMetric]) -> tuple[dict[str, dict[str, Any]], Gold]:
        """Return item → field → value as the metrics compare it, and the gold with its faults."""
        by_name = {metric.name: metric for metric in metrics}
        by_item: dict[str, dict[str, Any]] = {}
        notes: list[str] = []
        for row in self.rows:
            for name, value in row.fields.items():
                place = f"{row.place}: '{name}'" if name else row.place
                try:
                    right = by_name[name].gold(value)
                except GoldNotFitting as error:
                    notes.append(f"{place}: {error}. Correct it, or name another metric.")
                    continue
                by_item.setdefault(row.key, {})[name] = right
                if why := by_name[name].unknown_label(right):
                    notes.append(f"{place}: {why}")
        return by_item, replace(self, notes=(*self.notes, *_bounded(notes)))

    def values(self) -> dict[str, list[Any]]:
        values: dict[str, list[Any]] = {}
        for row in self.rows:
            for name, value in row.fields.items():
                values.setdefault(name, []).append(value)
        return values


def _absent(rows: Sequence[GoldRow], keys: Sequence[str]) -> Iterator[str]:
    for row in rows[:_MOST_ABSENT]:
        yield f"{row.place}: there is no item '{row.key}'. {did_you_mean(row.key, keys)}"
    if len(rows) > _MOST_ABSENT:
        rest = counted(len(rows) - _MOST_ABSENT, "more row")
        yield f"{rows[0].place.rpartition(':')[0]}: the items of {rest} are not there."


def _bounded(notes: Sequence[str]) -> Iterator[str]:
    yield from notes[:_MOST_FAULTS]
    if len(notes) > _MOST_FAULTS:
        yield f"and {len(notes) - _MOST_FAULTS:,} more such lines."


def read_gold(text: str, name: str, key_column: str = "") -> Gold:
    """Read a file's text; `name` is the file's, `key_column` has the items' keys, if it is there.

    Raises:
        UnreadableGold: it is no table, has no column besides the key's, or no row.
    """
    formats = text_formats()
    form = formats.get(PurePath(name).suffix.lower())
    if form is None:
        known = ", ".join(sorted(formats))
        raise UnreadableGold(f"{name}: gold data must be a file of the kinds {known}.")
    try:
        table = form.parse(text)
    except UnreadableRows as error:
        raise UnreadableGold(f"{name} {error}. {error.remedy}".strip()) from error
    lines = table.lines or range(1, len(table.rows) + 1)
    places = [f"{name}:{line}" for line in lines]
    if set(table.columns) >= _DECISION_COLUMNS:
        decided: list[GoldRow] = []
        n_rejected = 0
        for row, place in zip(table.rows, places, strict=True):
            value = row.get("value")
            if value is None:
                n_rejected += 1
                continue
            fields = value if isinstance(value, dict) else {"": value}
            step = str(row.get("step") or "")
            decided.append(GoldRow(cell_text(row.get("item")), fields, place, step))
        rejected = counted(n_rejected, "rejected answer")
        notes = (f"{name}: {rejected} without a right one do not count.",) if n_rejected else ()
        return Gold(tuple(decided), f"{name} ({REVIEWS_WORDS})", notes)
    if not table.columns:
        raise UnreadableGold(f"{name} is empty: it has no row.")
    key_names = (key_column, *_KEY_COLUMNS)
    column = next((name for name in key_names if name in table.columns), table.columns[0])
    if len(table.columns) < 2:
        raise UnreadableGold(f"{name}: there is no column besides '{column}'. Add the fields.")
    if not table.rows:
        raise UnreadableGold(f"{name} has a header and no row below it.")
    rows = [
        GoldRow(
            cell_text(row.get(column)),
            _fields_of({name: value for name, value in row.items() if name != column}),
            place,
        )
        for row, place in zip(table.rows, places, strict=True)
    ]
    return Gold(tuple(rows), name)


def _fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells that say something; one column `text` or `answer` is a text's answer."""
    if len(row) == 1 and next(iter(row)) in ("text", "answer"):
        row = {"": next(iter(row.values()))}
    return {name: value for name, value in row.items() if value is not None and value != ""}


def gold_of_reviews(reviews: Iterable[Review], file: str) -> Gold:
    """Return what people decided on the answers of a pipeline's file, from whole reviews."""
    own = [review for review in reviews if review.subject.pipeline == file]
    text = gold_jsonl(own)
    if not text.strip():
        return Gold((), REVIEWS)
    return read_gold(text, f"{REVIEWS}.jsonl")


def gold_of_answers(answers: Mapping[str, Any], origin: str) -> Gold:
    rows = (
        GoldRow(key, value if isinstance(value, Mapping) else {"": value}, f"item '{key}'")
        for key, value in answers.items()
    )
    return Gold(tuple(rows), origin)
