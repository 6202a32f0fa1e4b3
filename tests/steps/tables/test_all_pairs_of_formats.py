"""20,000 values of all types, written and read through all pairs of formats: equal, or noted."""

import math
import random
import re
import string
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.tables.arrow_rows import ArrowRows
from paddock.steps.tables.column_types import plain_value
from paddock.steps.tables.table_files import format_named
from paddock.steps.tables.table_format import TableSource, WriteOptions
from paddock.steps.tables.table_work import _read_table

FORMATS = ("csv", "tsv", "jsonl", "json", "xlsx", "parquet", "arrow", "sqlite", "duckdb")
N_ROWS = 21
OF_TYPES = re.compile(": types found|: column '.*' is text because")
FIRST = datetime(1, 1, 1)  # noqa: DTZ001
ODD_TEXTS = ("007", "+49", "3.10", "1e5", "1,234", "NaN", "true", "2026-03-01", "=1+1", "'=1",
             "-5", " a ", 'a "b"', "a;b,c\td|e", "a\nb", "a\r\nb", "a\rb", "'", "Köln",
             "\U0001f600", "a\0b", "null", "x" * 33_000)  # fmt: skip


def moments(chance: random.Random) -> datetime:
    return FIRST + timedelta(
        days=chance.randrange(3_652_000),
        microseconds=chance.choice(
            (0, chance.randrange(86_400) * 10**6, chance.randrange(86_400 * 10**6))
        ),
    )


def decimals(chance: random.Random, n_digits: int, places: int) -> Decimal:
    return Decimal(chance.randrange(-(10**n_digits), 10**n_digits)).scaleb(-places)


COLUMNS: dict[str, tuple[str, Callable[[random.Random], Any]]] = {
    "n": ("int", lambda chance: chance.randrange(-1000, 1000)),
    "id": ("int", lambda chance: chance.randrange(10 ** chance.choice((10, 17, 20, 37)))),
    "share": ("float", lambda chance: chance.choice((
        chance.random(), chance.gauss(0, 1e9), 10.0 ** chance.randrange(-300, 300), math.inf))),
    "paid": ("bool", lambda chance: chance.random() < 0.5),
    "code": ("str", lambda chance: "".join(chance.choices(string.digits, k=5))),
    "said": ("str", lambda chance: chance.choice(ODD_TEXTS)),
    "day": ("date", lambda chance: moments(chance).date()),
    "hour": ("time", lambda chance: moments(chance).time()),
    "at": ("datetime", moments),
    "sent": ("datetime", lambda chance: moments(chance).replace(tzinfo=UTC)),
    "total": ("decimal(10,2)", lambda chance: decimals(chance, 9, 2)),
    "long": ("decimal(38,4)", lambda chance: decimals(chance, 37, 4)),
    "fine": ("decimal(38,18)", lambda chance: decimals(
        chance, chance.choice((3, 15, 18)), chance.randrange(19))),
}  # fmt: skip


def generated(chance: random.Random) -> TypedRows:
    def value(make: Callable[[random.Random], Any]) -> Any:
        made = None if chance.random() < 0.1 else make(chance)
        return made if isinstance(made, float) else plain_value(made)

    rows = [{name: value(make) for name, (_, make) in COLUMNS.items()} for _ in range(N_ROWS)]
    return TypedRows(rows, {name: kind for name, (kind, _) in COLUMNS.items()})


def passed_on(rows: TypedRows, suffix: str, folder: Path) -> tuple[TypedRows, list[str]]:
    """Return rows as they are written in a format and read again, and the notes on both."""
    form, path = format_named(suffix), folder / f"a.{suffix}"
    data, notes = form.write(rows, WriteOptions())
    path.write_bytes(data)
    table, of_read = _read_table(TableSource(str(path), suffix), 10**9, lambda: None)
    return ArrowRows(table), [*notes, *(note for note in of_read if not OF_TYPES.match(note))]


def written(value: Any, kind: str) -> str:
    """Return a value as its type writes it; nothing where it is null."""
    if value in (None, ""):
        return ""
    if kind == "datetime":
        return datetime.fromisoformat(str(value)).isoformat()
    if kind in ("str", "bool", "date", "time") or not re.fullmatch(r"[-\d.e+]+", str(value)):
        return str(value).lower() if kind == "bool" else str(value)
    return f"{Decimal(str(value)).normalize(Context(100)):f}"


@pytest.mark.parametrize("first", FORMATS)
def test_values_of_all_types_come_through_a_pair_of_formats_or_are_noted(
    first: str, tmp_path: Path
) -> None:
    for second in FORMATS:
        given = generated(random.Random(f"{first} {second}"))
        between, notes = passed_on(given, first, tmp_path)
        found, more = passed_on(between, second, tmp_path)
        lost = {
            name: (row[name], other[name])
            for row, other in zip(given, found, strict=True)
            for name, (kind, _) in COLUMNS.items()
            if written(row[name], kind) != written(other[name], kind)
            and not any(f"'{name}'" in note for note in (*notes, *more))
        }
        assert lost == {}, second
