"""The lines of a batch: JSON objects that each ask one endpoint, and what was answered.

Knows no pool. The form is that of OpenAI's guide to the Batch API: `custom_id`, `method`, `url`
and `body` come in; `id`, `custom_id`, `response` and `error` go out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.engine.api.bodies import fields, parse_object
from paddock.engine.api.errors import ApiError
from paddock.engine.api.openai.calls import new_id
from paddock.engine.api.openai.refusals import error_value
from paddock.engine.api.streaming import dumps
from paddock.engine.errors import EngineError

MOST_FAULTS = 100
"""Told of one file; who made all its lines alike wrong need not read them all."""


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a batch."""

    number: int
    custom_id: str
    url: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a line."""

    line: int
    code: str
    message: str
    param: str | None = None


class BadLines(EngineError):
    """A file that is no batch, with every fault of its lines (at most 100)."""

    def __init__(self, path: str, faults: Sequence[Fault]) -> None:
        self.path = path
        self.faults = tuple(faults)
        told = "\n".join(f"{path}:{one.line}: {one.message}" for one in self.faults)
        super().__init__(told)


def check_lines(path: Path, urls: Sequence[str]) -> int:
    """Read a whole file before anything of it is run, and tell how many requests it has.

    Args:
        path: UTF-8, one JSON object on each line; empty lines are skipped.
        urls: the endpoints that its lines may ask.

    Raises:
        BadLines: with every fault.
    """
    faults: list[Fault] = []
    seen: dict[str, int] = {}
    for number, text in _texts(path):
        found = _read(number, text, urls)
        if isinstance(found, Line) and found.custom_id in seen:
            said = f"the custom_id '{_short(found.custom_id)}' stands on line "
            found = Fault(number, "duplicate_custom_id", f"{said}{seen[found.custom_id]} too",
                          "custom_id")  # fmt: skip
        if isinstance(found, Fault):
            faults.append(found)
            if len(faults) == MOST_FAULTS:
                break
        else:
            seen[found.custom_id] = number
    if not faults and not seen:
        faults.append(Fault(1, "empty_file", "the file has no requests"))
    if faults:
        raise BadLines(path.name, faults)
    return len(seen)


def read_lines(path: Path, done: Mapping[str, bool]) -> Iterator[Line]:
    """Give the requests of a file that was checked, without those that are done."""
    for number, text in _texts(path):
        found = _read(number, text, ())
        if isinstance(found, Line) and found.custom_id not in done:
            yield found


def _texts(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if text.strip():
                yield number, text


def _read(number: int, text: bytes, urls: Sequence[str]) -> Line | Fault:
    """Read a line; no `urls`: any may be asked."""
    try:
        value = parse_object(text)
    except ApiError as error:
        return Fault(number, "invalid_json_line", error.message)
    custom_id, url, body = value.get("custom_id"), value.get("url"), value.get("body")
    if not isinstance(custom_id, str) or not custom_id:
        said = "the `custom_id` must be a text that says which request this is"
        return Fault(number, "missing_required_parameter", said, "custom_id")
    if value.get("method", "POST") != "POST":
        return Fault(number, "invalid_method", "the `method` must be POST", "method")
    if urls and url not in urls:
        known = ", ".join(urls)
        said = f"the `url` must be {known}, not {_short(json.dumps(url))}"
        return Fault(number, "invalid_url", said, "url")
    if not isinstance(body, dict):
        return Fault(number, "missing_required_parameter", "the `body` must be an object", "body")
    asked = fields(body)
    if not isinstance(asked.get("model"), str) or not asked["model"]:
        said = "the `body` must name a `model`"
        return Fault(number, "missing_required_parameter", said, "body.model")
    return Line(number, custom_id, str(url), asked)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


# Results


def answer_line(line: Line, body: Mapping[str, Any]) -> bytes:
    """Write what a request was answered."""
    return _written(line.custom_id, 200, body)


def failure_line(line: Line, error: ApiError) -> bytes:
    """Write what a request was refused with."""
    return _written(line.custom_id, error.status, error_value(error))


def _written(custom_id: str, status: int, body: Mapping[str, Any]) -> bytes:
    response = {"status_code": status, "request_id": new_id("req_"), "body": body}
    value = {
        "id": new_id("batch_req_"),
        "custom_id": custom_id,
        "response": response,
        "error": None,
    }
    return dumps(value) + b"\n"


def expired_line(line: Line) -> bytes:
    """Write that a request was not begun in time."""
    error = {
        "code": "batch_expired",
        "message": "This request could not be executed before the completion window expired.",
    }
    value = {"id": new_id("batch_req_"), "custom_id": line.custom_id, "response": None}
    return dumps({**value, "error": error}) + b"\n"


def is_answer(result: Mapping[str, Any]) -> bool:
    """Tell whether a result is what was asked for, and no error."""
    response = result.get("response")
    return isinstance(response, dict) and response.get("status_code") == 200


def recover(path: Path) -> dict[str, bool]:
    """Tell which requests have a result already, and whether it is an answer.

    What a killed process left of a last line is cut off, so that more can be written behind it.

    Raises:
        BadLines: the file holds something else; it was left as it is.
    """
    done: dict[str, bool] = {}
    if not path.exists():
        return done
    whole = 0
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if _is_torn(text):
                break
            result = _result(text)
            if result is None:
                said = "this line is no result of a batch; write the results to another file"
                raise BadLines(path.name, [Fault(number, "not_a_result", said)])
            whole += len(text)
            if result:
                done[str(result["custom_id"])] = is_answer(result)
    if whole < path.stat().st_size:
        os.truncate(path, whole)
    return done


_BEGINNING = b'{"id":"batch_req_'


def _is_torn(text: bytes) -> bool:
    """Tell whether this is the beginning of a result, and not its end."""
    return not text.endswith(b"\n") and text[: len(_BEGINNING)] == _BEGINNING[: len(text)]


def _result(text: bytes) -> dict[str, Any] | None:
    """Read a line of results; empty: the line is; None: it is no result."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and "custom_id" in value else None


def read_results(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Give every result, as it is written and as a value."""
    with path.open("rb") as file:
        for text in file:
            result = _result(text)
            if result:
                yield text, result
