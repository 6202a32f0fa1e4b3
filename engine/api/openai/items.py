"""From the input items of Responses to the engine's messages. Pure.

An answer is several items there (its reasoning, its text, each of its calls) and one turn here, so
neighbours that belong to one answer are put together.
"""

from __future__ import annotations

from dataclasses import replace

from paddock.engine.request import Message, ToolCall

from .fields import Fields
from .messages import arguments_of, content_of, role_of, with_tool_names
from .refusals import InvalidValue


def response_messages(body: Fields) -> tuple[Message, ...]:
    """Read `instructions` and `input`.

    Raises:
        InvalidValue: there is nothing to answer, or an item cannot be used.
    """
    told = _instructions(body)
    value = body.any("input")
    if isinstance(value, str):
        return (*told, Message("user", value))
    turns = _turns(body)
    if not turns:
        raise InvalidValue("Missing required parameter: 'input'.", "input")
    return with_tool_names((*told, *turns))


def _instructions(body: Fields) -> tuple[Message, ...]:
    text = body.text("instructions")
    return (Message("system", text),) if text else ()


def _turns(body: Fields) -> list[Message]:
    turns: list[Message] = []
    for item in body.objects("input"):
        turn = _turn(item)
        if turn is None:
            continue
        if turns and turns[-1].role == turn.role == "assistant":
            turns[-1] = _joined(turns[-1], turn)
        else:
            turns.append(turn)
    return turns


def _turn(item: Fields) -> Message | None:
    """Read an item as a turn, or the part of one; None: it says nothing to a model."""
    kind = item.text("type", "message")
    if kind == "message":
        text, images = content_of(item, "content")
        return Message(role_of(item), text, images=images)
    if kind == "function_call":
        name = item.needed_text("name")
        call = ToolCall(name, arguments_of(item, "arguments"), item.text("call_id"))
        return Message("assistant", "", tool_calls=(call,))
    if kind == "function_call_output":
        text, images = content_of(item, "output")
        return Message("tool", text, images=images, tool_call_id=item.needed_text("call_id"))
    if kind == "reasoning":
        summary, _ = content_of(item, "summary")
        content, _ = content_of(item, "content")
        return Message("assistant", "", reasoning=text) if (text := content or summary) else None
    if kind == "web_search_call":  # what was searched elsewhere; its result stands in the answer
        return None
    raise item.refused("type", f"items of type '{kind[:40]}' are not supported.")


def _joined(before: Message, after: Message) -> Message:
    """Put two parts of one answer together."""
    return replace(
        before,
        content="\n".join(filter(None, (before.content, after.content))),
        reasoning="\n".join(filter(None, (before.reasoning, after.reasoning))),
        images=before.images + after.images,
        tool_calls=before.tool_calls + after.tool_calls,
    )
