from typing import Any

import pytest

from paddock.engine.api.anthropic.messages import PromptBody
from paddock.engine.api.errors import ApiError
from paddock.engine.request import Message, ToolCall


def turns(*messages: Any, system: Any = None) -> tuple[Message, ...]:
    return read_messages({"messages": list(messages), "system": system})


def read_messages(fields: dict[str, Any]) -> tuple[Message, ...]:
    return PromptBody.read({"model": "m", **fields}).chat_request().messages


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words, "cache_control": {"type": "ephemeral"}}


def test_words_are_turns_and_the_system_comes_first() -> None:
    assert turns({"role": "user", "content": "Hi"}, system="Be brief.") == (
        Message("system", "Be brief."),
        Message("user", "Hi"),
    )
    assert turns(user(text("a"), text("b")), system=[text("x"), text("y")]) == (
        Message("system", "x\n\ny"),
        Message("user", "a\n\nb"),
    )


def test_a_system_text_ends_with_the_turn_that_it_was_for() -> None:
    note = {"role": "system", "content": "It rains.", "clear_at": "next_user_message"}
    stays = {**note, "content": "Be brief.", "clear_at": "never"}
    earlier, later = user(text("a")), user(text("b"))
    assert [turn.content for turn in turns(earlier, note, stays)] == ["a", "It rains.", "Be brief."]
    assert [turn.content for turn in turns(earlier, note, stays, later)] == ["a", "Be brief.", "b"]


def test_a_call_and_its_result_are_turns_of_their_own() -> None:
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}}
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [text("22"), text("°C")]}
    failed = {"type": "tool_result", "tool_use_id": "t2", "content": "no", "is_error": True}
    assert turns(
        user(text("Go")),
        {"role": "assistant", "content": [thought, text("So:"), call]},
        user(text("Now?"), result, failed),
    ) == (
        Message("user", "Go"),
        Message("assistant", "So:", "Hm.", tool_calls=(ToolCall("f", {"x": 1}, "t1"),)),
        Message("tool", "22\n\n°C", tool_name="f", tool_call_id="t1"),
        Message("tool", "Error: no", tool_call_id="t2"),
        Message("user", "Now?"),
    )


def test_documents_and_search_results_are_words() -> None:
    document = {
        "type": "document",
        "title": "Notes",
        "source": {"type": "text", "media_type": "text/plain", "data": "All is well."},
    }
    found = {"type": "search_result", "title": "Page", "source": "u", "content": [text("Words")]}
    assert turns(user(document, found)) == (
        Message("user", "Notes\n\nAll is well.\n\nPage\n\nu\n\nWords"),
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "messages is required"),
        ({"messages": []}, "messages is required"),
        ({"messages": "x"}, "messages: must be an array, not a string"),
        ({"messages": ["x"]}, "messages.0: must be an object, not a string"),
        ({"messages": [{"role": "tool", "content": ""}]},
         "messages.0.role: 'tool'. Supported values are: 'user', 'assistant' or 'system'."),
        ({"messages": [{"role": "user"}]}, "messages.0.content is required"),
        ({"messages": [user(3)]}, "messages.0.content.0: must be an object, not an integer"),
        ({"messages": [user({"type": "video"})]},
         "messages.0.content.0.type: 'video' is not supported here. Supported are: 'text', "
         "'image', 'document', 'search_result', 'tool_use', 'tool_result', 'thinking', "
         "'redacted_thinking'."),
        ({"messages": [user({"type": "image", "source": {"type": "url", "url": "http://x"}})]},
         "messages.0.content.0.source.type: image URLs are not fetched; "
         "send the image itself as base64"),
        ({"messages": [user({"type": "image", "source": {"type": "base64", "data": "%"}})]},
         "messages.0.content.0.source.data: illegal base64 data"),
        ({"messages": [user({"type": "document", "source":
                             {"type": "base64", "media_type": "application/pdf", "data": ""}})]},
         "messages.0.content.0.source.type: 'base64'. Supported values are: 'text' or 'content'."),
        ({"messages": [user({"type": "tool_use", "name": "f"})]},
         "messages.0.content.0.id is required"),
        ({"messages": [user({"type": "tool_result", "content": [{"type": "thinking"}]})]},
         "messages.0.content.0.content.0.type: 'thinking' is not supported here. "
         "Supported are: 'text', 'image', 'document', 'search_result'."),
        ({"messages": [user(text("x"))], "system": [{"type": "image"}]},
         "system.0.type: 'image'. Supported values are: 'text'."),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_with_its_place(body: dict[str, Any], expected: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_messages(body)
    assert (caught.value.status, caught.value.message) == (400, expected)
