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
from pathlib import Path
from typing import Any

from paddock.engine.api.body_models import shown
from paddock.engine.api.errors import ApiError, openai_error_body
from paddock.engine.api.json_body import lower_case_keys, parse_object
from paddock.engine.api.openai.chat_completions import new_id
from paddock.engine.api.openai.endpoints import BATCH_ENDPOINTS, answer_batch_line
from paddock.engine.api.openai.requests import ApiCaller
from paddock.engine.api.streaming import dumps
from paddock.engine.backends.local import LocalPool
from paddock.engine.errors import EngineError
from paddock.engine.models.blobs import store_write_errors
from paddock.engine.system.files import append_durably
from paddock.engine.system.records import Struct
from paddock.engine.system.tasks import end
from paddock.engine.system.text import parse_shallow_json

MAX_FAULTS = 100
"""Reported for one file: a mistake in all its lines need not be reported for each."""
MAX_LINE_BYTES = 64 * 1024**2
"""As of a request's body. To parse 270 MB held all other requests up for minutes."""


class BatchLine(Struct, frozen=True):
    custom_id: str
    url: str
    body: Mapping[str, Any]


class LineFault(Struct, frozen=True):
    line: int
    code: str
    message: str
    param: str | None = None


class InvalidBatchFile(EngineError):
    """An invalid batch file, with every fault of its lines (at most 100)."""

    def __init__(self, path: Path, faults: Sequence[LineFault]) -> None:
        self.faults = tuple(faults)
        super().__init__(
            "\n".join(f"{path.name}:{fault.line}: {fault.message}" for fault in faults)
        )


def check_lines(path: Path, urls: Sequence[str]) -> int:
    """Check a whole file of requests for these endpoints; return their number.

    The file has one JSON object on each line; empty lines are skipped.

    Raises:
        InvalidBatchFile: with every fault.
    """
    faults: list[LineFault] = []
    seen: dict[str, int] = {}
    for number, found in _parsed_lines(path, urls):
        if isinstance(found, LineFault):
            faults.append(found)
        elif first := seen.get(found.custom_id):
            message = f"the custom_id '{shown(found.custom_id)}' stands on line {first} too"
            faults.append(LineFault(number, "duplicate_custom_id", message, "custom_id"))
        else:
            seen[found.custom_id] = number
        if len(faults) == MAX_FAULTS:
            break
    if not faults and not seen:
        faults.append(LineFault(1, "empty_file", "the file has no requests"))
    if faults:
        raise InvalidBatchFile(path, faults)
    return len(seen)


def read_lines(path: Path, done: Mapping[str, bool]) -> Iterator[BatchLine]:
    """Yield the requests of a checked file, without those that are done."""
    for _, found in _parsed_lines(path, ()):
        if isinstance(found, BatchLine) and found.custom_id not in done:
            yield found


def _parsed_lines(path: Path, urls: Sequence[str]) -> Iterator[tuple[int, BatchLine | LineFault]]:
    with path.open("rb") as file:
        lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")
        for number, text in enumerate(lines, start=1):
            if len(text) > MAX_LINE_BYTES:
                why = f"the line has more than {MAX_LINE_BYTES:,} bytes"
                raise InvalidBatchFile(path, [LineFault(number, "line_too_large", why)])
            if text.strip():
                yield number, _parse_line(number, text, urls)


def _parse_line(number: int, text: bytes, urls: Sequence[str]) -> BatchLine | LineFault:
    try:
        value = parse_object(text)
    except ApiError as error:
        return LineFault(number, "invalid_json_line", error.message)
    custom_id, url, body = value.get("custom_id"), value.get("url"), value.get("body")
    fields = lower_case_keys(body) if isinstance(body, dict) else {}
    known = f"the `url` must be {', '.join(urls)}, not {shown(json.dumps(url))}"
    missing = "missing_required_parameter"
    for is_right, code, param, message in (
        (isinstance(custom_id, str) and custom_id, missing, "custom_id",
         "the `custom_id` must be a text that says which request this is"),
        (value.get("method", "POST") == "POST", "invalid_method", "method",
         "the `method` must be POST"),
        (not urls or url in urls, "invalid_url", "url", known),
        (isinstance(body, dict), missing, "body", "the `body` must be an object"),
        (isinstance(fields.get("model"), str) and fields["model"], missing, "body.model",
         "the `body` must name a `model`"),
    ):  # fmt: skip
        if not is_right:
            return LineFault(number, code, message, param)
    return BatchLine(str(custom_id), str(url), fields)


_RESULT_PREFIX = b'{"id":"batch_req_'


def answer_result(line: BatchLine, status: int, body: Mapping[str, Any]) -> bytes:
    return _result(line, {"status_code": status, "request_id": new_id("req_"), "body": body}, None)


def expired_result(line: BatchLine) -> bytes:
    message = "This request could not be executed before the completion window expired."
    return _result(line, None, {"code": "batch_expired", "message": message})


def _result(line: BatchLine, response: object, error: object) -> bytes:
    value = {"id": new_id("batch_req_"), "custom_id": line.custom_id}
    return dumps({**value, "response": response, "error": error}) + b"\n"


def recover_results(*paths: Path) -> dict[str, bool]:
    """Return the requests that have a result in these files, and whether it is an answer.

    An incomplete last line, left by a killed process, is cut off.

    Raises:
        InvalidBatchFile: a file holds something else; it is not changed.
    """
    done: dict[str, bool] = {}
    for path in paths:
        n_bytes = 0
        for text, result in read_results(path):
            n_bytes += len(text)
            if result:
                response = result.get("response")
                is_answer = isinstance(response, dict) and response.get("status_code") == 200
                done[str(result["custom_id"])] = is_answer
        if path.exists() and n_bytes < path.stat().st_size:
            os.truncate(path, n_bytes)
    return done


def read_results(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield every complete line of results with its value, empty for an empty line."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                yield text, {}
                continue
            if not text.endswith(b"\n") and text.startswith(_RESULT_PREFIX[: len(text)]):
                return
            try:
                result = parse_shallow_json(text)
            except ValueError:
                result = None
            if not isinstance(result, dict) or "custom_id" not in result:
                message = "this line is no result of a batch; write the results to another file"
                raise InvalidBatchFile(path, [LineFault(number, "not_a_result", message)])
            yield text, result


LINES_AT_ONCE = 64
"""Requests of one run in the pool: more than a model decodes at once, so that its scheduler can
choose prompts with a common prefix."""

_BATCH_CALLER = ApiCaller("batch", waits=True)

LineAnswerer = Callable[[BatchLine], Awaitable[tuple[int, Mapping[str, Any]]]]
"""Returns the status and the body that answer a line."""


class BatchProgress(Struct, frozen=True):
    total: int
    completed: int
    failed: int


class BatchInterrupted(Exception):
    """The pool closed before all lines were done. Another run can continue."""


def answers_of(pool: LocalPool) -> LineAnswerer:
    async def answer(line: BatchLine) -> tuple[int, Mapping[str, Any]]:
        try:
            return 200, await answer_batch_line(pool, line.url, line.body, _BATCH_CALLER)
        except ApiError as error:
            return error.status, openai_error_body(error)

    return answer


async def run_lines(
    answer: LineAnswerer,
    source: Path,
    answers: Path,
    errors: Path,
    *,
    n_lines: int | None = None,
    n_at_once: int = LINES_AT_ONCE,
) -> AsyncGenerator[BatchProgress, None]:
    """Answer every line of `source` that has no result yet, in `answers` or in `errors`.

    Yields the progress at the start, and whenever results were flushed to the disk. `n_lines`:
    their number, if they are checked. Both kinds of results may go to the same file.

    Raises:
        InvalidBatchFile: nothing was run, and the results are unchanged.
        BatchInterrupted: the pool closed.
        EngineError: the results cannot be written.
    """
    total = n_lines
    if total is None:
        total = await asyncio.to_thread(check_lines, source, BATCH_ENDPOINTS)
    done = await asyncio.to_thread(recover_results, *dict.fromkeys((answers, errors)))
    counts = Counter(done.values())
    yield BatchProgress(total, counts[True], counts[False])
    pending, reading = read_lines(source, done), asyncio.Lock()
    finished: asyncio.Queue[tuple[bool, bytes] | None] = asyncio.Queue()

    async def work() -> None:
        try:
            while True:
                async with reading:
                    line = await asyncio.to_thread(next, pending, None)
                if line is None:
                    return
                status, body = await answer(line)
                finished.put_nowait((status == 200, answer_result(line, status, body)))
        finally:
            finished.put_nowait(None)

    workers = [asyncio.create_task(work()) for _ in range(min(n_at_once, total - len(done)))]
    try:
        n_running = len(workers)
        while n_running:
            results = [await finished.get()]
            while not finished.empty():
                results.append(finished.get_nowait())
            n_running -= results.count(None)
            written: dict[Path, bytes] = {}
            for is_good, text in filter(None, results):
                path = answers if is_good else errors
                written[path] = written.get(path, b"") + text
                counts[is_good] += 1
            for path, data in written.items():  # one flush for all that came meanwhile
                await asyncio.to_thread(append_results, path, data)
            yield BatchProgress(total, counts[True], counts[False])
        if counts.total() < total:
            raise BatchInterrupted
    finally:
        await end(*workers)


def append_results(path: Path, data: bytes) -> None:
    with store_write_errors(path.parent):
        append_durably(path, data)
