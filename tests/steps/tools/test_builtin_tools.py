"""Built-in tools: what they take is described, and what does not fit is told."""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from paddock.steps.base import Roots, StepError, ToolResult
from paddock.steps.tools import builtin_tools
from paddock.steps.tools.tool import ToolContext
from paddock.steps.tools.tool_names import BUILT_IN_TOOLS, TOOL_OPTIONS
from tests.fakes.tools import FakeLog

ROOTS = Roots(Path("/tmp"), (Path("/tmp"),))


def call(name: str, args: dict[str, Any], options: dict[str, Any] | None = None) -> ToolResult:
    tool = builtin_tools.bind_builtin(name, options or {}, ToolContext(ROOTS, FakeLog()))
    return asyncio.run(tool.do(args))  # type: ignore[arg-type]


def test_every_name_has_its_tool_and_every_option_is_named() -> None:
    assert tuple(sorted(builtin_tools.BUILT_IN_FUNCTIONS)) == BUILT_IN_TOOLS
    options = {
        name: frozenset(tool.options.model_fields)
        for name, tool in builtin_tools.BUILT_IN_FUNCTIONS.items()
    }
    assert {name: one for name, one in options.items() if one} == TOOL_OPTIONS


def test_a_schema_has_nothing_that_only_fills_a_prompt() -> None:
    assert builtin_tools.arguments_schema_of(builtin_tools.CalculatorArguments) == {
        "type": "object",
        "properties": {
            "expression": {
                "type": "string",
                "description": "Arithmetic such as `(1200 * 0.19) + 42.5` or `round(sqrt(2), 3)`.",
            }
        },
        "additionalProperties": False,
        "required": ["expression"],
    }


def test_arguments_that_do_not_fit_are_told_to_the_caller() -> None:
    assert call("calculator", {"expression": "6 * 7"}) == ToolResult("42", 42)
    assert call("calculator", {"expression": "1/3"}).value == pytest.approx(1 / 3)
    assert call("calculator", {}).text == "`expression` is missing; it takes `expression`."
    told = call("calculator", {"expression": "1", "x": 2}).text
    assert told == "`x` is not known; it takes `expression`."
    assert call("calculator", {"expression": 3}).text == "`expression` should be a valid string."
    assert call("calculator", {"expression": "x + 1"}) == ToolResult(
        "'x' is not arithmetic.", None, is_error=True
    )


def test_the_time_is_told_in_a_zone() -> None:
    now = call("now", {"timezone": "Asia/Tokyo"})
    assert datetime.fromisoformat(now.value).utcoffset() is not None
    assert now.value.endswith("+09:00")
    assert now.text.partition(", ")[0].endswith("day")
    assert call("now", {"timezone": "Mars"}).text == (
        "'Mars' is not a time zone; write it like Europe/Paris."
    )


def test_wrong_options_are_the_authors_mistake() -> None:
    with pytest.raises(StepError) as caught:
        call("http.get", {"url": "http://x"})
    assert str(caught.value) == (
        "the options of 'http.get' cannot be used: `hosts` is missing; "
        "it takes `hosts`, `headers`, `max_bytes`, `items`, `next`."
    )


def test_only_what_sends_something_away_has_effects() -> None:
    assert [
        name for name, tool in builtin_tools.BUILT_IN_FUNCTIONS.items() if tool.has_effects
    ] == ["http.get"]
