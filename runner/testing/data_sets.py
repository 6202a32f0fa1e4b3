"""Data sets of tests: the rows of `cases`, which of them are taken, and what their number says.

A row is a mapping of column names, known to the inputs and claims of its test as `case`. A test
with rows passes if enough of them do; how many would of all such rows is an interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paddock.engine.system.item_samples import ItemSample
from paddock.engine.system.no_links import NotRegularFile, read_file
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import canonical_json, cell_text, one_line, shorten
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import Expression, ExpressionError
from paddock.pipelines.model import Pipeline
from paddock.pipelines.pipeline_tests import TestKeys
from paddock.steps.readers.text_encoding import NotText, decode_text
from paddock.steps.tables.row_formats import UnreadableRows
from paddock.steps.tables.table_files import text_formats

MOST_BYTES = 64 << 20
MOST_NAME_CHARS = 48
MOST_TEXT_CHARS = 2_000  # of a row's values, in JUnit XML


class DataRow(Struct, frozen=True):
    """One row of a data set; `number` counts from 1."""

    number: int
    values: Mapping[str, Any]
    key: str = ""
    """Its first value; the same however many rows are put in front, and unique in its data set."""

    @property
    def name(self) -> str:
        return f"{self.number}: {self.first_value}".rstrip(": ")

    @property
    def first_value(self) -> str:
        first = next((cell_text(value) for value in self.values.values()), "")
        return one_line(first, MOST_NAME_CHARS)

    @property
    def text(self) -> str:
        values = (f"{name}: {cell_text(value)}" for name, value in self.values.items())
        return shorten("\n".join((f"row {self.number}", *values)), MOST_TEXT_CHARS)


def read_data_set(file: Path, pipeline: Pipeline, test: TestKeys) -> tuple[DataRow, ...]:
    """Return the rows of a test's `cases`; `file` is the pipeline's. Empty without `cases`.

    Raises:
        PipelineError: the file cannot be read, or has no rows.
    """
    if test.cases is None:
        return ()
    folder = file.absolute().parent.resolve()
    written = test.cases.from_
    try:
        rows = list(_rows(folder, folder / written))
    except _Unusable as error:
        what = f"the cases of test '{test.name}': '{written}' {error}."
        mark = pipeline.mark((*pipeline.place_of_test(test.name), "cases", "from"))
        raise PipelineError.of(what, error.remedy, mark) from error
    data_rows: list[DataRow] = []
    n_alike: Counter[str] = Counter()
    for number, values in enumerate(rows, 1):
        row = DataRow(number, values)
        n_alike[row.first_value] += 1
        is_first = row.first_value and n_alike[row.first_value] == 1
        key = row.first_value if is_first else f"{row.first_value} (row {number})".strip()
        data_rows.append(replace(row, key=key))
    return tuple(data_rows)


class _Unusable(Exception):
    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.remedy = remedy


def _rows(folder: Path, path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.resolve().is_relative_to(folder):
        raise _Unusable("is outside the pipeline's folder", "Put it there.")
    suffix = path.suffix.lower()
    formats = text_formats()
    if suffix not in formats:
        known = ", ".join(f"'{suffix}'" for suffix in formats)
        raise _Unusable(f"has the suffix '{suffix}'", f"Known: {known}.")
    try:
        data = read_file(path, MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise _Unusable(f"is larger than {MOST_BYTES >> 20} MiB")
        table = formats[suffix].parse(decode_text(data).text)
    except (OSError, NotRegularFile) as error:
        raise _Unusable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except NotText as error:
        raise _Unusable(f"is not text: {error}") from error
    except UnreadableRows as error:
        raise _Unusable(str(error), error.remedy) from error
    if not table.rows:
        raise _Unusable("has no rows")
    yield from table.rows


def sampled_rows(rows: Sequence[DataRow], sample: ItemSample) -> tuple[DataRow, ...]:
    """Return the rows of a sample, in their order.

    A row is known by its values, so that one that is added changes no other.

    Raises:
        PipelineError: the sample's expression cannot be read, or failed for a row.
    """
    seen: dict[str, int] = {}
    keys = []
    for row in rows:
        text = canonical_json(row.values)
        seen[text] = seen.get(text, 0) + 1
        keys.append(f"{text}#{seen[text]}")
    chosen = sample.chosen(keys, _strata(rows, sample.by))
    return tuple(row for row, key in zip(rows, keys, strict=True) if key in chosen)


def _strata(rows: Sequence[DataRow], source: str) -> list[str]:
    if not source:
        return []
    row: DataRow | None = None
    strata = []
    try:
        expression = Expression.of(source)
        for row in rows:
            scope = {"case": dict(row.values), "item": dict(row.values)}
            strata.append(canonical_json(expression.evaluate(scope)))
    except ExpressionError as error:
        at = "" if row is None else f", row {row.number}"
        what = f"`--stratify {source}`{at}: {error.message}."
        raise PipelineError.of(what, error.remedy) from error
    return strata


def share_text(
    n_passed: int, n_rows: int, needed: float, bounds: tuple[float, float] | None
) -> str:
    """Return how many rows passed, and what that says of all such rows, if they are random ones.

    >>> share_text(94, 100, 0.9, (0.88, 0.97))
    '94 of 100 rows passed (94%; of all such rows 88% to 97%, in 95 of 100 cases), 90% must pass'
    """
    range_text = ""
    if bounds is not None:
        range_text = "; of all such rows {:.0%} to {:.0%}, in 95 of 100 cases".format(*bounds)
    passed_text = f"{n_passed:,} of {n_rows:,} rows passed ({n_passed / n_rows:.0%}{range_text})"
    return f"{passed_text}, {100 * needed:g}% must pass"
