"""Finish a batch: part its results into output and errors, and add up what they cost.

May be done again from the beginning: files get the same names, so a process that was killed in
the midst of it leaves nothing behind. Blocks: not for the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from paddock.engine.store.locks import writing

from .book import BatchBook, BatchFacts
from .documents import settle
from .lines import expired_line, is_answer, read_lines, read_results, recover
from .shelf import FileFacts, FileShelf


def finish(book: BatchBook, shelf: FileShelf, facts: BatchFacts, *, is_late: bool) -> BatchFacts:
    """Write the files of a batch whose run has ended, and give it with their ids and its counts.

    Args:
        book: where its results lie.
        shelf: gets the files, as far as there is anything in them.
        facts: the batch.
        is_late: whether its time is up; then lines without a result get that as their error.

    Raises:
        EngineError: the disk is full, or cannot be written.
    """
    results = book.results(facts.id)
    done = recover(results)
    late = _late(book.source(facts.id), done) if is_late else ()
    output_id, error_id = facts.result_file_ids
    has_output = _write(shelf, facts, output_id, "output", _texts(results, wants=True))
    errors = chain(_texts(results, wants=False), late)
    has_errors = _write(shelf, facts, error_id, "error", errors)
    n_late = facts.total - len(done) if is_late else 0
    n_good = sum(done.values())
    return replace(
        facts,
        completed=n_good,
        failed=len(done) - n_good + n_late,
        output_file_id=output_id if has_output else None,
        error_file_id=error_id if has_errors else None,
        usage=_added(_usages(results)),
    )


def _usages(results: Path) -> Iterable[Mapping[str, Any]]:
    """Give what each answer cost."""
    if not results.exists():
        return
    for _, result in read_results(results):
        if is_answer(result):
            usage = result["response"].get("body", {}).get("usage")
            if isinstance(usage, dict):
                yield usage


def _late(source: Path, done: Mapping[str, bool]) -> Iterable[bytes]:
    return (expired_line(line) for line in read_lines(source, done))


def _texts(results: Path, *, wants: bool) -> Iterable[bytes]:
    if not results.exists():
        return
    for text, result in read_results(results):
        if is_answer(result) == wants:
            yield text


def _write(
    shelf: FileShelf, facts: BatchFacts, file_id: str, kind: str, texts: Iterable[bytes]
) -> bool:
    """Write one file of results; nothing at all where it would be empty."""
    size = 0
    with writing(shelf.documents.folder):
        aside = shelf.documents.aside()
        try:
            with shelf.documents.opened(aside) as file:
                for text in texts:
                    size += file.write(text)
                settle(file)
            if size:
                shelf.add(_file(facts, file_id, kind, size), aside)
        finally:
            aside.unlink(missing_ok=True)
    return size > 0


def _file(facts: BatchFacts, file_id: str, kind: str, size_bytes: int) -> FileFacts:
    now_ns = time.time_ns()
    lasts_s = facts.output_expires_s
    return FileFacts(
        file_id,
        f"{facts.id}_{kind}.jsonl",
        "batch_output",
        size_bytes,
        now_ns,
        None if lasts_s is None else now_ns // 1_000_000_000 + lasts_s,
    )


def _added(usages: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up what answers cost, whichever endpoint gave them."""
    n_in = n_cached = n_out = n_reasoning = 0
    for usage in usages:
        n_in += usage.get("input_tokens", usage.get("prompt_tokens", 0))
        n_out += usage.get("output_tokens", usage.get("completion_tokens", 0))
        read = usage.get("input_tokens_details") or usage.get("prompt_tokens_details") or {}
        said = usage.get("output_tokens_details") or usage.get("completion_tokens_details") or {}
        n_cached += read.get("cached_tokens", 0)
        n_reasoning += said.get("reasoning_tokens", 0)
    return {
        "input_tokens": n_in,
        "input_tokens_details": {"cached_tokens": n_cached},
        "output_tokens": n_out,
        "output_tokens_details": {"reasoning_tokens": n_reasoning},
        "total_tokens": n_in + n_out,
    }
