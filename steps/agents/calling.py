"""Carry out the calls of a turn: several at once, each bounded, and never what is not allowed.

A conversation into which text of others has come can be steered by whoever wrote it. So a tool
that changes something is called there only where the pipeline's author allowed it for this tool.
Knows no models.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import Field

from paddock.engine.request import ToolCall
from paddock.steps.places import place
from paddock.steps.step import Output, StepError, Tools
from paddock.steps.time_limits import time_limit
from paddock.steps.toolset import BoundTool, ToolResult

from .offering import Offer

AT_ONCE = 8
MOST_IN_A_TURN = 16
_GRACE_S = 5.0  # a tool keeps its own deadline; this one is for a tool that does not


class CallOutput(Output):
    """One call that the model made, and what came of it."""

    turn: int
    tool: str
    server: str | None = None
    arguments: dict[str, Any]
    result: Any = Field(default=None, description="What it gave; null where it failed.")
    error: str | None = Field(default=None, description="Why it failed, or was not done.")


@dataclass(frozen=True, slots=True)
class Done:
    """A call, what is told to the model of it, and what the step gives."""

    call: ToolCall
    text: str
    output: CallOutput
    is_repeated: bool = False


@dataclass
class Hands:
    """Calls the tools of one conversation, and remembers what it has called."""

    tools: Tools
    offered: Mapping[str, Offer]
    """By the names that the model knows."""
    foreign: dict[str, None] = field(default_factory=dict)
    """Where text of others in the conversation comes from, in order."""
    _known: dict[str, Done] = field(default_factory=dict)
    """Calls that went well."""
    _tried: set[str] = field(default_factory=set)
    _refused: set[str] = field(default_factory=set)

    async def carry_out(self, calls: Sequence[ToolCall], turn: int) -> list[Done]:
        """Do what a turn asks for, in its order; calls that change nothing go at the same time.

        Raises:
            StepError: a tool says that going on is pointless.
        """
        gate = asyncio.Semaphore(self._at_once(calls))
        first = {_key(call): call for call in reversed(calls)}

        async def one(number: int, call: ToolCall) -> Done:
            async with gate:
                return await self._one(call, turn, number)

        tasks = {
            key: asyncio.create_task(one(number, first[key]))
            for number, key in enumerate(dict.fromkeys(map(_key, calls)))
        }
        try:
            made = dict(zip(tasks, await asyncio.gather(*tasks.values()), strict=True))
        except BaseException:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            raise
        for each in made.values():
            self._note(each)
        # The same call twice in one turn is made once, and answered twice: each has its id.
        return [replace(made[_key(call)], call=call) for call in calls]

    def _at_once(self, calls: Sequence[ToolCall]) -> int:
        """Let calls that change something come one after the other, in the model's order."""
        bound = [offer.bound for call in calls if (offer := self.offered.get(call.name))]
        return 1 if any(tool is not None and tool.has_effects for tool in bound) else AT_ONCE

    def _note(self, done: Done) -> None:
        """Remember a call, and whether its result was written by others."""
        offer = self.offered.get(done.call.name)
        if offer is not None and offer.brings_text and not self._is_refusal(done):
            self.foreign[f"the results of '{done.output.tool}'"] = None
        tool = offer.bound if offer is not None else None
        if tool is not None and tool.has_effects and done.output.error is None:
            # What was read before may be otherwise now, and what failed may succeed.
            self._known = {key: one for key, one in self._known.items() if self._has_effects(one)}
        if done.output.error is None:
            self._known.setdefault(_key(done.call), done)
        self._tried.add(_key(done.call))

    def _has_effects(self, done: Done) -> bool:
        offer = self.offered.get(done.call.name)
        return offer is not None and offer.bound is not None and offer.bound.has_effects

    def _is_refusal(self, done: Done) -> bool:
        return done.output.error == _not_allowed(done.call.name)

    async def _one(self, call: ToolCall, turn: int, number: int) -> Done:
        offer = self.offered.get(call.name)
        tool = offer.bound if offer is not None else None
        output = CallOutput(
            turn=turn,
            tool=tool.name if tool is not None else call.name,
            server=tool.server if tool is not None else None,
            arguments=dict(call.arguments),
        )
        if offer is None or tool is None:
            known = ", ".join(self.offered)
            return _failed(call, output, f"There is no tool '{call.name}'. There are: {known}.")
        if number >= MOST_IN_A_TURN:
            why = f"Not called: at most {MOST_IN_A_TURN} tools are called at once."
            return _failed(call, output, why)
        before = self._known.get(_key(call))
        if before is not None:
            return _repeated(call, output, before)
        if tool.has_effects and self.foreign and not offer.may_be_tainted:
            self._tell_refusal(tool)
            refused = _failed(call, output, _not_allowed(call.name))
            return replace(refused, is_repeated=_key(call) in self._tried)
        result = await self._called(tool, call)
        if result.is_error:
            is_repeated = _key(call) in self._tried  # it may have passed; but not for ever
            return replace(_failed(call, output, result.text), is_repeated=is_repeated)
        for path in _read_by(tool, offer.root, result.value):
            await self.tools.outputs.reads_file(place(self.tools.roots, path))
        return Done(call, result.text, output.model_copy(update={"result": result.value}))

    def _tell_refusal(self, tool: BoundTool) -> None:
        if tool.name in self._refused:
            return
        self._refused.add(tool.name)
        server = f", server: {tool.server}" if tool.server else ""
        self.tools.log.note(
            f"the model wanted to call '{tool.name}', which changes something, in a conversation "
            f"that holds text of others ({', '.join(self.foreign)}); it was refused. If that text "
            f"may make it do so, write `{{name: {tool.name}{server}, allow: tainted}}`."
        )

    async def _called(self, tool: BoundTool, call: ToolCall) -> ToolResult:
        """Call a tool; what changed something for this item is not done again after a kill."""
        if not _is_once(tool):
            return await _within_time(tool, call.arguments)
        item = self.tools.item
        asked = {
            "tool": tool.name,
            "server": tool.server,
            "arguments": dict(call.arguments),
            "item": [item.owner, item.step, item.key, item.attempt],
        }

        async def do() -> dict[str, Any]:
            result = await _within_time(tool, call.arguments)
            if result.is_error:
                raise _SaidNo(result)  # not kept: it may go well the next time
            return {"text": result.text, "value": result.value}

        try:
            return ToolResult(**await self.tools.memo.once("turn", asked, do))
        except _SaidNo as no:
            return no.result


def _is_once(tool: BoundTool) -> bool:
    """Tell whether a call is made once for an item, however often its work is begun again.

    That is what changes something; and the time, or nothing that follows could be found again.
    A page that is fetched again has changed nothing.
    """
    if tool.server is None and tool.name in ("now", "http.get"):
        return tool.name == "now"
    return tool.has_effects


def _read_by(tool: BoundTool, root: str, value: Any) -> list[str]:
    """Name the documents that a built-in tool has read: what they hold decides the answer."""
    if tool.server is not None or tool.name not in ("files.read", "files.search"):
        return []
    found = value if isinstance(value, list) else [value]
    names = (one.get("path") for one in found if isinstance(one, Mapping))
    return list(dict.fromkeys(f"{root}/{name}" for name in names if isinstance(name, str)))


class _SaidNo(Exception):
    def __init__(self, result: ToolResult) -> None:
        self.result = result
        super().__init__(result.text)


async def _within_time(tool: BoundTool, arguments: Mapping[str, Any]) -> ToolResult:
    """Call a tool; that it is late or cannot be run is a result as well: the model goes on."""
    try:
        async with time_limit(tool.timeout_s + _GRACE_S):
            return await tool.call(dict(arguments))
    except TimeoutError:
        return ToolResult(f"It gave no result within {tool.timeout_s:g} s.", is_error=True)
    except StepError as error:
        if error.is_fatal:
            raise
        return ToolResult(error.reason, is_error=True)


def _failed(call: ToolCall, output: CallOutput, why: str) -> Done:
    return Done(call, f"Error: {why}", output.model_copy(update={"error": why}))


def _repeated(call: ToolCall, output: CallOutput, before: Done) -> Done:
    text = (
        f"You have made this call before. Do not repeat it: use its result, or answer.\n"
        f"{before.text}"
    )
    made = output.model_copy(update={"result": before.output.result})
    return Done(call, text, made, is_repeated=True)


def _not_allowed(tool: str) -> str:
    return f"'{tool}' is not allowed here, since it changes something. Go on without it."


def _key(call: ToolCall) -> str:
    return f"{call.name}\n{json.dumps(call.arguments, sort_keys=True, ensure_ascii=False)}"
