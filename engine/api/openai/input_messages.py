"""Messages of OpenAI's requests: roles, texts, images and tool calls of a conversation.

In Responses one answer is several items (reasoning, text, each tool call), but one message here, so
its items are merged. Images are `data:` URIs only: fetching a caller's URL could reach into the
private network (SSRF).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from paddock.engine.api.body_models import (
    Arguments,
    CalledFunction,
    Items,
    Needed,
    TextOr,
    ToolCallBody,
    Tree,
    refused,
)
from paddock.engine.api.request_log import note_without_effect
from paddock.engine.request import Message, ToolCall
from paddock.engine.system.records import replace

from .requests import OpenAIBody, qualified_name


def _image_bytes(address: Any) -> Any:
    """Return the bytes of an image in a base64 `data:` URI."""
    if not isinstance(address, str):
        return address
    head, comma, data = address.partition(",")
    if not address.startswith("data:") or not comma:
        raise refused(
            "image URLs are not fetched; send the image itself as a base64 data: URI "
            "(`data:image/png;base64,…`)."
        )
    if not head.endswith(";base64"):
        raise refused("the data: URI must be base64 (`data:image/png;base64,…`).")
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise refused("the image is not valid base64.") from None


_Image = Annotated[bytes, BeforeValidator(_image_bytes)]


class _ImageUrl(OpenAIBody):
    url: _Image


class InputTextPart(OpenAIBody):
    type: Literal["text", "input_text", "output_text", "reasoning_text", "summary_text"]
    text: str = ""


class JsonPart(OpenAIBody):
    type: Literal["input_json"]
    data: Tree | Items[Tree]

    @property
    def text(self) -> str:
        return json.dumps(self.data, ensure_ascii=False)


class _RefusalPart(OpenAIBody):
    type: Literal["refusal"]
    refusal: str = ""


class _ChatImage(OpenAIBody):
    type: Literal["image_url"]
    image_url: Annotated[
        _ImageUrl,
        BeforeValidator(lambda value: {"url": value} if isinstance(value, str) else value),
    ]


class _InputImage(OpenAIBody):
    type: Literal["input_image"]
    image_url: _Image


Part = Annotated[
    InputTextPart | JsonPart | _RefusalPart | _ChatImage | _InputImage, Field(discriminator="type")
]
Content = TextOr[Part]


def text_and_images(content: Content) -> tuple[str, tuple[bytes, ...]]:
    if isinstance(content, str):
        return content, ()
    texts: list[str] = []
    images: list[bytes] = []
    for part in content:
        match part:
            case InputTextPart() | JsonPart():
                texts.append(part.text)
            case _RefusalPart():
                texts.append(part.refusal)
            case _ChatImage():
                images.append(part.image_url.url)
            case _InputImage():
                images.append(part.image_url)
    return "\n".join(filter(None, texts)), tuple(images)


_Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
_ROLES: Mapping[str, str] = {"developer": "system", "function": "tool"}


class ChatMessage(OpenAIBody):
    role: _Role
    content: Content = ""
    refusal: str = ""
    reasoning: str = ""
    reasoning_content: str = ""
    tool_calls: Items[ToolCallBody] = ()
    function_call: CalledFunction | None = None
    name: str = ""
    tool_call_id: str = ""

    def message(self) -> Message:
        text, images = text_and_images(self.content)
        role = _ROLES.get(self.role, self.role)
        calls = [call.call() for call in self.tool_calls]
        if self.name and role != "tool":
            note_without_effect("fields", ("name",))
        if self.function_call is not None:
            calls.append(ToolCall(self.function_call.name, self.function_call.arguments))
        return Message(
            role,
            text or (self.refusal if role == "assistant" else ""),
            self.reasoning or self.reasoning_content,
            images,
            tuple(calls),
            self.name if role == "tool" else "",
            self.tool_call_id,
        )


class _MessageItem(OpenAIBody):
    type: Literal["message"]
    role: _Role
    content: Content = ""

    def message(self) -> Message:
        text, images = text_and_images(self.content)
        return Message(_ROLES.get(self.role, self.role), text, images=images)


class _CallItem(OpenAIBody):
    type: Literal["function_call"]
    name: Needed
    namespace: str = ""
    arguments: Arguments = Field(default_factory=dict)
    call_id: str = ""

    def message(self) -> Message:
        name = qualified_name(self.namespace, self.name)
        call = ToolCall(name, self.arguments, self.call_id)
        return Message("assistant", "", tool_calls=(call,))


class _CallOutputItem(OpenAIBody):
    type: Literal["function_call_output"]
    output: Content = ""
    call_id: Needed

    def message(self) -> Message:
        text, images = text_and_images(self.output)
        return Message("tool", text, images=images, tool_call_id=self.call_id)


class _ReasoningItem(OpenAIBody):
    type: Literal["reasoning", "web_search_call"]  # the latter's result is in the answer
    summary: Content = ""
    content: Content = ""

    def message(self) -> Message | None:
        text = text_and_images(self.content)[0] or text_and_images(self.summary)[0]
        return Message("assistant", "", reasoning=text) if text else None


InputItem = Annotated[
    Annotated[
        _MessageItem | _CallItem | _CallOutputItem | _ReasoningItem, Field(discriminator="type")
    ],
    BeforeValidator(lambda item: {"type": "message", **item} if isinstance(item, dict) else item),
]


def input_messages(items: Sequence[InputItem]) -> Iterator[Message]:
    """Yield the items as messages, those of one answer as one message."""
    last: Message | None = None
    for message in filter(None, (item.message() for item in items)):
        if last is not None and last.role == message.role == "assistant":
            last = replace(
                last,
                content="\n".join(filter(None, (last.content, message.content))),
                reasoning="\n".join(filter(None, (last.reasoning, message.reasoning))),
                images=last.images + message.images,
                tool_calls=last.tool_calls + message.tool_calls,
            )
            continue
        if last is not None:
            yield last
        last = message
    if last is not None:
        yield last
