"""JSONL lines of a batch: check, run through a pool, write results, resume.

Lines as in OpenAI's guide to the Batch API: `custom_id`, `method`, `url` and `body` in; `id`,
`custom_id`, `response` and `error` out. Many lines run at once, and each result is flushed to the
disk as it comes, in any order. A run that starts again on the same files continues where it was.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from paddock.engine.api.body_models import shown
from paddock.engine.api.errors import ApiError, openai_error_body
from paddock.engine.api.json_body import lower_case_keys, parse_object
from paddock.engine.api.streaming import dumps
from paddock.engine.backends.local import LocalPool
from paddock.engine.errors import EngineError
from paddock.engine.models.blobs import store_write_errors
from paddock.engine.system.files import append_durably
from paddock.engine.system.light_dataclasses import dataclass
from paddock.engine.system.tasks import end
from paddock.engine.system.text import parse_shallow_json

from .chat_completions import new_id
from .endpoints import BATCH_ENDPOINTS, answer_batch_line
from .requests import ApiCaller

MAX_FAULTS = 100
"""Reported for one file: a mistake in all its lines need not be reported for each."""
MAX_LINE_BYTES = 64 * 1024**2
"""As of a request's body. To parse 270 MB held all other requests up for minutes."""


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One request of a batch."""

    number: int
    custom_id: str
    url: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LineFault:
    """What is wrong with a line."""

    line: int
    code: str
    message: str
    param: str | None = None


class InvalidBatchFile(EngineError):
    """An invalid batch file, with every fault of its lines (at most 100)."""

    def __init__(self, path: str, faults: Sequence[LineFault]) -> None:
        self.path = path
        self.faults = tuple(faults)
        super().__init__(
            "\n".join(f"{path}:{fault.line}: {fault.message}" for fault in self.faults)
        )


def check_lines(path: Path, urls: Sequence[str]) -> int:
    """Check a whole file of requests for these endpoints; return their number.

    The file has one JSON object on each line; empty lines are skipped.

    Raises:
        InvalidBatchFile: with every fault.
    """
    faults: list[LineFault] = []
    seen: dict[str, int] = {}
    for number, text in _numbered_lines(path):
        found = _parse_line(number, text, urls)
        if isinstance(found, BatchLine) and found.custom_id in seen:
            start = f"the custom_id '{shown(found.custom_id)}' stands on line "
            found = LineFault(number, "duplicate_custom_id", f"{start}{seen[found.custom_id]} too",
                          "custom_id")  # fmt: skip
        if isinstance(found, LineFault):
            faults.append(found)
            if len(faults) == MAX_FAULTS:
                break
        else:
            seen[found.custom_id] = number
    if not faults and not seen:
        faults.append(LineFault(1, "empty_file", "the file has no requests"))
    if faults:
        raise InvalidBatchFile(path.name, faults)
    return len(seen)


def read_lines(path: Path, done: Mapping[str, bool]) -> Iterator[BatchLine]:
    """Yield the requests of a checked file, without those that are done."""
    for number, text in _numbered_lines(path):
        found = _parse_line(number, text, ())
        if isinstance(found, BatchLine) and found.custom_id not in done:
            yield found


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")
        for number, text in enumerate(lines, start=1):
            if len(text) > MAX_LINE_BYTES:
                why = f"the line has more than {MAX_LINE_BYTES:,} bytes"
                raise InvalidBatchFile(path.name, [LineFault(number, "line_too_large", why)])
            if text.strip():
                yield number, text


def _parse_line(number: int, text: bytes, urls: Sequence[str]) -> BatchLine | LineFault:
    """Return a line's request or its fault; no `urls`: any endpoint is allowed."""
    try:
        value = parse_object(text)
    except ApiError as error:
        return LineFault(number, "invalid_json_line", error.message)
    custom_id, url, body = value.get("custom_id"), value.get("url"), value.get("body")
    if not isinstance(custom_id, str) or not custom_id:
        message = "the `custom_id` must be a text that says which request this is"
        return LineFault(number, "missing_required_parameter", message, "custom_id")
    if value.get("method", "POST") != "POST":
        return LineFault(number, "invalid_method", "the `method` must be POST", "method")
    if urls and url not in urls:
        known = ", ".join(urls)
        message = f"the `url` must be {known}, not {shown(json.dumps(url))}"
        return LineFault(number, "invalid_url", message, "url")
    if not isinstance(body, dict):
        return LineFault(
            number, "missing_required_parameter", "the `body` must be an object", "body"
        )
    body_fields = lower_case_keys(body)
    if not isinstance(body_fields.get("model"), str) or not body_fields["model"]:
        message = "the `body` must name a `model`"
        return LineFault(number, "missing_required_parameter", message, "body.model")
    return BatchLine(number, custom_id, str(url), body_fields)


def answer_result(line: BatchLine, body: Mapping[str, Any]) -> bytes:
    return _result_line(line.custom_id, 200, body)


def error_result(line: BatchLine, error: ApiError) -> bytes:
    return _result_line(line.custom_id, error.status, openai_error_body(error))


def _result_line(custom_id: str, status: int, body: Mapping[str, Any]) -> bytes:
    response = {"status_code": status, "request_id": new_id("req_"), "body": body}
    value = {
        "id": new_id("batch_req_"),
        "custom_id": custom_id,
        "response": response,
        "error": None,
    }
    return dumps(value) + b"\n"


def expired_result(line: BatchLine) -> bytes:
    """Return the result line of a request that was not started in time."""
    error = {
        "code": "batch_expired",
        "message": "This request could not be executed before the completion window expired.",
    }
    value = {"id": new_id("batch_req_"), "custom_id": line.custom_id, "response": None}
    return dumps({**value, "error": error}) + b"\n"


def is_answer(result: Mapping[str, Any]) -> bool:
    response = result.get("response")
    return isinstance(response, dict) and response.get("status_code") == 200


def recover_results(path: Path) -> dict[str, bool]:
    """Return the requests that have a result, and whether it is an answer.

    An incomplete last line, left by a killed process, is cut off.

    Raises:
        InvalidBatchFile: the file holds something else; it is not changed.
    """
    done: dict[str, bool] = {}
    if not path.exists():
        return done
    whole = 0
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            n_begun = len(_RESULT_PREFIX)
            if not text.endswith(b"\n") and text[:n_begun] == _RESULT_PREFIX[: len(text)]:
                break  # incomplete
            result = _parse_result(text)
            if result is None:
                message = "this line is no result of a batch; write the results to another file"
                raise InvalidBatchFile(path.name, [LineFault(number, "not_a_result", message)])
            whole += len(text)
            if result:
                done[str(result["custom_id"])] = is_answer(result)
    if whole < path.stat().st_size:
        os.truncate(path, whole)
    return done


_RESULT_PREFIX = b'{"id":"batch_req_'


def _parse_result(text: bytes) -> dict[str, Any] | None:
    """Return a result; empty for an empty line; None: it is no result."""
    if not text.strip():
        return {}
    try:
        value = parse_shallow_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "custom_id" in value else None


def read_results(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield every result, as text and as a value; none where there is no file yet."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for text in file:
            result = _parse_result(text)
            if result:
                yield text, result


LINES_AT_ONCE = 64
"""Requests of one run in the pool: more than a model decodes at once, so that its scheduler can
choose prompts with a common prefix."""
_LINES_PER_READ = 64

_BATCH_CALLER = ApiCaller("batch", waits=True)

LineAnswerer = Callable[[BatchLine], Awaitable[Mapping[str, Any]]]
"""Returns the body that answers a line; raises ApiError for an error answer."""


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """Progress of a run."""

    total: int
    completed: int
    failed: int

    @property
    def n_left(self) -> int:
        return self.total - self.completed - self.failed


class BatchInterrupted(Exception):
    """The pool closed before all lines were done. Another run can continue."""


def answers_of(pool: LocalPool) -> LineAnswerer:
    """Return a function that answers lines by a pool, with priority `batch`."""

    async def answer(line: BatchLine) -> Mapping[str, Any]:
        return await answer_batch_line(pool, line.url, line.body, _BATCH_CALLER)

    return answer


async def run_lines(
    answer: LineAnswerer,
    source: Path,
    results: Path,
    *,
    n_lines: int | None = None,
    n_at_once: int = LINES_AT_ONCE,
) -> AsyncGenerator[BatchProgress, None]:
    """Answer every line of `source` that has no result in `results` yet.

    Yields the progress at the start, and whenever results were flushed to the disk. The result of
    a line that cannot be answered is its error. `n_lines`: their number, if they are checked.

    Raises:
        InvalidBatchFile: nothing was run, and `results` is unchanged.
        BatchInterrupted: the pool closed.
        EngineError: the results cannot be written.
    """
    total = n_lines
    if total is None:
        total = await asyncio.to_thread(check_lines, source, BATCH_ENDPOINTS)
    done = await asyncio.to_thread(recover_results, results)
    counts = Counter(done.values())
    yield BatchProgress(total, counts[True], counts[False])
    left = _PendingLines(read_lines(source, done))
    coming: asyncio.Queue[tuple[bytes, bool] | None] = asyncio.Queue()
    runners = [
        asyncio.create_task(_run_pending(answer, left, coming))
        for _ in range(min(n_at_once, total - len(done)))
    ]
    try:
        n_running = len(runners)
        while n_running or not coming.empty():
            written = [await coming.get()]
            while not coming.empty():
                written.append(coming.get_nowait())
            n_running -= written.count(None)
            new = [line for line in written if line is not None]
            if new:
                # One flush for all that came meanwhile.
                await asyncio.to_thread(_append, results, b"".join(text for text, _ in new))
                counts.update(is_good for _, is_good in new)
                yield BatchProgress(total, counts[True], counts[False])
        if counts.total() < total:
            raise BatchInterrupted
    finally:
        await end(*runners)


def _append(results: Path, data: bytes) -> None:
    with store_write_errors(results.parent):
        append_durably(results, data)


class _PendingLines:
    """The lines that are still to be run; a thread reads some at a time."""

    def __init__(self, lines: Iterator[BatchLine]) -> None:
        self._lines = lines
        self._buffer: list[BatchLine] = []
        self._lock = asyncio.Lock()

    async def next(self) -> BatchLine | None:
        async with self._lock:
            if not self._buffer:
                self._buffer = await asyncio.to_thread(self._read)
            return self._buffer.pop() if self._buffer else None

    def _read(self) -> list[BatchLine]:
        return list(islice(self._lines, _LINES_PER_READ))[::-1]


async def _run_pending(
    answer: LineAnswerer, left: _PendingLines, coming: asyncio.Queue[tuple[bytes, bool] | None]
) -> None:
    """Run lines one after the other until there are no more; put None at the end."""
    try:
        while (line := await left.next()) is not None:
            try:
                body = await answer(line)
                coming.put_nowait((answer_result(line, body), True))
            except ApiError as error:
                coming.put_nowait((error_result(line, error), False))
    finally:
        coming.put_nowait(None)
