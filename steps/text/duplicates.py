"""The step `duplicates`: which rows are copies of earlier ones, by content and by text; no model.

A row is compared with earlier ones alone, so one that comes last changes no other row. Texts are
compared by their `sketches`.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import importlib.util
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from paddock.pipelines.checking.folding import small
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.base import Params, RowsOutput, Step, StepError, Tools
from paddock.steps.facts import Facts, KnownTables, Missing, TextFault, Written

LEAST_WORDS = 5
"""Texts with fewer, such as the page number that OCR found, are compared by content alone."""
MOST_NUMBERS = 10
"""How many numbers of a text are named that the other one lacks."""
COLUMNS = ("copy_of", "copy_kind", "likeness", "numbers", "other_numbers")
"""What rows get."""
_EMPTY = hashlib.sha256().hexdigest()
_CHUNK_TEXTS = 1000
# Of scripts without spaces each sign is a word
_WORD = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u9fff]|\w+")
_NUMBER = re.compile(r"(?<![^\W\d_])[-\u2212]?\d(?:[\d.,:/-]*\d)?")
_LACKS = (
    "texts are compared by 'rensa', which is not installed.",
    "Install it: `pip install 'paddock-llm[duplicates]'`.",
)
_OTHER_NAME = "Give it another name in `returns`."


class DuplicatesParams(Params):
    """Parameters of `duplicates`."""

    rows: TypedRows = Field(description="Rows, such as a block's results.")
    key: str = Field(description="The column that names a row.", examples=["document"])
    content: str | None = Field(
        default=None,
        description="The column with a digest: equal ones are copies.",
        examples=["sha256"],
    )
    text: str | None = Field(
        default=None, description="The column with a text: equal and similar ones are copies."
    )
    alike: float = Field(
        default=0.8,
        ge=0.6,
        le=1,
        description="From which share of common phrases on texts are alike.",
    )
    first: str = Field(
        default="modified",
        description="The column that orders the rows, if they have it. Of the same bytes at one "
        "time `a.pdf` is before `a (1).pdf`.",
    )

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        is_none = given.get("content") is None and given.get("text") is None
        return (("give `content`, or `text`, or both.", ""),) if is_none else ()


class DuplicatesOutput(RowsOutput):
    """Outputs of `duplicates`: each row with five columns more, null where it is no copy.

    `copy_of` is the `key` of the earlier row, `copy_kind` is `content` (the same bytes), `text`
    (the same text) or `alike`, `likeness` the share of common phrases, below 1 where texts are only
    alike. `numbers` are those of this text that the other one lacks, `other_numbers` the reverse.
    """

    rows: list[dict[str, Any]]
    count: int = Field(description="How many are copies.")


def _missing(_step: str, written: Written, _folder: Path) -> Iterator[Missing]:
    if written.get("text") is not None and importlib.util.find_spec("rensa") is None:
        yield ("text",), *_LACKS


def _column_faults(written: Written, known: KnownTables) -> Iterator[TextFault]:
    """Yield the columns that the rows have not, and those that they have already."""
    columns = known.get(("rows",), {})
    for parameter in ("key", "content", "text"):
        name = str(written.get(parameter) or "")
        if columns and name and "{" not in name and name not in columns:
            what = f"the rows have no column '{name}'"
            yield TextFault(parameter, what, did_you_mean(name, columns))
    for name in columns.keys() & {*COLUMNS}:
        yield TextFault("rows", f"the rows have a column '{name}' already", _OTHER_NAME)


class Duplicates(Step[DuplicatesParams, DuplicatesOutput]):
    """Rows that are copies of earlier ones, by content or by text."""

    params = DuplicatesParams
    output = DuplicatesOutput
    is_pure = True
    facts = Facts(is_repeatable=True, table="rows", missing=_missing, table_faults=_column_faults)

    async def run(self, params: DuplicatesParams, tools: Tools) -> DuplicatesOutput:
        """Compare the rows.

        Raises:
            StepError: a row has no `key`, or such a column already; the library is missing.
        """
        rows = await asyncio.to_thread(_marked, params, tools.log.note)
        n_copies = sum(row["copy_of"] is not None for row in rows)
        return DuplicatesOutput.model_construct(rows=rows, count=n_copies)


def _marked(params: DuplicatesParams, note: Callable[[str], None]) -> list[dict[str, Any]]:
    rows, names = params.rows.as_list(), list[str]()
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise StepError(f"row {number} is no mapping.", remedy="Give the block `returns`.")
        if row.get(params.key) is None:
            remedy = "`key` is a column that each row has."
            raise StepError(f"row {number} has no '{params.key}'.", remedy=remedy)
        if taken := next((name for name in COLUMNS if name in row), None):
            what = f"row {number} has a column '{taken}' already."
            raise StepError(what, remedy=_OTHER_NAME)
        names.append(str(row[params.key]))
    ranks = [_rank(row.get(params.first)) for row in rows]
    order = sorted(range(len(rows)), key=ranks.__getitem__)
    found: dict[int, tuple[int, str, float]] = {}
    contents: dict[str, list[int]] = {}
    for index in order if params.content is not None else ():
        content = rows[index].get(params.content)
        if isinstance(content, str) and content not in ("", _EMPTY):
            contents.setdefault(content, []).append(index)
    for same in contents.values():
        stems = {i: PurePosixPath(names[i]).stem for i in same if ranks[i] == ranks[same[0]]}
        # `letter (1).pdf` may come first by name, but is made from `letter.pdf`
        begins = {i: len(stem) for i, stem in stems.items() if stems[same[0]].startswith(stem)}
        has_time = not ranks[same[0]][0]
        first = min(begins, key=begins.__getitem__) if has_time else same[0]
        found |= {index: (first, "content", 1.0) for index in same if index != first}

    def text_of(row: Mapping[str, Any]) -> str:
        text = None if params.text is None else row.get(params.text)
        return _folded(text) if isinstance(text, str) else ""

    own, texts, n_without = list[int](), dict[bytes, int](), 0
    phrases = list[list[str]]()
    if params.text is not None:
        try:
            sketching: Any = importlib.import_module(f"{__package__}.sketches")
        except ModuleNotFoundError as error:
            raise StepError(_LACKS[0], remedy=_LACKS[1], kind="missing") from error
        sketches = sketching.room(len(rows))
    for index in order if params.text is not None else ():
        words = _WORD.findall(text := text_of(rows[index]))
        n_without += not words
        if len(words) < LEAST_WORDS or index in found:
            continue
        first = texts.setdefault(hashlib.sha256(text.encode()).digest(), index)
        if first != index:
            found[index] = first, "text", 1.0
            continue
        own.append(index)
        triples = zip(words, words[1:], words[2:], strict=False)
        phrases.append([" ".join(phrase) for phrase in triples])
        if len(phrases) == _CHUNK_TEXTS:
            sketches[len(own) - len(phrases) : len(own)] = sketching.sketches(phrases)
            phrases.clear()
    if phrases:
        sketches[len(own) - len(phrases) : len(own)] = sketching.sketches(phrases)
    if own:
        alike = sketching.nearest(sketches[: len(own)], params.alike)
        for place, (earlier, likeness) in alike.items():
            found[own[place]] = own[earlier], "alike", likeness
    if n_without:
        note(f"{n_without} of {len(rows)} rows have no text, and are compared by content alone.")
    made = []
    for index, row in enumerate(rows):
        values: Sequence[Any] = (None,) * len(COLUMNS)
        if (match := found.get(index)) is not None:
            first, kind, likeness = match
            here, there = (Counter(_NUMBER.findall(text_of(held))) for held in (row, rows[first]))
            lacks = ("; ".join([*some][:MOST_NUMBERS]) for some in (here - there, there - here))
            values = (names[first], kind, likeness, *lacks)
        made.append({**row, **dict(zip(COLUMNS, values, strict=True))})
    return made


def _rank(value: Any) -> tuple[bool, bool, Any]:
    """Return a value by which rows are ordered: those without one come last."""
    is_known = isinstance(value, str | int | float) and value == value  # no NaN
    return (not is_known, isinstance(value, str), value if is_known else 0)


def _folded(text: str) -> str:
    return " ".join(small(unicodedata.normalize("NFKC", text)).split())
