"""Tables from which labels are chosen: what they offer by now, and rows that a person adds.

A question names the CSV files beside the pipeline from which its fields' labels come
(`Subject.label_tables`). They are read when a question is shown or decided, so a label that someone
has added, on the page or in a spreadsheet, can be chosen at once in all open questions. What
cannot be read or added raises `DecisionRefused`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paddock.engine.system import file_locks, files, no_links
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import one_line
from paddock.pipelines.label_choices import LabelList, WrongLabels, read_choice
from paddock.runner.ledger.reviews.reviews import DecisionRefused, Review
from paddock.steps.tables.row_formats import CSV, RowTable, UnreadableRows
from paddock.steps.tables.table_files import open_elsewhere
from paddock.steps.tables.table_format import WriteOptions

_MOST_BYTES = 8 * 1024**2
_MOST_CELL_CHARS = 1000
_LOCK_S = 10.0


class LabelTable(Struct, frozen=True):
    file: Path
    keys: Mapping[str, Any]
    """What stands under `choose`."""
    text: str
    table: RowTable

    @classmethod
    def of(cls, folder: Path, written: Mapping[str, Any]) -> LabelTable:
        """Read a table of `Subject.label_tables` below a pipeline's folder."""
        file = folder.resolve() / str(written["path"])
        name = file.name
        if file.suffix.lower() != ".csv":
            raise DecisionRefused(f"Rows are added here to CSV alone: add yours in '{name}'.")
        try:
            data = no_links.read_file(file, _MOST_BYTES)
            if len(data) > _MOST_BYTES:
                raise DecisionRefused(f"'{name}' has more than 8 MiB.")
            text = data.decode()
            table = CSV.parse(text.removeprefix("\ufeff"))
        except OSError as error:
            raise DecisionRefused(f"'{name}' cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise DecisionRefused(f"'{name}' is not UTF-8: save it as CSV UTF-8.") from None
        except UnreadableRows as error:
            raise DecisionRefused(f"'{name}' {error}.") from None
        return cls(file, written["keys"], text, table)

    @property
    def labels(self) -> list[str]:
        return [label for row in self.table.rows if (label := row.get(self.keys["by"]))]

    @property
    def needed(self) -> list[str]:
        """The columns that all rows fill: what reads them may not know a row without one."""
        return [
            column
            for column in self.table.columns
            if column == self.keys["by"]
            or all((row.get(column) or "").strip() for row in self.table.rows)
        ]

    def add(self, cells: Mapping[str, str]) -> str:
        """Add a row, atomically, while no one else does; return its label."""
        by, name = self.keys["by"], self.file.name
        if open_elsewhere(self.file):  # which would write over the row
            raise DecisionRefused(f"'{name}' is open in another program: close it there.")
        row = {column: cells.get(column, "").strip() for column in self.table.columns}
        if unknown := cells.keys() - row.keys():
            raise DecisionRefused(f"'{name}' has no column '{one_line(min(unknown), 60)}'.")
        if any(len(cell) > _MOST_CELL_CHARS or len(cell.splitlines()) > 1 for cell in row.values()):
            what = f"A cell is one line of at most {_MOST_CELL_CHARS:,} characters."
            raise DecisionRefused(what)
        if row[by] in self.labels:
            raise DecisionRefused(f"'{name}' has '{row[by]}' already: choose it in the list.")
        try:
            LabelList.of([*self.table.rows, row], read_choice(self.keys, ())[1])
        except WrongLabels as error:
            raise DecisionRefused(f"'{name}': {error.message}. {error.remedy}".strip()) from None
        if lacks := [column for column in self.needed if not row[column]]:
            raise DecisionRefused(f"Each row of '{name}' has '{lacks[0]}': fill it in as well.")
        options = WriteOptions(separator=self.table.separator)
        line = CSV.text_of([row], options)[0].partition("\n")[2]
        end = "\r\n" if "\r\n" in self.text else "\n"
        gap = "" if self.text.endswith("\n") else end
        try:
            files.write_output(self.file, f"{self.text}{gap}{line.rstrip()}{end}")
        except OSError as error:
            raise DecisionRefused(f"'{name}' cannot be written: {error.strerror}.") from None
        return row[by]


def add_row(state: Path, written: Mapping[str, Any], cells: Mapping[str, str]) -> str:
    """Add a row to a table beside a pipeline's `state` folder; return its label."""
    try:
        with file_locks.lock_now(state / "label-tables.lock", wait_s=_LOCK_S):
            return LabelTable.of(state.parent, written).add(cells)
    except file_locks.LockTaken:
        raise DecisionRefused("Others are adding rows. Try again.") from None


def with_present_labels(review: Review, folder: Path) -> Review:
    """Return a whole review whose schema also has the labels that its tables have by now."""
    schema = review.subject.schema
    for field, written in review.subject.label_tables.items():
        try:
            schema = _with_labels(schema, field.split("."), LabelTable.of(folder, written).labels)
        except DecisionRefused:  # the labels of then can be chosen
            continue
    return replace(review, subject=replace(review.subject, schema=schema))


def _with_labels(schema: Any, names: Sequence[str], labels: Sequence[str]) -> Any:
    if "items" in schema:
        return {**schema, "items": _with_labels(schema["items"], names, labels)}
    if names:
        own = schema["properties"]
        inner = _with_labels(own[names[0]], names[1:], labels)
        return {**schema, "properties": {**own, names[0]: inner}}
    return {**schema, "enum": [*dict.fromkeys((*labels, *schema["enum"]))]}
