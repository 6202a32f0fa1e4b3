"""Rows of CSV, TSV, JSONL and JSON: parsed from text, and written as text."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from io import StringIO
from typing import Any, ClassVar, TypeAlias

from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import NestedTooDeep, cell_text, one_line, parse_shallow_json
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.readers.reader import Unreadable

from .column_types import (
    MOST_INT_DIGITS,
    UNSURE_MARK,
    ColumnType,
    decimal_text,
    digits_of,
    is_lost,
    is_of_type,
    parsed_cell,
    plain_value,
    type_of_value,
    typed_value,
)
from .formula_escapes import LINE_ENDS, LIST_SEPARATORS, formula_escaped, without_formula_escape
from .found_types import found_columns
from .table_format import (
    ODD_NUMBERS,
    TEXT_BYTES,
    ChangedValues,
    TableFormat,
    TableSource,
    WriteOptions,
)

_MOST_ROWS = 1_000_000
_MOST_PARTS = 2_000_000  # objects and lists of JSON, which take 64 to 232 bytes each
_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_ROWS = 50
_PART_ROWS = 1000
"""Of CSV, that are turned into columns at once: they fit a processor's cache."""
_GUARDED = "apostrophes stand before what a spreadsheet would compute; JSONL has it as it is"
_HALF = re.compile("[\ud800-\udfff]")
_HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_EXCEL_HINT = re.compile(r"\Asep=(.)(?:\r\n?|\n)")
_PLAIN = re.compile(rf'(?!sep=)\w[^"\0{LIST_SEPARATORS}{LINE_ENDS}]*\Z', re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?").fullmatch
_TO_QUOTE = re.compile(rf'["{LIST_SEPARATORS}{LINE_ENDS}]|\Asep=', re.IGNORECASE)


class UnreadableRows(Unreadable):
    """What is not a table; the message says where and follows the file's name."""


class RowTable(Struct, frozen=True):
    columns: list[str]
    objects: list[dict[str, Any]] = field(default_factory=list)
    """Rows of JSON."""
    cells: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Those of each column of CSV."""
    lines: Sequence[int] = ()
    """The first line of each row in the text; only of CSV and TSV."""
    notes: tuple[str, ...] = ()
    """Sentences that follow the file's name."""
    separator: str = ""
    """What separates the cells of CSV."""
    types: Mapping[str, ColumnType] = field(default_factory=dict)
    """Of columns that have one."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        rows = zip(*self.cells.values(), strict=True)
        return [dict(zip(self.cells, row, strict=True)) for row in rows] or self.objects


def own_names(names: Iterable[str], remedy: str = "Rename one of them.") -> list[str]:
    """Return names of columns without NUL, at which programs in C cut them.

    Raises:
        UnreadableRows: two are alike.
    """
    clean = [name.replace("\0", "\ufffd") for name in names]
    if (twice := next((name for name, n in Counter(clean).items() if n > 1), None)) is not None:
        raise UnreadableRows(f"names column '{twice}' twice", remedy)
    return clean


def kept_rows(rows: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Return the rows that are not null.

    Raises:
        UnreadableRows: a row is not a mapping.
    """
    mappings = [row for row in rows if row is not None]
    if set(map(type, mappings)) <= {dict}:
        return mappings
    for index, row in enumerate(mappings):
        if not isinstance(row, Mapping):
            what = "a list" if isinstance(row, list) else "a single value"
            raise UnreadableRows(f"row {index + 1} is {what}; rows must be mappings of names")
    return mappings


def rows_of_values(values: Sequence[Any]) -> TypedRows:
    """Return rows of Python's values as plain data, with the types of columns that have one.

    Raises:
        UnreadableRows: a row is not a mapping.
    """
    kinds: dict[str, set[ColumnType]] = {}
    for row in (kept := kept_rows(values)):
        for name, value in row.items():
            of_column = kinds.setdefault(str(name), set())
            if value is not None:
                of_column.add(type_of_value(value))
    types = {name: found.pop() if len(found) == 1 else "" for name, found in kinds.items()}
    rows, lost = [], Counter[str]()
    for n, row in enumerate(kept, 1):
        made = dict[str, Any]()
        for name, value in row.items():
            try:
                if isinstance(value, bytes):
                    value.decode()
                made[str(name)] = plain = plain_value(value)
                if plain is not value and is_lost(value):
                    lost[str(name)] += 1
            except (TypeError, ValueError) as error:
                what = f"a value of the type '{error}'"
                if isinstance(error, ValueError):
                    is_text = isinstance(error, UnicodeError)
                    long = f"an integer of more than {MOST_INT_DIGITS:,} digits"
                    what = "bytes or half a character that are no text" if is_text else long
                place = f"in row {n:,}, column '{one_line(str(name), 40)}'"
                raise UnreadableRows(f"has {what} {place}", "Give it as a text.") from None
        rows.append(made)
    return TypedRows(rows, types, lost=lost)


TextAndNotes: TypeAlias = tuple[str, list[str]]
_WHOLE = TableSource("", "")
_AS_USUAL = WriteOptions()
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


class TextFormat(TableFormat):
    libraries = libraries_to_write = ()
    most_bytes = TEXT_BYTES
    keeps_line_ends: ClassVar[bool] = False
    """Whether `parse` takes a text with its own line ends, not with line feeds."""

    def parse(self, text: str, source: TableSource = _WHOLE) -> RowTable:
        """Parse rows with all values of CSV as texts.

        Raises:
            UnreadableRows: with the line.
        """
        raise NotImplementedError

    def text_of(self, rows: Sequence[Any], options: WriteOptions = _AS_USUAL) -> TextAndNotes:
        """Return rows, without null ones, and notes on what is not as it was.

        Raises:
            UnreadableRows: a row is not a mapping.
        """
        raise NotImplementedError

    def count(self, text: str, options: WriteOptions = _AS_USUAL) -> int:
        """Return how many rows a written file has.

        Raises:
            ValueError, csv.Error: it is none of this format.
        """
        raise NotImplementedError

    @property
    def is_read(self) -> bool:
        return True

    def write(self, rows: TypedRows, options: WriteOptions) -> tuple[bytes, list[str]]:
        text, notes = self.text_of(declared_rows(rows, options.types), options)
        return text.encode("utf-8-sig" if options.bom else "utf-8"), notes


class CsvFormat(TextFormat):
    name, suffixes = "csv", (".csv",)
    keeps_line_ends = True
    own_separator: ClassVar[str] = ""

    def parse(self, text: str, source: TableSource = _WHOLE) -> RowTable:
        delimiter = self.own_separator or source.separator
        columns, has_header = source.names, bool(source.header)
        hint = _EXCEL_HINT.match(text)
        n_before = 0
        if hint and not delimiter:
            delimiter, text, n_before = hint[1], text[hint.end() :], 1
        delimiter = delimiter or _delimiter(text)
        rows = _cells(text, delimiter, n_before, _MOST_ROWS + has_header)
        if (first := next(rows, None)) is None:
            raise UnreadableRows("is empty: it has no row")
        if has_header:
            heads = (without_formula_escape(cell, delimiter).strip() for cell in first[1])
            names = own_names(
                (name or f"column_{n}" for n, name in enumerate(heads, 1)),
                "Rename one, or set `header: false` and name them under `columns`.",
            )
        else:
            rows, names = itertools.chain([first], rows), list(columns or ())
            names = columns = names or [f"column_{n}" for n in range(1, len(first[1]) + 1)]
        picked = _known_columns(names, columns)
        most_rows = max(len(text), _MOST_ROWS) // len(names)
        lines = list[int]()
        found = [list[str]() for _ in names]
        while part := list(itertools.islice(rows, _PART_ROWS)):
            if (n := len(lines) + len(part)) > most_rows:
                n += sum(1 for _ in rows)
                what = f"has {n:,} rows of {len(names):,} columns, most of them empty"
                what += f": {n * len(names):,} cells"
                raise UnreadableRows(what, "Name only the columns that exist.")
            for line, values in part:
                if len(values) > len(names):
                    what = (
                        f"line {line} has {len(values)} cells, but there are {len(names)} columns"
                    )
                    raise UnreadableRows(what, "Quote the cells that contain the delimiter.")
                values += [""] * (len(names) - len(values))
                lines.append(line)
            columns_of_part = zip(*(values for _, values in part), strict=True)
            for of_part, column in zip(columns_of_part, found, strict=True):
                column += of_part
        by_name = dict(zip(names, found, strict=True))
        cells = {name: by_name[name] for name in picked}
        for name in picked if "'" in text else ():
            cells[name] = [without_formula_escape(cell, delimiter) for cell in cells[name]]
        return RowTable(picked, cells=cells, lines=lines, separator=delimiter)

    def text_of(self, rows: Sequence[Any], options: WriteOptions = _AS_USUAL) -> TextAndNotes:
        """Format rows so that a program with any list separator finds the same rows in them.

        Long decimals are texts in plain data; those of a type with places have as many.

        Written here, not by `csv`: that one leaves a carriage return and other separators unquoted.
        """
        types = {**(rows.types if isinstance(rows, TypedRows) else {}), **options.types}
        kept, mark = kept_rows(rows), options.decimal
        delimiter = self.own_separator or options.separator
        names = list(dict.fromkeys(itertools.chain.from_iterable(kept))) or list(types)
        exact = {
            name: digits_of(kind)[1] or 0
            for name, kind in types.items()
            if kind.startswith("decimal")
        }
        changed, is_plain = ChangedValues(), _PLAIN.match

        def line(values: Iterable[Any]) -> str:
            cells = []
            for name, value in zip(names, values, strict=True):
                kind = type(value)  # most are plain, in a fifth of the time
                if name in exact and (kind in (int, float) or (kind is str and _NUMBER(value))):
                    cells.append(decimal_text(value, exact[name]).replace(".", mark))
                    continue
                if kind is str and is_plain(value):
                    cells.append(value)
                    continue
                if kind is int or (kind is float and math.isfinite(value)):
                    cells.append(repr(value) if mark == "." else repr(value).replace(".", mark))
                    continue
                if kind is bool:
                    cells.append("true" if value else "false")
                    continue
                if value is None and len(names) > 1:
                    cells.append("")
                    continue
                if kind is float:
                    changed[f"{ODD_NUMBERS} left empty", name] += 1
                    value = None
                cell = formula_escaped(value, delimiter)
                if kind is str and len(cell) > len(value):
                    changed[_GUARDED, name] += 1
                if "\0" in cell:  # which ends a text in C
                    changed["U+FFFD stands for NUL", name] += 1
                    cell = cell.replace("\0", "\ufffd")
                is_quoted = _TO_QUOTE.search(cell) or (not cell and len(names) == 1)
                cells.append('"' + cell.replace('"', '""') + '"' if is_quoted else cell)
            return delimiter.join(cells) + "\n"

        head = [line(names)] if names else []
        changed.clear()  # only cells are counted
        lines = [line([row.get(name) for name in names]) for row in kept if names]
        return "".join([*head, *lines]), changed.notes

    def count(self, text: str, options: WriteOptions = _AS_USUAL) -> int:
        if '"' not in text and "\r" not in text:  # each line is a row
            return max(0, sum(map(bool, text.split("\n"))) - 1)
        separator = self.own_separator or options.separator
        lines = csv.reader(StringIO(text, newline=""), delimiter=separator)
        return max(0, sum(1 for line in lines if line) - 1)


class TsvFormat(CsvFormat):
    name, suffixes, also_read = "tsv", (".tsv",), (".tab",)
    own_separator = "\t"


class JsonlFormat(TextFormat):
    name = "jsonl"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")

    def parse(self, text: str, source: TableSource = _WHOLE) -> RowTable:
        changed, found = ChangedValues(), list[dict[str, Any]]()
        for place, row in self._values(text, changed):
            if not isinstance(row, dict):
                raise UnreadableRows(f"has no row {place}: it must be an object `{{…}}`")
            if len(found) == _MOST_ROWS:
                raise _too_many()
            found.append(row)
        names = list(dict.fromkeys(name for row in found for name in row))
        columns = _known_columns(names, source.names)
        if source.names is not None:
            found = [{name: row.get(name) for name in columns} for row in found]
        return RowTable(columns, found, notes=tuple(f": {note}" for note in changed.notes))

    def _values(self, text: str, changed: ChangedValues) -> Iterator[tuple[str, Any]]:
        """Yield the values that rows must be, and where each stands."""
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"on line {number}", _json_value(line, "JSONL", changed, number)

    def text_of(self, rows: Sequence[Any], options: WriteOptions = _AS_USUAL) -> TextAndNotes:
        kept = kept_rows(rows)
        try:
            return self._text(kept), []
        except ValueError:  # numbers that JSON has not
            odd = [name for row in kept for name, value in row.items() if is_lost(value)]
            changed = ChangedValues((f"{ODD_NUMBERS} null", name) for name in odd)
            return self._text([plain_value(dict(row)) for row in kept]), changed.notes

    def _text(self, rows: Sequence[Any]) -> str:
        return "".join(_JSON.encode(row) + "\n" for row in rows)

    def count(self, text: str, options: WriteOptions = _AS_USUAL) -> int:
        return sum(1 for line in text.split("\n") if line.strip())


class JsonFormat(JsonlFormat):
    name = "json"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)

    def _values(self, text: str, changed: ChangedValues) -> Iterator[tuple[str, Any]]:
        rows = _json_value(text, "JSON", changed)
        if not isinstance(rows, list):
            remedy = "Read a JSON file of another form with `files.read`."
            raise UnreadableRows("holds no list of rows", remedy)
        return ((f"as element {n} of its list", row) for n, row in enumerate(rows, 1))

    def _text(self, rows: Sequence[Any]) -> str:
        return json.dumps(rows, ensure_ascii=False, allow_nan=False, indent=2) + "\n"

    def count(self, text: str, options: WriteOptions = _AS_USUAL) -> int:
        found = json.loads(text)
        return len(found) if isinstance(found, list) else 0


class UnnamedFormat(TextFormat):
    name, suffixes = "", ()
    keeps_line_ends = True

    def parse(self, text: str, source: TableSource = _WHOLE) -> RowTable:
        if text.lstrip().startswith("{"):
            return JSONL.parse(text.replace("\r\n", "\n").replace("\r", "\n"), source)
        return CSV.parse(text, source)


CSV = CsvFormat()
JSONL = JsonlFormat()


def declared_rows(rows: TypedRows, kinds: Mapping[str, ColumnType]) -> TypedRows:
    """Return rows whose values are of declared types.

    Raises:
        UnreadableRows: a value is not; with the row.
    """
    kept = kept_rows(rows)
    given = {name: [row.get(name) for row in kept] for name in kinds}
    typed = {name: _of_type(values, name, kinds[name]) for name, values in given.items()}
    if not (odd := [name for name in kinds if typed[name] is not given[name]]):
        return rows
    made = [dict(row) for row in kept]
    for name in odd:
        for row, value in zip(made, typed[name], strict=True):
            row.update({name: value} if name in row else {})
    return TypedRows(made, rows.types)


def typed_rows(
    table: RowTable, kinds: Mapping[str, ColumnType], mark: str = UNSURE_MARK
) -> RowTable:
    """Return a table with values of the texts in some columns; an empty cell becomes null.

    Raises:
        UnreadableRows: a value is not of its type; with the line.
    """
    cells = dict(table.cells) or {
        name: [row[name] for row in table.objects] for name in table.columns
    }
    for name, kind in kinds.items():
        cells[name] = _of_type(list(cells[name]), name, kind, mark, table.lines)
    return replace(table, cells=cells, types=kinds)


def _of_type(
    values: list[Any], name: str, kind: ColumnType, mark: str = "", lines: Sequence[int] = ()
) -> list[Any]:
    """Return plain values as their type has them: the same list, if they all are.

    `mark`: the decimal mark of texts, which are parsed; empty: they are values.

    Raises:
        UnreadableRows: a value is not of the type, or of times only some have a zone.
    """

    def parsed(value: Any) -> Any:
        return parsed_cell(value, kind, mark) if isinstance(value, str) else value

    def typed(value: Any) -> Any:
        found = typed_value(value, kind)
        return found if kind == "float" else plain_value(found)  # infinite ones are told

    for make in (parsed, typed) if mark else (typed,):
        if is_of_type(values, kind):
            return values
        made = []
        for n, value in enumerate(values):
            try:
                made.append(make(value))
            except (ValueError, ArithmeticError):
                place = f"line {lines[n]}" if lines else f"row {n + 1}"
                what = f"{place} has '{one_line(cell_text(value), 40)}' in column '{name}'"
                raise UnreadableRows(f"{what}, which is no {kind}") from None
        values = made
    if kind == "datetime" and len({time.endswith("+00:00") for time in values if time}) > 1:
        raise UnreadableRows(f"has times with and without a zone in column '{name}'")
    return values


def with_found_types(table: RowTable, decimal: str) -> RowTable:
    """Return a table of texts with the types that all cells of a column have, and what they are.

    `decimal`: the decimal mark; empty: found, where a number tells it.
    """
    types = dict[str, ColumnType]()
    notes = list[str]()
    is_point_usual = table.separator != ";"
    found = found_columns(table.cells.values(), decimal, is_point_usual=is_point_usual)
    for name, column in zip(table.columns, found, strict=True):
        types[name] = column.kind
        if column.odd is not None:
            cell, line = column.values[column.odd], table.lines[column.odd]
            why = f"'{one_line(cell.strip(), 40)}' in line {line}{column.why.value}"
            notes.append(f": column '{name}' is text because of {why}")
    typed = ", ".join(f"{name} {kind}" for name, kind in types.items() if kind != "str")
    notes.insert(0, f": types found: {typed or 'all columns are text'}; `columns` declares others")
    cells = dict(zip(table.cells, (column.values for column in found), strict=True))
    return replace(table, cells=cells, types=types, notes=(*table.notes, *notes))


def _cells(
    text: str, delimiter: str, n_before: int, n_most: int
) -> Iterator[tuple[int, list[str]]]:
    """Yield each non-blank row with its first line number."""
    reader = csv.reader(
        StringIO(text, newline=""),
        delimiter=delimiter,
        strict=True,
        skipinitialspace=_has_blanks(_head(text), delimiter),
    )
    begins, n, n_columns = 1 + n_before, 0, 0
    try:
        for row in reader:
            is_null = n_columns == 1 and row == [""]
            if len(row) > 1 or is_null or (row and row[0].strip()):
                n_columns = n_columns or len(row)
                n += 1
                if n > n_most:
                    raise _too_many()
                yield begins, row
            begins = reader.line_num + 1 + n_before
    except csv.Error as error:
        why = str(error)
        if "field larger" in why:
            why = "a cell has more than 131,072 characters"
        elif "unexpected end" in why:
            why = "a quote is opened here and never closed"
        raise UnreadableRows(f"cannot be read as CSV: line {begins}: {why}") from error


def _too_many() -> UnreadableRows:
    return UnreadableRows(f"has more than {_MOST_ROWS:,} rows, which is the maximum")


def _delimiter(text: str) -> str:
    """Detect the delimiter: the one that gives the first rows equally many cells, and most.

    Where it is a wrong one, a quoted cell is cut and leaves a quote that has no other.
    """
    head = _head(text)

    def rank(delimiter: str) -> tuple[float, bool, int]:
        is_spaced = _has_blanks(head, delimiter)
        reader = csv.reader(
            StringIO(head, newline=""), delimiter=delimiter, skipinitialspace=is_spaced
        )
        try:
            rows = [row for row in reader if row]
        except csv.Error:
            return (0.0, False, 0)
        if not rows or len(rows[0]) < 2:
            return (0.0, False, 0)
        n_equal = sum(len(row) == len(rows[0]) for row in rows)
        is_whole = not any(cell.count('"') % 2 for row in rows for cell in row)
        return (n_equal / len(rows), is_whole, len(rows[0]))

    best = max(_DELIMITERS, key=rank)
    return best if rank(best)[0] else ","


def _head(text: str) -> str:
    lines = itertools.islice(StringIO(text, newline=""), _SAMPLE_ROWS)
    return "\n".join(line.rstrip("\r\n") for line in lines)


def _has_blanks(head: str, delimiter: str) -> bool:
    """Return whether blanks stand before the quotes of cells, as in `"boat", "fee"`."""
    sign = re.escape(delimiter)
    plain = re.sub(rf'(?:^|(?<={sign}))"(?:[^"]|"")*"', '""', head, flags=re.MULTILINE)
    return re.search(rf'(?:^|{sign}) +"', plain, re.MULTILINE) is not None


class _NotJson(ValueError):
    """Not allowed in JSON, or too much of it."""


def _json_value(text: str, form: str, changed: ChangedValues, line: int | None = None) -> Any:
    """Parse JSON, of one line of a file or of all; half a character becomes U+FFFD."""
    has_half = _HALF_ESCAPED.search(text) is not None
    rounded = set[float]()

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            n_of = Counter(name for name, _ in pairs)
            what = "an object has a name more than once, and the last one is taken"
            changed.update((what, name) for name, n in n_of.items() if n > 1)
        for name, part in pairs if rounded else ():
            if n := sum(number in rounded for number in _floats_of(part)):
                changed["a number has more digits than are kept", name] += n
        for pair in pairs if has_half else ():
            if _HALF.search(json.dumps(pair, ensure_ascii=False)):
                name = _HALF.sub("\ufffd", pair[0])
                changed["U+FFFD stands for half a character", name] += 1
        return value

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise _NotJson(f"the number {digits[:20]} is too large")
        if _is_rounded(value, digits):
            rounded.add(value)
        return value

    try:
        if len(text) > _MOST_PARTS and text.count("{") + text.count("[") > _MOST_PARTS:
            raise _NotJson(f"it has more than {_MOST_PARTS:,} objects and lists")
        value = parse_shallow_json(
            text, parse_constant=_constant, parse_float=number, object_pairs_hook=made
        )
        if not has_half:
            return value
        return json.loads(_HALF.sub("\ufffd", json.dumps(value, ensure_ascii=False)))
    except json.JSONDecodeError as error:
        why = f"line {line or error.lineno}, column {error.colno}: {error.msg}"
        raise UnreadableRows(f"is not valid {form}: {why}") from error
    except ValueError as error:
        place = f"line {line}: " if line else ""
        is_told = isinstance(error, _NotJson | NestedTooDeep)
        why = str(error) if is_told else "a number has thousands of digits"
        raise UnreadableRows(f"is not valid {form}: {place}{why}") from error


def _constant(word: str) -> float:
    raise _NotJson(f"{word} is not a JSON number")


def _floats_of(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, list):
        yield from itertools.chain.from_iterable(map(_floats_of, value))


def _is_rounded(value: float, digits: str) -> bool:
    """Whether a number is another one now; the 17 digits that C writes of a float are not."""
    if len(digits) <= 16:  # with the point: floats keep 15
        return False
    try:
        written = Decimal(digits)
    except InvalidOperation:  # an exponent of 20 digits: the value is 0
        return re.match("-?[0.]*[1-9]", digits) is not None
    last = len(written.as_tuple().digits) - 1
    return written not in (Decimal(repr(value)), Decimal(f"{value:.{last}e}"))


def _known_columns(names: list[str], columns: Sequence[str] | None) -> list[str]:
    if columns is None:
        return names
    for column in columns:
        if names and column not in names:
            raise UnreadableRows(f"has no column '{column}'", did_you_mean(column, names))
    return list(columns)
