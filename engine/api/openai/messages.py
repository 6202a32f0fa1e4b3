"""Messages, input items and images of OpenAI requests → the engine's messages. Pure.

For chat and Responses. In Responses one answer is several items (reasoning, text, each tool call),
but one message here, so its items are merged. Images are `data:` URIs only: fetching a caller's URL
could reach into the private network (SSRF).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from paddock.engine.api.errors import InvalidValue
from paddock.engine.request import Message, ToolCall, with_tool_names

from .request_body import Fields, is_shallow


def read_data_uri(fields: Fields, name: str) -> bytes:
    """Return the bytes of an image in a base64 `data:` URI."""
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
    """Return `messages` of chat/completions."""
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
    """Return a message's role; `developer` is `system`."""
    fields.needed_text("role")
    return _ROLES[fields.one_of("role", tuple(_ROLES), "")]


def read_content(fields: Fields, name: str) -> tuple[str, tuple[bytes, ...]]:
    """Return the text and images of a content; other parts (audio, files) are refused."""
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
    """Return an image of chat: `{"url": "data:…"}`, or the URI alone."""
    if isinstance(part.any("image_url"), str):
        return read_data_uri(part, "image_url")
    return read_data_uri(part.needed_object("image_url"), "url")


def _input_image(part: Fields) -> bytes:
    """Return an image of Responses."""
    if part.has("file_id"):
        raise part.refused("file_id", "images are read from `image_url` alone.")
    return read_data_uri(part, "image_url")


def _read_tool_call(fields: Fields) -> ToolCall:
    function = fields.needed_object("function")
    return ToolCall(
        function.needed_text("name"), read_arguments(function, "arguments"), fields.text("id")
    )


def read_arguments(fields: Fields, name: str) -> Mapping[str, Any]:
    """Return a call's arguments, the text of a JSON object or empty."""
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


def response_messages(body: Fields) -> tuple[Message, ...]:
    """Return `instructions` and `input` as messages."""
    instructions = body.text("instructions")
    system = (Message("system", instructions),) if instructions else ()
    value = body.any("input")
    if isinstance(value, str):
        return (*system, Message("user", value))
    messages: list[Message] = []
    for message in filter(None, map(_item_message, body.objects("input"))):
        if messages and messages[-1].role == message.role == "assistant":
            messages[-1] = _merged(messages[-1], message)
        else:
            messages.append(message)
    if not messages:
        raise InvalidValue("Missing required parameter: 'input'.", "input")
    return with_tool_names((*system, *messages))


def _item_message(item: Fields) -> Message | None:
    """Return an item as a message or a part of one; None: it is nothing for a model."""
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
    if kind == "web_search_call":  # its result is in the answer
        return None
    raise item.refused("type", f"items of type '{kind[:40]}' are not supported.")


def _merged(before: Message, after: Message) -> Message:
    """Return two parts of one answer as one message."""
    return replace(
        before,
        content="\n".join(filter(None, (before.content, after.content))),
        reasoning="\n".join(filter(None, (before.reasoning, after.reasoning))),
        images=before.images + after.images,
        tool_calls=before.tool_calls + after.tool_calls,
    )
