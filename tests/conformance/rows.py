"""The wire contract as tables: what is sent, and what must come back.

A body that is sent may be an object (written as JSON), bytes as they are, or nothing. What comes
back is compared as far as a row says: an object whole, a text whole, a pattern where it is one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(frozen=True)
class Row:
    """One line of the contract."""

    claim: str
    ask: str
    """Method and path."""
    send: Any = None
    status: int = 200
    body: Any = None
    """None: not looked at; a `re.Pattern` must be found in the text."""
    error: str | None = None
    """Short for the body `{"error": …}`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Answered ones; a value ending in `*` is a beginning."""
    with_headers: Mapping[str, str] = field(default_factory=dict)
    """Sent ones."""

    def __str__(self) -> str:
        return f"{self.ask}: {self.claim}"


def ids(rows: Sequence[Row]) -> list[str]:
    return [str(row) for row in rows]


def check(client: httpx.Client, row: Row) -> httpx.Response:
    method, _, path = row.ask.partition(" ")
    content = row.send if isinstance(row.send, bytes | type(None)) else json.dumps(row.send)
    answer = client.request(method, path, content=content, headers=dict(row.with_headers))
    shown = f"{row}\n{answer.status_code} {answer.text[:2000]}"
    assert answer.status_code == row.status, shown
    for name, value in row.headers.items():
        told = answer.headers.get(name, "")
        if value.endswith("*"):
            assert told.startswith(value[:-1]), f"{shown}\n{name}: {told}"
        else:
            assert told == value, f"{shown}\n{name}: {told}"
    wanted = {"error": row.error} if row.error is not None else row.body
    if isinstance(wanted, re.Pattern):
        assert wanted.search(answer.text), shown
    elif isinstance(wanted, str):
        assert answer.text == wanted, shown
    elif wanted is not None:
        assert answer.json() == wanted, shown
    return answer
