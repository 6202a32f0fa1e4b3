"""The calls that a model asks for: which are carried out, refused or answered from earlier ones.

Every call is checked before anything is called: one with side effects is refused once text from
outside is in the conversation. Time-outs and failures are returned to the model as tool results.
What is read is marked as untrusted for whatever acts on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from paddock.engine.request import ToolCall
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.tasks import run_concurrently, time_limit
from paddock.steps.base import BoundTool, Output, StepError, ToolResult, Tools
from paddock.steps.paths import resolve_path
from paddock.steps.tools.tool import ToolRefused

from .tool_protocol import OfferedTool, ToolCallResult

MOST_CONCURRENT_CALLS = 8
MOST_CALLS_PER_TURN = 16
_GRACE_S = 5.0  # a tool keeps its own deadline; this one is for a tool that does not


class CallOutput(Output):
    turn: int
    tool: str
    server: str | None = None
    arguments: dict[str, Any]
    result: Any = Field(default=None, description="The result; null if it failed.")
    error: str | None = Field(default=None, description="Why it failed or was refused.")


class CallResult(ToolCallResult, frozen=True):
    """The same with its record in the output."""

    output: CallOutput
    is_repeated: bool = False


class ToolCaller(Struct):
    tools: Tools
    offered: Mapping[str, OfferedTool]
    """By the names that the model uses."""
    foreign: dict[str, None] = field(default_factory=dict)
    """Sources of untrusted text in the conversation, in order."""
    _known: dict[str, CallResult] = field(default_factory=dict)
    """Successful calls."""
    _tried: set[str] = field(default_factory=set)
    _refused: set[str] = field(default_factory=set)

    async def carry_out(self, calls: Sequence[ToolCall], turn: int) -> list[CallResult]:
        """Make the calls of a turn; at the same time, unless one has side effects.

        Raises:
            StepError: a tool failed fatally.
        """
        first: dict[str, ToolCall] = {}
        for call in calls:
            first.setdefault(_call_key(call), call)

        async def carry_out_numbered(numbered: tuple[int, ToolCall]) -> CallResult:
            return await self._carry_out_call(numbered[1], turn, numbered[0])

        n_at_once = 1 if any(map(self._has_effects, calls)) else MOST_CONCURRENT_CALLS
        done = await run_concurrently(carry_out_numbered, enumerate(first.values()), n_at_once)
        for result in done:
            call, failed = result.call, result.output.error is not None
            offer = self.offered.get(call.name)
            is_refusal = result.output.error == _not_allowed_text(call.name)
            if offer is not None and offer.returns_untrusted and not is_refusal:
                self.foreign[f"the results of '{result.output.tool}'"] = None
            if self._has_effects(call) and not failed:
                # Earlier results may be stale now, and failed calls may succeed.
                known = self._known.items()
                self._known = {key: kept for key, kept in known if self._has_effects(kept.call)}
            if not failed:
                self._known.setdefault(_call_key(call), result)
            self._tried.add(_call_key(call))
        results = dict(zip(first, done, strict=True))
        # Equal calls of a turn are made once and answered twice: each has its id.
        return [replace(results[_call_key(call)], call=call) for call in calls]

    def _has_effects(self, call: ToolCall) -> bool:
        offer = self.offered.get(call.name)
        return offer is not None and offer.bound is not None and offer.bound.has_effects

    async def _carry_out_call(self, call: ToolCall, turn: int, number: int) -> CallResult:
        offer = self.offered.get(call.name)
        tool = offer.bound if offer is not None else None
        output = CallOutput(
            turn=turn,
            tool=tool.name if tool is not None else call.name,
            server=tool.server if tool is not None else None,
            arguments=dict(call.arguments),
        )
        if offer is None or tool is None:
            why = f"There is no tool '{call.name}'. There are: {', '.join(self.offered)}."
            return _failed_call(call, output, why)
        if number >= MOST_CALLS_PER_TURN:
            why = f"Not called: at most {MOST_CALLS_PER_TURN} tools are called at once."
            return _failed_call(call, output, why)
        before = self._known.get(_call_key(call))
        if before is not None:
            text = (
                f"You have made this call before. Do not repeat it: use its result, or answer.\n"
                f"{before.text}"
            )
            repeated = output.model_copy(update={"result": before.output.result})
            return CallResult(call, text, repeated, is_repeated=True)
        if tool.has_effects and self.foreign and not offer.may_be_tainted:
            if tool.name not in self._refused:
                self._refused.add(tool.name)
                server = f", server: {tool.server}" if tool.server else ""
                self.tools.log.note(
                    f"the model wanted to call '{tool.name}', which has side effects, in a "
                    f"conversation with untrusted text ({', '.join(self.foreign)}); it was "
                    f"refused. If that text may make it do so, write "
                    f"`{{name: {tool.name}{server}, allow: tainted}}`."
                )
            refused = _failed_call(call, output, _not_allowed_text(call.name))
            return replace(refused, is_repeated=_call_key(call) in self._tried)
        result = await self._called(tool, call)
        if result.is_error:
            is_repeated = _call_key(call) in self._tried  # a retry may succeed, but not forever
            return replace(_failed_call(call, output, result.text), is_repeated=is_repeated)
        for path in _documents_read_by(tool, offer.root, result.value):
            await self.tools.files.outputs.note_file_read(
                resolve_path(self.tools.files.roots, path)
            )
        return CallResult(call, result.text, output.model_copy(update={"result": result.value}))

    async def _called(self, tool: BoundTool, call: ToolCall) -> ToolResult:
        # Whether a call is made once for an item, however often the item is restarted
        if tool.server is None and tool.name in ("now", "http.get"):
            is_called_once = tool.name == "now"
        else:
            is_called_once = tool.has_effects
        if not is_called_once:
            return await _call_within_time(tool, call.arguments)
        item = self.tools.item
        request = {
            "tool": tool.name,
            "server": tool.server,
            "arguments": dict(call.arguments),
            "item": [item.owner, item.step, item.key, item.attempt],
        }

        async def do() -> dict[str, Any]:
            result = await _call_within_time(tool, call.arguments)
            if result.is_error:
                raise ToolRefused(result)  # not recorded: it may succeed the next time
            return {"text": result.text, "value": result.value}

        try:
            return ToolResult(**await self.tools.calls.memo.once("turn", request, do))
        except ToolRefused as refusal:
            return refusal.result


def _documents_read_by(tool: BoundTool, root: str, value: Any) -> list[str]:
    """Return the documents that a built-in tool has read: the answer depends on them."""
    if tool.server is not None or tool.name not in ("files.read", "files.search"):
        return []
    found = value if isinstance(value, list) else [value]
    names = (document.get("path") for document in found if isinstance(document, Mapping))
    return list(dict.fromkeys(f"{root}/{name}" for name in names if isinstance(name, str)))


async def _call_within_time(tool: BoundTool, arguments: Mapping[str, Any]) -> ToolResult:
    try:
        async with time_limit(tool.timeout_s + _GRACE_S):
            return await tool.call(dict(arguments))
    except TimeoutError:
        return ToolResult(f"It gave no result within {tool.timeout_s:g} s.", is_error=True)
    except StepError as error:
        if error.is_fatal:
            raise
        return ToolResult(error.reason, is_error=True)


def _failed_call(call: ToolCall, output: CallOutput, why: str) -> CallResult:
    return CallResult(call, f"Error: {why}", output.model_copy(update={"error": why}))


def _not_allowed_text(tool: str) -> str:
    return f"'{tool}' is not allowed here, since it changes something. Go on without it."


def _call_key(call: ToolCall) -> str:
    return f"{call.name}\n{json.dumps(call.arguments, sort_keys=True, ensure_ascii=False)}"
