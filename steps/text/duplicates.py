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
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from paddock.engine.system.records import Struct
from paddock.pipelines.checking.folding import small
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.base import Params, RowsOutput, Step, StepError, Tools
from paddock.steps.facts import Facts, KnownTables, Missing, TextFault, Written
from paddock.steps.param_types import RowsParam

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
    rows: Annotated[TypedRows, RowsParam] = Field(description="Rows, such as a block's results.")
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
        description="The column that orders the rows, if there. Of the same bytes at one time "
        "`a.pdf` is before `a (1).pdf`.",
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
    facts = Facts(is_repeatable=True, missing=_missing, table_faults=_column_faults)

    async def run(self, params: DuplicatesParams, tools: Tools) -> DuplicatesOutput:
        """Compare the rows.

        Raises:
            StepError: a row has no `key`, or such a column already; the library is missing.
        """
        rows = await asyncio.to_thread(_marked, params, tools.log.note)
        n_copies = sum(row["copy_of"] is not None for row in rows)
        return DuplicatesOutput.model_construct(rows=rows, count=n_copies)


class _Copy(Struct, frozen=True):
    first: int
    """The index of the row that it is a copy of."""
    kind: str
    likeness: float = 1.0


def _marked(params: DuplicatesParams, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return the rows with the columns of `COLUMNS`.

    1. Check the rows, and put them in order.
    2. Find copies by content, then by text among the others.
    3. Fill the columns.
    """
    rows = params.rows.as_list()
    names: list[str] = []
    for number, row in enumerate(rows, 1):  # 1
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
    copies: dict[int, _Copy] = {}  # 2
    if params.content is not None:
        copies |= _same_content([row.get(params.content) for row in rows], names, ranks, order)
    if params.text is not None:
        texts = _TextCopies(len(rows))
        n_without = 0
        for index in order:
            text = _folded(rows[index].get(params.text))
            words = _WORD.findall(text)
            n_without += not words
            if len(words) >= LEAST_WORDS and index not in copies:
                texts.add(index, text, words)
        copies |= texts.same | texts.alike(params.alike)
        if n_without:
            note(
                f"{n_without} of {len(rows)} rows have no text, and are compared by content alone."
            )
    marked = []  # 3
    for index, row in enumerate(rows):
        values: Sequence[Any] = (None,) * len(COLUMNS)
        if (copy := copies.get(index)) is not None:
            here, there = (
                Counter(_NUMBER.findall(_folded(either.get(params.text)) if params.text else ""))
                for either in (row, rows[copy.first])
            )
            lacks = ("; ".join([*some][:MOST_NUMBERS]) for some in (here - there, there - here))
            values = (names[copy.first], copy.kind, copy.likeness, *lacks)
        marked.append({**row, **dict(zip(COLUMNS, values, strict=True))})
    return marked


def _same_content(
    digests: Sequence[Any], names: Sequence[str], ranks: Sequence[_Rank], order: Sequence[int]
) -> dict[int, _Copy]:
    """Return the rows with the digest of an earlier one, by index."""
    by_digest: dict[str, list[int]] = {}
    for index in order:
        digest = digests[index]
        if isinstance(digest, str) and digest not in ("", _EMPTY):
            by_digest.setdefault(digest, []).append(index)
    copies: dict[int, _Copy] = {}
    for same in by_digest.values():
        first = same[0]
        if not ranks[first].is_unknown:
            # `letter (1).pdf` may come first by name, but is made from `letter.pdf`
            stems = {i: PurePosixPath(names[i]).stem for i in same if ranks[i] == ranks[first]}
            originals = [i for i, stem in stems.items() if stems[first].startswith(stem)]
            first = min(originals, key=lambda i: len(stems[i]))
        copies |= {index: _Copy(first, "content") for index in same if index != first}
    return copies


class _TextCopies:
    """Finds equal and similar texts. Their phrases take memory, and are sketched in chunks."""

    def __init__(self, most: int) -> None:
        try:
            self._sketching: Any = importlib.import_module(f"{__package__}.sketches")
        except ModuleNotFoundError as error:
            raise StepError(_LACKS[0], remedy=_LACKS[1], kind="missing") from error
        self.same: dict[int, _Copy] = {}
        self._by_digest: dict[bytes, int] = {}
        self._distinct: list[int] = []
        self._phrases: list[list[str]] = []
        """Of the last of the distinct texts, which are not sketched yet."""
        self._sketches = self._sketching.room(most)

    def add(self, index: int, text: str, words: Sequence[str]) -> None:
        first = self._by_digest.setdefault(hashlib.sha256(text.encode()).digest(), index)
        if first != index:
            self.same[index] = _Copy(first, "text")
            return
        self._distinct.append(index)
        triples = zip(words, words[1:], words[2:], strict=False)
        self._phrases.append([" ".join(phrase) for phrase in triples])
        if len(self._phrases) == _CHUNK_TEXTS:
            self._sketch()

    def _sketch(self) -> None:
        end = len(self._distinct)
        sketches = self._sketching.sketches(self._phrases)
        self._sketches[end - len(self._phrases) : end] = sketches
        self._phrases.clear()

    def alike(self, least: float) -> dict[int, _Copy]:
        """Return the texts that share phrases with an earlier one, by the index of their row."""
        if not self._distinct:
            return {}
        if self._phrases:
            self._sketch()
        pairs = self._sketching.nearest(self._sketches[: len(self._distinct)], least)
        return {
            self._distinct[later]: _Copy(self._distinct[earlier], "alike", likeness)
            for later, (earlier, likeness) in pairs.items()
        }


class _Rank(NamedTuple):
    """What rows are sorted by: those without a value are last, texts after numbers."""

    is_unknown: bool
    is_text: bool
    value: Any


def _rank(value: Any) -> _Rank:
    is_known = isinstance(value, str | int | float) and value == value  # no NaN
    return _Rank(not is_known, isinstance(value, str), value if is_known else 0)


def _folded(text: Any) -> str:
    """Return a cell's text without what two copies may differ in; empty if it has none."""
    if not isinstance(text, str):
        return ""
    return " ".join(small(unicodedata.normalize("NFKC", text)).split())
