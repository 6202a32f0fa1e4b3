"""From Anthropic's content blocks to the engine's turns. Pure.

A user's message may bring results of tools beside words: each result becomes a turn of its own
before them. What only Anthropic's own servers can do (files, searches) is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from paddock.engine.api.bodies import decode_base64, flag_of, object_of, text_of
from paddock.engine.api.errors import ApiError
from paddock.engine.request import Message, ToolCall

_ROLES = ("user", "assistant", "system")


def read_turns(body: Mapping[str, Any]) -> tuple[Message, ...]:
    """Read `system` and `messages`.

    Raises:
        ApiError: 400, one of them cannot be used, and where it stands.
    """
    messages: list[Message] = []
    system = _words(body.get("system"), "system")
    if system:
        messages.append(Message("system", system))
    given = body.get("messages")
    if given is None or given == []:
        raise ApiError(400, "messages is required", param="messages")
    if not isinstance(given, list):
        _refuse("messages", "must be a list")
    for number, raw in enumerate(given):
        where = f"messages.{number}"
        if not isinstance(raw, dict):
            _refuse(where, "must be an object")
        messages += _turns(raw, where)
    return _with_tool_names(messages)


@dataclass(slots=True)
class _Gathered:
    """What the blocks of one message say."""

    texts: list[str] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n\n".join(filter(None, self.texts))


def _turns(raw: Mapping[str, Any], where: str) -> list[Message]:
    role = text_of(raw, "role").lower()
    if role not in _ROLES:
        _refuse(f"{where}.role", f"must be 'user' or 'assistant', not {_short(role)}")
    content = raw.get("content")
    if isinstance(content, str):
        return [Message(role, content)]
    said = _Gathered()
    for place, block in _blocks(content, f"{where}.content"):
        _gather(block, place, said)
    turns = list(said.results)
    if said.texts or said.images or said.calls or said.thoughts or not turns:
        turns.append(
            Message(
                role, said.text, "\n\n".join(said.thoughts), tuple(said.images), tuple(said.calls)
            )
        )
    return turns


def _blocks(content: Any, where: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Give each block with its place."""
    if not isinstance(content, list):
        _refuse(where, "must be a string or a list of content blocks")
    for number, block in enumerate(content):
        if not isinstance(block, dict):
            _refuse(f"{where}.{number}", "must be an object")
        yield f"{where}.{number}", block


def _gather(block: Mapping[str, Any], where: str, said: _Gathered) -> None:
    match block.get("type"):
        case "text":
            said.texts.append(text_of(block, "text"))
        case "image":
            said.images.append(_image(block, where))
        case "document":
            said.texts.append(_document(block, where))
        case "search_result":
            said.texts.append(_titled(block, _words(block.get("content"), f"{where}.content")))
        case "tool_use":
            said.calls.append(_call(block, where))
        case "tool_result":
            said.results.append(_result(block, where))
        case "thinking":
            said.thoughts.append(text_of(block, "thinking"))
        case "redacted_thinking":
            pass  # nobody but Anthropic can read it
        case other:
            _refuse(f"{where}.type", f"content blocks of type {_short(other)} are not supported")


def _call(block: Mapping[str, Any], where: str) -> ToolCall:
    for name in ("id", "name"):
        if not text_of(block, name):
            _refuse(where, f"tool_use block missing required '{name}' field")
    return ToolCall(text_of(block, "name"), object_of(block, "input"), text_of(block, "id"))


def _result(block: Mapping[str, Any], where: str) -> Message:
    content = block.get("content")
    said = _Gathered()
    if isinstance(content, str):
        said.texts.append(content)
    elif content is not None:
        for place, one in _blocks(content, f"{where}.content"):
            if one.get("type") in ("tool_use", "tool_result", "thinking", "redacted_thinking"):
                _refuse(f"{place}.type", "is not possible within a tool's result")
            _gather(one, place, said)
    text = said.text
    if flag_of(block, "is_error"):
        text = f"Error: {text}" if text else "Error"
    return Message(
        "tool", text, images=tuple(said.images), tool_call_id=text_of(block, "tool_use_id")
    )


def _image(block: Mapping[str, Any], where: str) -> bytes:
    source = object_of(block, "source")
    kind = source.get("type")
    if kind == "base64":
        return decode_base64(text_of(source, "data"), f"{where}.source.data")
    if kind == "url":
        _refuse(f"{where}.source", "image URLs are not fetched; send the image itself as base64")
    _refuse(f"{where}.source.type", f"must be 'base64', not {_short(kind)}")


def _document(block: Mapping[str, Any], where: str) -> str:
    source = object_of(block, "source")
    match source.get("type"):
        case "text":
            return _titled(block, text_of(source, "data"))
        case "content":
            return _titled(block, _words(source.get("content"), f"{where}.source.content"))
    kind = source.get("media_type") or source.get("type")
    _refuse(f"{where}.source", f"documents of type {_short(kind)} are not supported; send text")


def _titled(block: Mapping[str, Any], text: str) -> str:
    return "\n\n".join(filter(None, (text_of(block, "title"), text)))


def _words(content: Any, where: str) -> str:
    """Read what may be nothing but words: a string, or text blocks."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for place, block in _blocks(content, where):
        if block.get("type") != "text":
            _refuse(f"{place}.type", f"must be 'text', not {_short(block.get('type'))}")
        texts.append(text_of(block, "text"))
    return "\n\n".join(filter(None, texts))


def _with_tool_names(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Give each result the name of the call that it answers: templates want it."""
    names: dict[str, str] = {}
    named = []
    for one in messages:
        names.update((call.id, call.name) for call in one.tool_calls)
        name = names.get(one.tool_call_id, "") if one.role == "tool" else ""
        named.append(replace(one, tool_name=name))
    return tuple(named)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse(where: str, why: str) -> NoReturn:
    raise ApiError(400, f"{where}: {why}", param=where)
