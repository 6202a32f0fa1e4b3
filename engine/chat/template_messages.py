"""The contract of a chat template, and the messages it is given as dictionaries. Pure.

Templates differ in what they take: some refuse a system turn (its text then goes before the next
user turn's), some want user and assistant to alternate (neighbours of one role are joined), some
know no tools (calls and results are then written into ordinary turns, in the tool-call format that
the model is told). `template_probe` finds out which rules a template has.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from paddock.engine.request import Message, Tool, ToolCall

from .tool_formats import ToolCallFormat

TemplateTurn = dict[str, Any]


class TemplateRefused(Exception):
    """The template does not take this conversation; the message is its own."""


class TemplateExhausted(TemplateRefused):
    """The template took more time or memory than it may: it will do so again."""


class CompiledTemplate(Protocol):
    """One compiled template."""

    @property
    def source(self) -> str:
        """Its text."""
        ...

    def render(
        self,
        turns: Sequence[TemplateTurn],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        is_open: bool = True,
        **variables: Any,
    ) -> str:
        """Render a conversation; `is_open`: the assistant is to speak next.

        Raises:
            Refused: in the template's own words.
        """
        ...


MEDIA_MARK = "<__media__>"
"""What stands for an image in a prompt (libmtmd's own default mark)."""


@dataclass(frozen=True, slots=True)
class TurnRules:
    """What a template takes; the defaults are the common case."""

    takes_system: bool = True
    alternates: bool = False
    shows_tools: bool = True
    shows_calls: bool = True
    """Whether it writes calls of earlier turns."""
    shows_results: bool = True
    """Whether a tool's result has a turn of its own."""
    single_calls: bool = False
    """One call in a turn; several become several turns."""
    arguments_as_text: bool = False
    null_content: bool = False
    """A turn that only calls must have no content at all."""
    typed_content: bool = False
    """Content must be a list of parts."""
    short_ids: bool = False
    """Ids must have nine letters or digits (Mistral)."""
    thinking_key: bool = False
    """Reasoning goes under `thinking` (gpt-oss), and not beside content in a turn that calls."""


def tool_definitions(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Return tools as OpenAI's API has them."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters) or {"type": "object", "properties": {}},
            },
        }
        for tool in tools
    ]


def tools_in_words(tools: Sequence[Tool], form: ToolCallFormat) -> str:
    """Tell of tools in words, for a template that cannot."""
    lines = "\n".join(json.dumps(one, ensure_ascii=False) for one in tool_definitions(tools))
    example = form.write(ToolCall("<function-name>", {"<argument-name>": "<value>"}, "<id>"))
    return (
        "You may call one or more functions. Their signatures stand here as JSON:\n"
        f"<tools>\n{lines}\n</tools>\n"
        f"To call a function, answer with exactly this form:\n{example}\n"
        "Its result then comes between <tool_response> tags."
    )


def template_turns(
    messages: Sequence[Message], tools: Sequence[Tool], wants: TurnRules, form: ToolCallFormat
) -> list[TemplateTurn]:
    """Write a conversation for a template."""
    told = list(messages)
    if tools and not wants.shows_tools:
        told = _with_system_text(told, tools_in_words(tools, form))
    told = [_tools_as_text(one, wants, form) for one in told]
    if not wants.takes_system:
        told = _without_system(told)
    if wants.alternates:
        told = _joined_neighbours(told)
    if wants.single_calls:
        told = list(_split_calls(told))
    return [_template_turn(one, wants) for one in told]


def _with_system_text(messages: list[Message], text: str) -> list[Message]:
    if messages and messages[0].role == "system":
        first = messages[0]
        content = f"{first.content}\n\n{text}" if first.content else text
        return [replace(first, content=content), *messages[1:]]
    return [Message("system", text), *messages]


def _tools_as_text(message: Message, wants: TurnRules, form: ToolCallFormat) -> Message:
    """Write into ordinary turns what the template has no turn for."""
    if message.role == "tool" and not wants.shows_results:
        return Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
    if not message.tool_calls or wants.shows_calls:
        return message
    calls = "\n".join(form.write(call) for call in message.tool_calls)
    text = f"{message.content}\n\n{calls}" if message.content else calls
    return replace(message, content=text, tool_calls=())


def _without_system(messages: list[Message]) -> list[Message]:
    """Put what a system turn says before the next user turn's text."""
    kept: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.role == "system":
            waiting.append(message.content)
        elif message.role == "user" and waiting:
            kept.append(replace(message, content="\n\n".join([*waiting, message.content])))
            waiting = []
        else:
            kept.append(message)
    if waiting:
        kept.append(Message("user", "\n\n".join(waiting)))
    return kept


def _joined_neighbours(messages: list[Message]) -> list[Message]:
    kept: list[Message] = []
    for message in messages:
        last = kept[-1] if kept else None
        if last is None or last.role != message.role or message.role == "tool":
            kept.append(message)
            continue
        kept[-1] = replace(
            last,
            content="\n\n".join(filter(None, (last.content, message.content))),
            images=last.images + message.images,
            tool_calls=last.tool_calls + message.tool_calls,
        )
    return kept


def _split_calls(messages: list[Message]) -> Iterator[Message]:
    """Part a turn of several calls, each followed by its own result."""
    left = list(messages)
    while left:
        message = left.pop(0)
        if len(message.tool_calls) < 2:
            yield message
            continue
        results = []
        while left and left[0].role == "tool":
            results.append(left.pop(0))
        for number, call in enumerate(message.tool_calls):
            own = replace(message, tool_calls=(call,))
            yield own if number == 0 else replace(own, content="", reasoning="")
            yield from _tool_results(call, number, results)


def _tool_results(call: ToolCall, number: int, results: list[Message]) -> list[Message]:
    by_id = [one for one in results if call.id and one.tool_call_id == call.id]
    return by_id or results[number : number + 1]


def _template_turn(message: Message, wants: TurnRules) -> TemplateTurn:
    content: Any = MEDIA_MARK * len(message.images) + message.content
    if wants.typed_content:
        content = [{"type": "text", "text": content}]
    turn: TemplateTurn = {"role": message.role, "content": content}
    if message.reasoning:
        turn["thinking" if wants.thinking_key else "reasoning_content"] = message.reasoning
    if message.role == "tool":
        turn["name"] = message.tool_name
        turn["tool_call_id"] = _fitting_call_id(message.tool_call_id, wants)
    if message.tool_calls:
        turn["tool_calls"] = [_call_value(one, wants) for one in message.tool_calls]
        if wants.thinking_key and message.reasoning:
            turn["content"] = ""
        if wants.null_content and not message.content:
            turn["content"] = None
    return turn


def _call_value(call: ToolCall, wants: TurnRules) -> dict[str, Any]:
    arguments: str | Mapping[str, Any] = dict(call.arguments)
    if wants.arguments_as_text:
        arguments = json.dumps(arguments, ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    return {"type": "function", "id": _fitting_call_id(call.id, wants), "function": function}


def _fitting_call_id(call_id: str, wants: TurnRules) -> str:
    if not wants.short_ids or re.fullmatch(r"[A-Za-z0-9]{9}", call_id):
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:9]
