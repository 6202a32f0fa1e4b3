"""Messages, input items and images of OpenAI requests → the engine's messages. Pure.

Serves chat and Responses. In Responses one answer is several items (reasoning, text, each tool
call), but one message here, so neighbours of one answer are joined. Images come as `data:` URIs
only: a service that fetches URLs for its callers can be led into the network behind it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from paddock.engine.api.errors import InvalidValue
from paddock.engine.request import Message, ToolCall

from .request_body import Fields, is_shallow


def read_data_uri(fields: Fields, name: str) -> bytes:
    """Return the bytes of an image that stands in a field as a `data:` URI.

    Raises:
        InvalidValue: it is an address elsewhere, or no base64.
    """
    address = fields.needed_text(name)
    head, comma, data = address.partition(",")
    if not address.startswith("data:") or not comma:
        raise fields.refused(
            name,
            "image URLs are not fetched; send the image itself as a base64 data: URI "
            "(`data:image/png;base64,…`).",
        )
    if not head.endswith(";base64"):
        raise fields.refused(name, "the data: URI must be base64 (`data:image/png;base64,…`).")
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise fields.refused(name, "the image is not valid base64.") from None


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
    messages = tuple(_read_message(one) for one in body.objects("messages"))
    if not messages:
        raise InvalidValue("[] is too short - 'messages'", "messages")
    return with_tool_names(messages)


def _read_message(fields: Fields) -> Message:
    role = read_role(fields)
    text, images = read_content(fields, "content")
    if role == "assistant" and not text:
        text = fields.text("refusal")
    return Message(
        role,
        text,
        reasoning=fields.text("reasoning") or fields.text("reasoning_content"),
        images=images,
        tool_calls=tuple(_read_tool_call(one) for one in fields.objects("tool_calls")),
        tool_name=fields.text("name") if role == "tool" else "",
        tool_call_id=fields.text("tool_call_id"),
    )


def read_role(fields: Fields) -> str:
    """Return a turn's role by the engine's name; a developer speaks as the system."""
    fields.needed_text("role")
    return _ROLES[fields.one_of("role", tuple(_ROLES), "")]


def read_content(fields: Fields, name: str) -> tuple[str, tuple[bytes, ...]]:
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
        return read_data_uri(part, "image_url")
    return read_data_uri(part.needed_object("image_url"), "url")


def _input_image(part: Fields) -> bytes:
    """Read an image as Responses has it."""
    if part.has("file_id"):
        raise part.refused("file_id", "images are read from `image_url` alone.")
    return read_data_uri(part, "image_url")


def _read_tool_call(fields: Fields) -> ToolCall:
    function = fields.needed_object("function")
    return ToolCall(
        function.needed_text("name"), read_arguments(function, "arguments"), fields.text("id")
    )


def read_arguments(fields: Fields, name: str) -> Mapping[str, Any]:
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
    """Return each tool's result the name of the call that it answers: templates want it."""
    names: dict[str, str] = {}
    told: list[Message] = []
    for one in messages:
        names.update((call.id, call.name) for call in one.tool_calls if call.id)
        told.append(_with_tool_name(one, names))
    return tuple(told)


def _with_tool_name(message: Message, names: Mapping[str, str]) -> Message:
    if message.role != "tool" or message.tool_name or message.tool_call_id not in names:
        return message
    return Message(
        message.role,
        message.content,
        images=message.images,
        tool_name=names[message.tool_call_id],
        tool_call_id=message.tool_call_id,
    )


def response_messages(body: Fields) -> tuple[Message, ...]:
    """Read `instructions` and `input`.

    Raises:
        InvalidValue: there is nothing to answer, or an item cannot be used.
    """
    told = _instructions(body)
    value = body.any("input")
    if isinstance(value, str):
        return (*told, Message("user", value))
    turns = _input_messages(body)
    if not turns:
        raise InvalidValue("Missing required parameter: 'input'.", "input")
    return with_tool_names((*told, *turns))


def _instructions(body: Fields) -> tuple[Message, ...]:
    text = body.text("instructions")
    return (Message("system", text),) if text else ()


def _input_messages(body: Fields) -> list[Message]:
    turns: list[Message] = []
    for item in body.objects("input"):
        turn = _item_message(item)
        if turn is None:
            continue
        if turns and turns[-1].role == turn.role == "assistant":
            turns[-1] = _merged(turns[-1], turn)
        else:
            turns.append(turn)
    return turns


def _item_message(item: Fields) -> Message | None:
    """Read an item as a turn, or the part of one; None: it says nothing to a model."""
    kind = item.text("type", "message")
    if kind == "message":
        text, images = read_content(item, "content")
        return Message(read_role(item), text, images=images)
    if kind == "function_call":
        name = item.needed_text("name")
        call = ToolCall(name, read_arguments(item, "arguments"), item.text("call_id"))
        return Message("assistant", "", tool_calls=(call,))
    if kind == "function_call_output":
        text, images = read_content(item, "output")
        return Message("tool", text, images=images, tool_call_id=item.needed_text("call_id"))
    if kind == "reasoning":
        summary, _ = read_content(item, "summary")
        content, _ = read_content(item, "content")
        return Message("assistant", "", reasoning=text) if (text := content or summary) else None
    if kind == "web_search_call":  # what was searched elsewhere; its result stands in the answer
        return None
    raise item.refused("type", f"items of type '{kind[:40]}' are not supported.")


def _merged(before: Message, after: Message) -> Message:
    """Put two parts of one answer together."""
    return replace(
        before,
        content="\n".join(filter(None, (before.content, after.content))),
        reasoning="\n".join(filter(None, (before.reasoning, after.reasoning))),
        images=before.images + after.images,
        tool_calls=before.tool_calls + after.tool_calls,
    )
