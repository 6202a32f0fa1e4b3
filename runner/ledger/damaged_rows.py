"""Damaged rows of a ledger's file: JSON of a wrong form, texts that lack their digests.

SQLite reads a page with a wrong letter in it like any other; what comes of that letter is an error
of any kind, far from where the row was read. So all rows are looked at once there was one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddock.engine import request, wire

from .ledger_tables import COLUMNS, KEYS, Row

_JSON_COLUMNS = {
    "runs": ("summary", "given"),
    "scopes": ("inputs",),
    "items": ("parts", "reads", "outputs", "returns"),
    "calls": ("usage",),
    "outputs": ("intended",),
    "provenance": ("made",),
    "specs": ("text",),
    "roots": ("folder",),
    "reviews": ("head", "objects", "earlier", "value", "subject"),
}
_MARK_LENGTHS = {
    "written": 3, "held": 3, "rows": 6, "store": 2, "away": 1, "limited": 2, "labels": 3,
    "nearest": 4, "examples": 9,
}  # fmt: skip
"""By its first word, how many values a dependency has; `listed` has any number of lists."""
_FILE_MARK_KINDS = (int, int, str, int, int)
"""Of a file that was read: size, time, digest, time of its inode, inode."""
_CHECKED = (
    "runs", "scopes", "items", "calls", "outputs", "provenance", "specs", "stored", "roots",
    "reviews",
)  # fmt: skip
_STATES = ("done", "skipped", "quarantined", "failed", "waiting")
_TOOL_RESULTS = (frozenset({"text", "value"}), frozenset({"error"}))


@dataclass(frozen=True)
class _Summary:
    run: str
    pipeline: str
    status: str
    counts: Mapping[str, int]
    calls: int
    tokens: Mapping[str, int]
    seconds: float


@dataclass(frozen=True)
class _Given:
    inputs: Mapping[str, Any]
    hidden: tuple[str, ...]


@dataclass(frozen=True)
class _Folder:
    mounts: Mapping[str, str]


@dataclass(frozen=True)
class _Source:
    path: str
    sha256: str


@dataclass(frozen=True)
class _Step:
    id: str
    uses: str
    version: Any
    model: str | None
    began: float
    seconds: float
    calls: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class _Made:
    source: _Source | None
    steps: tuple[_Step, ...]


@dataclass(frozen=True)
class _Head:
    pipeline: str | None
    item: str | None
    document: str | None
    document_sha256: str | None


def row_faults(select: Callable[[str], Iterable[Sequence[Any]]]) -> Iterator[str]:
    """Yield what is wrong with rows, each as the end of a sentence."""
    for table in _CHECKED:
        columns = COLUMNS[table]
        for values in select(f"select {', '.join(columns)} from {table}"):
            row = dict(zip(columns, values, strict=True))
            try:
                parsed = {
                    name: json.loads(row[name])
                    for name in _JSON_COLUMNS.get(table, ())
                    if row[name]
                }
                _check(table, row, parsed)
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
                at = ", ".join(f"{name} '{str(row[name])[:60]}'" for name in KEYS[table])
                yield f"the row of '{table}' with {at} is damaged: {error}"


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _need_form(kind: Any, plain: Any) -> None:
    """Raise ValueError where a value is none of a type."""
    wire.from_plain(kind, plain)


def _need_digest(digest: str, text: str, what: str) -> None:
    found = hashlib.sha256(text.encode()).hexdigest()
    _need(found == digest, f"{what} is not the text of its digest")


def _need_rows(whole: str) -> None:
    _need(not whole or whole.partition(":")[0].isdigit(), "the number of rows is none")


def _check(table: str, row: Row, parsed: Row) -> None:
    """Raise an error of any kind where a row does not have the form that its table asks for."""
    match table:
        case "runs":
            if "summary" in parsed:
                _need_form(_Summary, parsed["summary"])
                tokens = parsed["summary"]["tokens"].keys()
                _need({"prompt", "completion"} <= tokens, "`tokens` lacks one")
            if "given" in parsed:
                _need_form(_Given, parsed["given"])
        case "scopes":
            text = f"{row['file']}\n{row['step']}\n{row['inputs']}"
            _need_digest(row["scope"], text, "`inputs`")
        case "items":
            _need_form(dict[str, str], parsed["parts"])
            _need(row["state"] in _STATES, f"'{row['state']}' is no state")
            _need_form(tuple[str, ...], parsed.get("outputs", []))
            for name, mark in parsed.get("reads", {}).items():
                _check_mark(name, mark)
        case "calls":
            _check_call(row, parsed)
        case "outputs":
            _need_form(tuple[str, ...], parsed["intended"])
        case "provenance" if "made" in parsed:
            _need_form(_Made, parsed["made"])
        case "specs":
            _need_digest(row["spec"], row["text"], "`text`")
        case "stored":
            _need_rows(row["sha256"])
        case "roots":
            _need_form(_Folder, parsed["folder"])
            _need("is" in parsed["folder"], "`folder` has no identity")
        case "reviews":
            _need_form(_Head, parsed["head"])
            _need_form(tuple[str, ...], parsed["objects"])
            for decision in parsed["earlier"]:
                _need({"state", "value", "by", "at"} <= decision.keys(), "`earlier` lacks a name")
            subject = parsed.get("subject", {"answer": None, "outputs": None})
            _need({"answer", "outputs"} <= subject.keys(), "`subject` lacks a name")


def _check_mark(name: str, mark: Any) -> None:
    known = mark[0] == "listed" or _MARK_LENGTHS.get(mark[0]) == len(mark)
    is_file = len(mark) == len(_FILE_MARK_KINDS) and all(map(isinstance, mark, _FILE_MARK_KINDS))
    _need(known or is_file, f"`reads` has an unknown entry for '{name[:60]}'")
    if mark[0] == "rows":
        _need_rows(mark[3])


def _check_call(row: Row, parsed: Row) -> None:
    if row["kind"] in ("chat", "embed"):
        if row["request"] is not None:
            _need_digest(row["hash"], f"{row['kind']}\n{row['request']}", "`request`")
        if row["kind"] == "chat":
            _need_form(request.Reply, parsed["usage"])
        else:
            _need({"vectors", "usage", "digest"} <= parsed["usage"].keys(), "`usage` lacks a name")
            _need_form(request.EmbedReply, {**parsed["usage"], "vectors": [0, [0, 0]]})
        return
    if row["kind"] in ("tool", "turn") and row["reply"] is not None:
        is_command = row["model"] == "run"
        _need(
            is_command or json.loads(row["reply"]).keys() in _TOOL_RESULTS, "`reply` is no result"
        )
