"""Read a request's body as JSON, and its fields by type, with the error texts of Ollama's API.

What is wrong raises ApiError (400).
`Content-Type` is ignored: `curl -d` sends a wrong one. Keys are matched without regard to case;
half a surrogate pair and bad UTF-8 become U+FFFD. Both are as in Go's decoder, which Ollama uses.
The middleware `BodyLimit` limits the size. OpenAI's endpoints read fields by
`openai.requests.Fields`, because their clients know other error texts and fields by their path.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from starlette.requests import Request

from paddock.engine.api.errors import ApiError
from paddock.engine.api.request_log import note_model

PARSE_IN_THREAD_BYTES = 256 * 1024
"""A larger body is parsed in a thread: 1 MB takes about 5 ms."""

MOST_LEVELS = 128
"""Nesting of lists and objects; schemas and tools have a dozen levels."""

_HUGE_NUMBER = re.compile(r"[0-9]{309}|[eE]\+?[0-9]{3}")
"""Occurs in every number beyond the range of a double."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_JSON_TYPES = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


_T = TypeVar("_T")


async def read_body(request: Request) -> bytes:
    """Return a request's body, of which the request itself keeps no copy."""
    return b"".join([part async for part in request.stream()])


async def read_json(request: Request) -> dict[str, Any]:
    """Return the fields of a request's body, their names in lower case.

    Raises:
        ApiError: 400, there is no body, or it is not a JSON object.
        starlette.requests.ClientDisconnect: the client disconnected before it had sent it.
    """
    body = await read_body(request)
    is_large = len(body) > PARSE_IN_THREAD_BYTES
    fields = await asyncio.to_thread(parse_object, body) if is_large else parse_object(body)
    model = fields.get("model") or fields.get("name")
    note_model(model if isinstance(model, str) else "")
    return fields


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse one JSON object, its names in lower case; `null` is an empty one, as in Go.

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
    try:
        value = json.loads(text, parse_constant=_no_constant, **_number_checks(text))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ApiError(400, f"malformed JSON: {error.msg} ({where})") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # a number of more than 4,300 digits
        raise ApiError(400, f"malformed JSON: {error}") from None
    if not is_shallow(value, MOST_LEVELS):
        raise _too_deep()
    return _without_surrogates(value) if "\\u" in text else value


def is_shallow(value: Any, n_levels: int) -> bool:
    """Return whether lists and objects are nested so little that recursive functions can read them.

    Others would overflow the stack, here or in a worker.
    """
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(n_levels):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return True
    return False


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
    """Return an object with its names in lower case; of equal names the last counts."""
    return {name.lower(): one for name, one in value.items()}


# Fields by type. Absent and null fields have the default. A value of another type raises ApiError
# (400), which names the field.


def _typed(
    body: Mapping[str, Any], name: str, kind: type[_T] | tuple[type[_T], ...], wanted: str
) -> _T | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _wrong_type(name, wanted, value)
    return value


def text_of(body: Mapping[str, Any], name: str) -> str:
    """Return a text; empty where there is none."""
    return _typed(body, name, str, "a text") or ""


def flag_of(body: Mapping[str, Any], name: str, default: bool = False) -> bool:
    value = _typed(body, name, bool, "true or false")
    return default if value is None else value


def integer_of(body: Mapping[str, Any], name: str) -> int | None:
    """Return a whole number (`2.0` is one)."""
    value = body.get(name)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return _typed(body, name, int, "a whole number")


def number_of(body: Mapping[str, Any], name: str) -> float | None:
    value = _typed(body, name, (int, float), "a number")
    try:
        return None if value is None else float(value)
    except OverflowError:
        raise ApiError(400, f"`{name}` is too large a number") from None


def object_of(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object as it is; empty where there is none."""
    return _typed(body, name, dict, "an object") or {}


def list_of(body: Mapping[str, Any], name: str) -> list[Any]:
    """Return a list of any values; empty where there is none."""
    return _typed(body, name, list, "a list") or []


def texts_of(body: Mapping[str, Any], name: str) -> list[str]:
    return _list_of_type(body, name, str, "a text")


def objects_of(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return _list_of_type(body, name, dict, "an object")


def integers_of(body: Mapping[str, Any], name: str) -> list[int]:
    return _list_of_type(body, name, int, "a whole number")


def _list_of_type(body: Mapping[str, Any], name: str, kind: type[_T], wanted: str) -> list[_T]:
    values = list_of(body, name)
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _wrong_type(f"{name}[]", wanted, value)
    return values


def _wrong_type(name: str, wanted: str, value: Any) -> ApiError:
    found = _JSON_TYPES[type(value)]
    return ApiError(400, f"`{name}` must be {wanted}, not {found}", param=name)


def decode_base64(text: str, name: str) -> bytes:
    """Return the bytes of a base64 text, padded or not."""
    bare = "".join(text.split())
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, f"`{name}` is not base64: illegal base64 data", param=name) from None
