"""Read a request's body as JSON; `body_models` reads its fields by type.

What is wrong raises ApiError (400).
`Content-Type` is ignored: `curl -d` sends a wrong one. Keys are matched without regard to case;
half a surrogate pair and bad UTF-8 become U+FFFD. Both are as in Go's decoder, which Ollama uses.
The middleware `BodyLimit` limits the size.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import math
import re
import sys
import zlib
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NoReturn

import msgspec
from starlette.requests import Request

from paddock.engine.api.errors import ApiError
from paddock.engine.api.request_limits import body_too_large
from paddock.engine.api.request_log import note_model
from paddock.engine.api.service import service_of
from paddock.engine.system.text import (
    MOST_JSON_LEVELS,
    NestedTooDeep,
    is_shallow,
    map_texts,
    parse_shallow_json,
)

_ZSTANDARD = import_module("zstandard") if find_spec("zstandard") else None  # optional

PARSE_IN_THREAD_BYTES = 256 * 1024
"""A larger body is parsed in a thread: 1 MB of short texts takes about 5 ms."""

COUNTED_BYTES = 512 * 1024
"""The values of a longer text are counted before any of them is made."""
MOST_VALUES = 320_000
"""Of a long text: OpenAI's embeddings take up to 300,000 token ids. 20 million would take 1.3 GB,
and 6 s in which nothing else runs."""
MOST_FIELDS = 1000
_PART_BYTES = 64 * 1024

_TO_NEXT_VALUE = re.compile(rb'(?:[^",\[{]++|"(?:[^"\\]++|\\.)*+"?)*+(?:[,\[{]|\Z)', re.DOTALL)

_SURROGATE = re.compile("[\ud800-\udfff]")
_TYPE_NAMES: Mapping[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


async def read_body(request: Request) -> bytes | bytearray:
    """Return a request's body, of which the request itself keeps no copy.

    Codex and others compress bodies; the decompressed size counts against the same limit.

    Raises:
        ApiError: 400, it is not compressed so; 413, it is too large decompressed; 415, it has an
            encoding that cannot be read here.
    """
    body = bytearray()  # it grows where it is: another copy of 30 MB takes 12 ms of new memory
    async for part in request.stream():
        body += part
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return body
    max_bytes = service_of(request).settings.max_body_bytes
    return await asyncio.to_thread(_decompressed, body, encoding, max_bytes)


def _decompressed(body: bytes | bytearray, encoding: str, max_bytes: int) -> bytes:
    try:
        if encoding in ("gzip", "x-gzip"):
            whole = gzip.GzipFile(fileobj=io.BytesIO(body)).read(max_bytes + 1)
        elif encoding == "zstd" and _ZSTANDARD is not None:
            reader = _ZSTANDARD.ZstdDecompressor().stream_reader(body, read_across_frames=True)
            try:
                whole = reader.read(max_bytes + 1)
            except _ZSTANDARD.ZstdError as error:
                raise OSError(error) from None
        else:
            readable = "gzip, zstd" if _ZSTANDARD is not None else "gzip"
            why = f"bodies with `Content-Encoding: {encoding[:40]}` are not read here"
            why += f"; send plain JSON or {readable}"
            raise ApiError(415, why, {"Accept-Encoding": readable})
    except (OSError, EOFError, zlib.error) as error:
        raise ApiError(400, f"the body is not {encoding}: {error}") from None
    if len(whole) > max_bytes:
        raise ApiError(413, body_too_large(max_bytes).message)
    return whole


async def read_json(request: Request) -> dict[str, Any]:
    """Return the fields of a request's body, their names in lower case."""
    body = await read_body(request)
    is_large = len(body) > PARSE_IN_THREAD_BYTES
    fields = await asyncio.to_thread(parse_object, body) if is_large else parse_object(body)
    model = fields.get("model") or fields.get("name")
    note_model(model if isinstance(model, str) else "")
    return fields


def parse_object(body: bytes | bytearray) -> dict[str, Any]:
    """Parse one JSON object, its names in lower case; `null` is an empty one, as in Go.

    >>> parse_object(b'{"Model": "smol"}')
    {'model': 'smol'}
    """
    if not body or body.isspace():
        raise ApiError(400, "missing request body")
    value = parse_json(body)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ApiError(400, f"the body must be a JSON object, not {type_name(value)}")
    if len(value) > MOST_FIELDS:
        raise ApiError(400, f"the body has {len(value):,} fields; at most {MOST_FIELDS:,} are read")
    return lower_case_keys(value)


def parse_json(raw: bytes | bytearray) -> Any:
    if len(raw) > COUNTED_BYTES and _has_many_values(raw):
        raise ApiError(400, f"the body has more than {MOST_VALUES:,} values")
    # A third of json's time and memory; what is refused is read again, for the words.
    with suppress(msgspec.MsgspecError, RecursionError):
        value = msgspec.json.decode(raw)
        if is_shallow(value, MOST_JSON_LEVELS) and _is_finite(value):
            return value
    text = raw.decode("utf-8-sig", "replace")
    numbers = {"parse_float": partial(_finite, float), "parse_int": partial(_finite, int)}
    try:
        value = parse_shallow_json(text, parse_constant=_no_constant, **numbers)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ApiError(400, f"malformed JSON: {error.msg} ({where})") from None
    except NestedTooDeep:
        raise ApiError(400, "malformed JSON: it is nested too deeply") from None
    except ValueError as error:  # a number of more than 4,300 digits
        raise ApiError(400, f"malformed JSON: {error}") from None
    if "\\" not in text or "\\u" not in text:  # one sign is found in no time
        return value
    # No UTF-8 can hold the halves of surrogate pairs.
    return map_texts(value, lambda text: _SURROGATE.sub("�", text))


def _has_many_values(raw: bytes | bytearray) -> bool:
    # Signs within texts count at first: 30 MB take 13 ms, and to know the texts 60 ms.
    parts = (raw[at : at + _PART_BYTES] for at in range(0, len(raw), _PART_BYTES))
    if sum(len(part) - len(part.translate(None, b",[{")) for part in parts) <= MOST_VALUES:
        return False
    n_texts = (raw.count(b'"') - raw.count(b'\\"')) // 2
    if n_texts - raw.count(b":") > MOST_VALUES:  # the others are names
        return True
    return any(n > MOST_VALUES for n, _ in enumerate(_TO_NEXT_VALUE.finditer(raw)))


def _is_finite(value: Any) -> bool:
    waiting = [value]
    for found in waiting:
        if isinstance(found, dict | list):
            waiting += found.values() if isinstance(found, dict) else found
        elif isinstance(found, int) and found.bit_length() >= sys.float_info.max_exp:
            return False
    return True


def _finite(kind: type[int | float], digits: str) -> int | float:
    """Refuse numbers beyond a double's range, as Go's decoder does."""
    if not math.isfinite(float(digits)):
        raise ValueError(f"{digits[:20]}… is too large a number")
    return kind(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def type_name(value: Any) -> str:
    return _TYPE_NAMES[type(value)]


def lower_case_keys(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with its names in lower case; of equal names the last counts."""
    return {name.lower(): member for name, member in value.items()}
