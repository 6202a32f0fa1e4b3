"""One page of a long list, as OpenAI's clients ask for it: `limit` and `after`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paddock.engine.api.openai.refusals import InvalidValue


def page(
    values: Sequence[Mapping[str, Any]], query: Mapping[str, str], usual: int, most: int
) -> dict[str, Any]:
    """Give the part of a list that a query asks for; each value has an `id`.

    Raises:
        InvalidValue: `limit` is no such number, or nothing has the id `after`.
    """
    limit = _limit(query.get("limit"), usual, most)
    start = _start(values, query.get("after"))
    shown = list(values[start : start + limit])
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": start + limit < len(values),
    }


def _limit(text: str | None, usual: int, most: int) -> int:
    if not text:
        return usual
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:10]) <= most:
        said = f"Invalid value for 'limit': expected an integer from 1 to {most}."
        raise InvalidValue(said, "limit")
    return int(text)


def _start(values: Sequence[Mapping[str, Any]], after: str | None) -> int:
    if not after:
        return 0
    for number, value in enumerate(values):
        if value["id"] == after:
            return number + 1
    raise InvalidValue("Invalid value for 'after': there is no such id in this list.", "after")
