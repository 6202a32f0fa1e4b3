"""From OpenAI's messages to the engine's. Pure.

Chat's messages and the items of Responses both end here: what a part of a content is, what a
call's arguments are, and which tool a result belongs to is decided once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from paddock.engine.request import Message, ToolCall

from .fields import Fields, is_shallow
from .pictures import picture_of
from .refusals import InvalidValue

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_TEXT_PARTS = ("text", "input_text", "output_text", "reasoning_text", "summary_text")


def chat_messages(body: Fields) -> tuple[Message, ...]:
    """Read `messages` of chat/completions.

    Raises:
        InvalidValue: there are none, or one of them cannot be used.
    """
    messages = tuple(_message(one) for one in body.objects("messages"))
    if not messages:
        raise InvalidValue("[] is too short - 'messages'", "messages")
    return with_tool_names(messages)


def _message(fields: Fields) -> Message:
    role = role_of(fields)
    text, images = content_of(fields, "content")
    if role == "assistant" and not text:
        text = fields.text("refusal")
    return Message(
        role,
        text,
        reasoning=fields.text("reasoning") or fields.text("reasoning_content"),
        images=images,
        tool_calls=tuple(_call(one) for one in fields.objects("tool_calls")),
        tool_name=fields.text("name") if role == "tool" else "",
        tool_call_id=fields.text("tool_call_id"),
    )


def role_of(fields: Fields) -> str:
    """Give a turn's role by the engine's name; a developer speaks as the system."""
    fields.needed_text("role")
    return _ROLES[fields.one_of("role", tuple(_ROLES), "")]


def content_of(fields: Fields, name: str) -> tuple[str, tuple[bytes, ...]]:
    """Read a content: a text, or parts that are texts and images.

    Raises:
        InvalidValue: a part that no model here can read (sound, files).
    """
    value = fields.any(name)
    if isinstance(value, str) or value is None:
        return value or "", ()
    texts: list[str] = []
    images: list[bytes] = []
    for part in fields.objects(name):
        kind = part.needed_text("type")
        if kind in _TEXT_PARTS:
            texts.append(part.text("text"))
        elif kind == "refusal":
            texts.append(part.text("refusal"))
        elif kind == "image_url":
            images.append(_image_url(part))
        elif kind == "input_image":
            images.append(_input_image(part))
        else:
            raise part.refused("type", f"parts of type '{kind[:40]}' are not supported.")
    return "\n".join(filter(None, texts)), tuple(images)


def _image_url(part: Fields) -> bytes:
    """Read an image as chat has it: `{"url": "data:…"}`, or the address alone."""
    if isinstance(part.any("image_url"), str):
        return picture_of(part, "image_url")
    return picture_of(part.needed_object("image_url"), "url")


def _input_image(part: Fields) -> bytes:
    """Read an image as Responses has it."""
    if part.has("file_id"):
        raise part.refused("file_id", "images are read from `image_url` alone.")
    return picture_of(part, "image_url")


def _call(fields: Fields) -> ToolCall:
    function = fields.needed_object("function")
    return ToolCall(
        function.needed_text("name"), arguments_of(function, "arguments"), fields.text("id")
    )


def arguments_of(fields: Fields, name: str) -> Mapping[str, Any]:
    """Read a call's arguments: the text of a JSON object; an empty one stands for none.

    Raises:
        InvalidValue: the text is no JSON object.
    """
    text = fields.text(name)
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise fields.refused(name, "invalid tool call arguments: not valid JSON.") from None
    if not isinstance(value, dict) or not is_shallow(value):
        raise fields.refused(name, "invalid tool call arguments: not a JSON object.")
    return value


def with_tool_names(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Give each tool's result the name of the call that it answers: templates want it."""
    names: dict[str, str] = {}
    told: list[Message] = []
    for one in messages:
        names.update((call.id, call.name) for call in one.tool_calls if call.id)
        told.append(_named(one, names))
    return tuple(told)


def _named(message: Message, names: Mapping[str, str]) -> Message:
    if message.role != "tool" or message.tool_name or message.tool_call_id not in names:
        return message
    return Message(
        message.role,
        message.content,
        images=message.images,
        tool_name=names[message.tool_call_id],
        tool_call_id=message.tool_call_id,
    )
