"""Turns of a conversation and tools, as Ollama's JSON has them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from paddock.engine.api.bodies import fields, object_of, objects_of, parse, text_of
from paddock.engine.api.errors import ApiError
from paddock.engine.request import Chunk, Message, Tool, ToolCall

from .asking import read_images


def read_message(raw: Mapping[str, Any]) -> Message:
    """Read one turn.

    Raises:
        ApiError: 400, a member has the wrong type.
    """
    body = fields(raw)
    return Message(
        text_of(body, "role").lower(),
        text_of(body, "content"),
        text_of(body, "thinking"),
        read_images(body),
        tuple(_read_call(one) for one in objects_of(body, "tool_calls")),
        text_of(body, "tool_name") or text_of(body, "name"),
        text_of(body, "tool_call_id"),
    )


def _read_call(raw: Mapping[str, Any]) -> ToolCall:
    body = fields(raw)
    function = fields(object_of(body, "function"))
    arguments = function.get("arguments")
    if isinstance(arguments, str):  # as OpenAI writes them; many programs pass on what they got
        arguments = parse(arguments or "{}")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise ApiError(400, "the `arguments` of a tool call must be an object")
    return ToolCall(text_of(function, "name"), arguments, text_of(body, "id"))


def read_tools(tools: Iterable[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """Read the tools that a request offers.

    Raises:
        ApiError: 400, a member has the wrong type, or a function has no name.
    """
    return tuple(_read_tool(fields(one)) for one in tools)


def _read_tool(body: Mapping[str, Any]) -> Tool:
    function = fields(object_of(body, "function"))
    name = text_of(function, "name")
    if not name:
        raise ApiError(400, "a tool needs a `function` with a `name`")
    return Tool(name, text_of(function, "description"), object_of(function, "parameters"))


@dataclass(slots=True)
class CallNumbers:
    """Counts the calls of one answer."""

    n_told: int = 0

    def next(self) -> int:
        """Give a call's place among them, from 0."""
        self.n_told += 1
        return self.n_told - 1


def written_message(chunk: Chunk, numbers: CallNumbers) -> dict[str, Any]:
    """Write a piece of an answer as a turn."""
    told: dict[str, Any] = {"role": "assistant", "content": chunk.text}
    if chunk.reasoning:
        told["thinking"] = chunk.reasoning
    if chunk.tool_calls:
        told["tool_calls"] = [written_call(one, numbers.next()) for one in chunk.tool_calls]
    return told


def written_call(call: ToolCall, index: int) -> dict[str, Any]:
    """Write a call; its id looks as Ollama's do."""
    call_id = call.id if call.id.startswith("call_") else f"call_{call.id.removeprefix('c')}"
    function = {"index": index, "name": call.name, "arguments": dict(call.arguments)}
    return {"id": call_id, "function": function}
