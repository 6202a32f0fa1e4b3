"""A tool that can be called, before the ledger and a deadline are put around it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from paddock.steps.roots import Roots
from paddock.steps.step import Readers
from paddock.steps.toolset import ToolResult

MOST_CHARACTERS = 1_000_000
"""Of a result: what is more helps no model, and would fill the ledger."""
DEFAULT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Within:
    """What a built-in tool may reach besides its arguments."""

    roots: Roots
    readers: Readers | None = None
    """None: a process is started for each document."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. `keeps` says that its result depends on nothing but what it is asked."""

    name: str
    description: str
    schema: Mapping[str, Any]
    has_effects: bool
    timeout_s: float
    do: Callable[[Mapping[str, Any]], Awaitable[ToolResult]]
    keeps: bool = False
    server: str | None = None
    digest: str = ""
    """What besides its name and its arguments decides the result: a file's content."""
    turn: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """What a call waits for before its time counts: room among others, a process that is there."""


def result_of(value: Any, text: str | None = None, *, is_error: bool = False) -> ToolResult:
    """Give plain data as a result; one that is too large is an error that says so.

    >>> result_of({"a": 1}).text, result_of("so").text
    ('{"a": 1}', 'so')
    """
    if text is None:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) > MOST_CHARACTERS:
        what = f"the result has {len(text):,} characters, and {MOST_CHARACTERS:,} are the most."
        return ToolResult(what, None, is_error=True)
    return ToolResult(text, value, is_error)


def refusal(text: str) -> ToolResult:
    """Give the sentence of a tool that ran and said no."""
    return ToolResult(text, None, is_error=True)
