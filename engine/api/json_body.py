"""Read a request's body as JSON, and its fields by type.

`Content-Type` is ignored: `curl -d` sends a wrong one. Keys are matched without regard to case;
half a surrogate pair and bad UTF-8 become U+FFFD. Both are as in Go's decoder, which Ollama uses.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from starlette.requests import Request

from paddock.engine.api.errors import ApiError
from paddock.engine.api.request_log import note_model

PARSE_IN_THREAD_BYTES = 256 * 1024
"""A larger body is parsed beside the event loop: 1 MB takes about 5 ms."""

MOST_LEVELS = 128
"""Of lists and objects in one another; schemas and tools have a dozen."""

_HUGE_NUMBER = re.compile(r"[0-9]{309}|[eE]\+?[0-9]{3}")
"""What a number beyond the range of a double has in it."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_JSON_TYPES = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list",
          dict: "an object", type(None): "null"}  # fmt: skip


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return a request's body.

    Raises:
        ApiError: 413, it is larger than `max_bytes`; what was beyond was not kept.
        starlette.requests.ClientDisconnect: the client went before it had sent it.
    """
    told = request.headers.get("content-length", "")
    if told.isascii() and told.isdigit() and int(told[:20]) > max_bytes:
        raise _too_large(max_bytes)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        parts.append(part)
    return b"".join(parts)


def _too_large(max_bytes: int) -> ApiError:
    text = f"request body too large: at most {max_bytes} bytes are taken"
    return ApiError(413, text, {"Connection": "close"})


async def read_json(request: Request, *, max_bytes: int) -> dict[str, Any]:
    """Return the fields of a request's body, their names in lower case.

    Raises:
        ApiError: 400, there is none, or it is no JSON object; 413, it is too large.
        starlette.requests.ClientDisconnect: the client went before it had sent it.
    """
    body = await read_body(request, max_bytes)
    is_large = len(body) > PARSE_IN_THREAD_BYTES
    told = await asyncio.to_thread(parse_object, body) if is_large else parse_object(body)
    model = told.get("model") or told.get("name")
    note_model(model if isinstance(model, str) else "")
    return told


def parse_object(body: bytes) -> dict[str, Any]:
    """Read one JSON object, its names in lower case; `null` is an empty one, as in Go.

    >>> parse_object(b'{"Model": "smol"}')
    {'model': 'smol'}

    Raises:
        ApiError: 400, with what is wrong.
    """
    if not body.strip():
        raise ApiError(400, "missing request body")
    value = parse_json(body.decode("utf-8-sig", "replace"))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ApiError(400, f"the body must be a JSON object, not {_JSON_TYPES[type(value)]}")
    return lower_case_keys(value)


def parse_json(text: str) -> Any:
    """Read JSON that comes from outside.

    Raises:
        ApiError: 400, with what is wrong.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant, **_number_checks(text))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ApiError(400, f"malformed JSON: {error.msg} ({where})") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # a number of more than 4,300 digits
        raise ApiError(400, f"malformed JSON: {error}") from None
    _check_depth(value)
    return _without_surrogates(value) if "\\u" in text else value


def _check_depth(value: Any) -> None:
    """Refuse what walks that go into themselves, here or in a worker, would not come back from.

    Raises:
        ApiError: 400.
    """
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_LEVELS):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> ApiError:
    return ApiError(400, "malformed JSON: it is nested too deeply")


def _number_checks(text: str) -> dict[str, Any]:
    """Return hooks that refuse numbers beyond a double's range, as Go's decoder does.

    They cost a call for each number, so only a text that may hold such a number gets them.
    """
    if _HUGE_NUMBER.search(text) is None:
        return {}

    def finite(digits: str, kind: type[int | float]) -> int | float:
        if not math.isfinite(float(digits)):
            raise ValueError(f"{digits[:20]}… is too large a number")
        return kind(digits)

    return {
        "parse_float": lambda one: finite(one, float),
        "parse_int": lambda one: finite(one, int),
    }


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _without_surrogates(value: Any) -> Any:
    """Replace halves of surrogate pairs, which no UTF-8 can hold."""
    if isinstance(value, str):
        return _SURROGATE.sub("�", value)
    if isinstance(value, list):
        return [_without_surrogates(one) for one in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(one) for key, one in value.items()}
    return value


def lower_case_keys(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object's members by their names in lower case; of equal ones the last counts."""
    return {name.lower(): one for name, one in value.items()}


# Typed fields: each gives `default` where the field is absent or null


def text_of(body: Mapping[str, Any], name: str, default: str = "") -> str:
    """Return a text.

    Raises:
        ApiError: 400, it is something else.
    """
    value = body.get(name)
    if value is None:
        return default
    return value if isinstance(value, str) else _wrong_type(name, "a text", value)


def flag_of(body: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """Return true or false.

    Raises:
        ApiError: 400, it is something else.
    """
    value = body.get(name)
    if value is None:
        return default
    return value if isinstance(value, bool) else _wrong_type(name, "true or false", value)


def integer_of(body: Mapping[str, Any], name: str) -> int | None:
    """Return a whole number (`2.0` is one), or None.

    Raises:
        ApiError: 400, it is something else.
    """
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return _wrong_type(name, "a whole number", value)


def number_of(body: Mapping[str, Any], name: str) -> float | None:
    """Return a number, or None.

    Raises:
        ApiError: 400, it is something else.
    """
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ApiError(400, f"`{name}` is too large a number") from None
    return _wrong_type(name, "a number", value)


def object_of(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object as it stands; absent: an empty one.

    Raises:
        ApiError: 400, it is something else.
    """
    value = body.get(name)
    if value is None:
        return {}
    return value if isinstance(value, dict) else _wrong_type(name, "an object", value)


def list_of(body: Mapping[str, Any], name: str) -> list[Any]:
    """Return a list of whatever; absent: an empty one.

    Raises:
        ApiError: 400, it is something else.
    """
    value = body.get(name)
    if value is None:
        return []
    return value if isinstance(value, list) else _wrong_type(name, "a list", value)


def texts_of(body: Mapping[str, Any], name: str) -> list[str]:
    """Return a list of texts; absent: an empty one.

    Raises:
        ApiError: 400, it is something else.
    """
    values = list_of(body, name)
    for value in values:
        if not isinstance(value, str):
            _wrong_type(f"{name}[]", "a text", value)
    return values


def objects_of(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a list of objects as they stand; absent: an empty one.

    Raises:
        ApiError: 400, it is something else.
    """
    values = list_of(body, name)
    for value in values:
        if not isinstance(value, dict):
            _wrong_type(f"{name}[]", "an object", value)
    return values


def integers_of(body: Mapping[str, Any], name: str) -> list[int]:
    """Return a list of whole numbers; absent: an empty one.

    Raises:
        ApiError: 400, it is something else.
    """
    values = list_of(body, name)
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool):
            _wrong_type(f"{name}[]", "a whole number", value)
    return values


def _wrong_type(name: str, wanted: str, value: Any) -> NoReturn:
    raise ApiError(400, f"`{name}` must be {wanted}, not {_JSON_TYPES[type(value)]}", param=name)


def decode_base64(text: str, name: str) -> bytes:
    """Return the bytes that a text holds in base64, its padding or not.

    Raises:
        ApiError: 400, it is no base64.
    """
    bare = "".join(text.split())
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, f"`{name}` is not base64: illegal base64 data", param=name) from None
