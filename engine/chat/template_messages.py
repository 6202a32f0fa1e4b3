"""The contract of a chat template, and messages as the dictionaries that it takes. Pure.

Templates differ: some refuse a system turn (its text then goes before the next user turn's), some
require user and assistant to alternate (neighbours of one role are joined), some know no tools
(tools, calls and results are then written into ordinary turns), some swallow or move a system turn
within a conversation (`place_messages`). `template_probe` finds the rules of a template.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from paddock.engine.errors import BadRequest
from paddock.engine.request import Message, Tool, ToolCall, with_system_text
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.template_limits import MAX_TEXT_CHARS, TemplateMeter

from .tool_call_syntax import ToolCallFormat

TemplateTurn = dict[str, Any]


class TemplateRefused(Exception):
    """The template refuses this conversation; the message is its own."""


class TemplateExhausted(TemplateRefused):
    """The template exceeds its time or memory; trying again does not help."""


CHARS_PER_CTX_TOKEN = 16  # English has 4 to 5, indented code up to 8
CHARS_PER_REQUEST_CHAR = 4  # a template may show a text twice, or escaped
_VALUE_CHARS = 16  # of what stands around one text or number: quotes, indentation, tags


def prompt_meter(n_ctx_tokens: int, *request: Any) -> TemplateMeter:
    """Return a meter for a prompt that is made of the texts of `request`.

    The output may have what the context can hold, and a multiple of the request's own texts: a
    conversation that is too long is rendered all the same, to be counted or truncated. A template
    that multiplies its messages would otherwise print so much that tokenising takes minutes.

    `n_ctx_tokens`: of prompt and answer; 0: unknown, with the limit of any text.
    """
    if not n_ctx_tokens:
        return TemplateMeter()
    n_chars = CHARS_PER_CTX_TOKEN * n_ctx_tokens + CHARS_PER_REQUEST_CHAR * _n_chars(request)
    return TemplateMeter(max_output_chars=min(n_chars, MAX_TEXT_CHARS))


def _n_chars(value: Any) -> int:
    """Return about how many characters a nested value has when it is printed."""
    n_chars = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        n_chars += _VALUE_CHARS
        if isinstance(item, str):
            n_chars += len(item)
        elif isinstance(item, Mapping):
            waiting += [*item, *item.values()]
        elif isinstance(item, list | tuple):
            waiting += item
    return n_chars


MEDIA_MARK = "<__media__>"
"""The mark of an image in a prompt (libmtmd's default)."""


class TurnRules(Struct, frozen=True):
    """What a template accepts; the defaults are the common case."""

    takes_system: bool = True
    alternates: bool = False
    shows_tools: bool = True
    shows_calls: bool = True
    shows_calls_with_text: bool = True
    shows_results: bool = True
    single_calls: bool = False
    """At most one call in a turn; several become several turns."""
    arguments_as_text: bool = False
    null_content: bool = False
    """A turn with calls alone must have null content."""
    typed_content: bool = False
    """Content must be a list of parts."""
    short_ids: bool = False
    """Ids must have nine letters or digits (Mistral)."""
    thinking_key: bool = False
    """Reasoning is under `thinking` (gpt-oss), and excludes content in a turn with calls."""


Place = Literal["only", "first", "second", "late", "late without system"]
"""Where a message is: alone; the first or a later one of those before the dialogue; within it."""


def tool_definitions(tools: Sequence[Tool]) -> list[dict[str, Any]]:
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


def tools_in_words(tools: Sequence[Tool], call_format: ToolCallFormat) -> str:
    """Describe tools in a text, for a template that cannot render them."""
    lines = "\n".join(
        json.dumps(definition, ensure_ascii=False) for definition in tool_definitions(tools)
    )
    example = call_format.write(ToolCall("<function-name>", {"<argument-name>": "<value>"}, "<id>"))
    return (
        "You may call one or more functions. Their signatures stand here as JSON:\n"
        f"<tools>\n{lines}\n</tools>\n"
        f"To call a function, answer with exactly this form:\n{example}\n"
        "Its result then comes between <tool_response> tags."
    )


def place_messages(
    messages: Sequence[Message], carries: Callable[[str, Place], bool]
) -> list[Message]:
    """Return a conversation of which the template swallows and moves no message.

    `carries`: whether a turn of a role arrives at a place. A message that is neither the user's
    nor the assistant's nor a tool's result stays where it is, as

    1. a turn of its role;
    2. a part of the system's or developer's message before it, at the beginning;
    3. a developer's turn for the system, or the other way round;
    4. a user's turn that names its role.

    Raises:
        BadRequest: the template has room for none of these.
    """
    others = {"system": "developer", "developer": "system"}
    n_leading = next((n for n, turn in enumerate(messages) if turn.role in _DIALOGUE), None)
    placed: list[Message] = []
    for number, message in enumerate(messages):
        role, last = message.role, placed[-1] if placed else message
        place: Place = "late" if n_leading else "late without system"
        if n_leading is None or number < n_leading:
            place = "second" if number else "only" if n_leading is None else "first"
        if role in _DIALOGUE or carries(role, place):
            placed.append(message)
        elif place == "second" and role in others and last.role in others:
            placed[-1:] = _joined_neighbours([last, replace(message, role=last.role)])
        elif role in others and carries(others[role], place):
            placed.append(replace(message, role=others[role]))
        elif carries("user", place):
            content = f"<{role}_message>\n{message.content}\n</{role}_message>"
            placed.append(replace(message, role="user", content=content))
        else:
            raise BadRequest(
                f"the model's chat template leaves out message {number + 1}, of the role '{role}'."
                " Put its text into a message of the user."
            )
    return placed


_DIALOGUE = ("user", "assistant", "tool")


def template_turns(
    messages: Sequence[Message],
    tools: Sequence[Tool],
    rules: TurnRules,
    call_format: ToolCallFormat,
) -> list[TemplateTurn]:
    turns = list(messages)
    if tools and not rules.shows_tools:
        turns = with_system_text(turns, tools_in_words(tools, call_format))
    turns = [_tools_as_text(turn, rules, call_format) for turn in turns]
    if not rules.takes_system and turns and turns[0].role == "system":
        text, *turns = turns
        own = [replace(text, role="user")]
        turns = [*_joined_neighbours(own + turns[:1]), *turns[1:]]
    if rules.alternates:
        turns = _joined_neighbours(turns)
    if rules.single_calls:
        turns = list(_split_calls(turns))
    return [_template_turn(turn, rules) for turn in turns]


def _tools_as_text(message: Message, rules: TurnRules, call_format: ToolCallFormat) -> Message:
    """Write calls and results that the template cannot render into ordinary turns."""
    if message.role == "tool" and not rules.shows_results:
        return Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
    is_shown = rules.shows_calls and (rules.shows_calls_with_text or not message.content)
    if not message.tool_calls or is_shown:
        return message
    calls = "\n".join(
        call_format.write(replace(call, id=_fitting_call_id(call.id, rules)))
        for call in message.tool_calls
    )
    text = f"{message.content}\n\n{calls}" if message.content else calls
    return replace(message, content=text, tool_calls=())


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
    """Split a turn of several calls into turns of one call, each followed by its result."""
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
            by_id = [r for r in results if call.id and r.tool_call_id == call.id]
            yield from by_id or results[number : number + 1]


def _template_turn(message: Message, rules: TurnRules) -> TemplateTurn:
    content: Any = MEDIA_MARK * len(message.images) + message.content
    if rules.typed_content:
        content = [{"type": "text", "text": content}]
    turn: TemplateTurn = {"role": message.role, "content": content}
    if message.reasoning:
        turn["thinking" if rules.thinking_key else "reasoning_content"] = message.reasoning
    if message.role == "tool":
        turn["name"] = message.tool_name
        turn["tool_call_id"] = _fitting_call_id(message.tool_call_id, rules)
    if message.tool_calls:
        turn["tool_calls"] = []
        for call in message.tool_calls:
            arguments: Any = dict(call.arguments)
            if rules.arguments_as_text:
                arguments = json.dumps(arguments, ensure_ascii=False)
            function = {"name": call.name, "arguments": arguments}
            call_id = _fitting_call_id(call.id, rules)
            turn["tool_calls"].append({"type": "function", "id": call_id, "function": function})
        if rules.thinking_key and message.reasoning:
            turn |= {"content": "", "thinking": f"{message.reasoning}\n\n{content}".strip()}
        if rules.null_content and not message.content:
            turn["content"] = None
    return turn


def _fitting_call_id(call_id: str, rules: TurnRules) -> str:
    if not rules.short_ids or re.fullmatch(r"[A-Za-z0-9]{9}", call_id):
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:9]
