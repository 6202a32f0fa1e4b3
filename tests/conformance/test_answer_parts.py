"""Every part and field of an answer that the newest SDKs have a type for is read, or refused."""

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from anthropic.types import ContentBlock
from anthropic.types.beta import BetaContentBlock
from ollama import Message
from openai.types.chat import ChatCompletionMessage
from openai.types.chat.chat_completion_assistant_message_param import ContentArrayOfContentPart
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from openai.types.responses import ResponseOutputItem
from openai.types.responses.response_output_message import Content
from pydantic import BaseModel

from paddock.engine.backends.openai_codec import StreamDecoder
from paddock.engine.errors import BadRequest

WORDS = "At noon."
SHAPES: tuple[Any, ...] = (WORDS, [WORDS], [{"text": WORDS}], {"text": WORDS, "content": WORDS})


def kinds_of(union: Any) -> Iterator[Any]:
    if get_origin(union) is Annotated:
        yield from kinds_of(get_args(union)[0])
    elif args := get_args(union):
        for kind in args:
            yield from kinds_of(kind)
    else:
        yield union


def parts() -> Iterator[dict[str, Any]]:
    unions = (Content, ContentArrayOfContentPart, ContentBlock, BetaContentBlock)
    kinds = (kind for union in (*unions, ResponseOutputItem) for kind in kinds_of(union))
    for kind in dict.fromkeys(kinds):
        fields = getattr(kind, "model_fields", None)
        names = (
            {name: field.annotation for name, field in fields.items()}
            if fields
            else (get_type_hints(kind))
        )
        name = (*get_args(names["type"]), kind.__name__)[0]
        yield {**dict.fromkeys(names, WORDS), "type": name}


def answered(delta: dict[str, Any]) -> str:
    """Return everything of an answer that is read, or why it is refused."""
    decoder, event = StreamDecoder(), {"choices": [{"delta": delta, "finish_reason": "stop"}]}
    try:
        chunks = list(decoder.chunks(event))
        decoder.ended()
    except BadRequest as error:
        return f"refused: {error}"
    return "".join(f"{chunk.text}{chunk.reasoning}{chunk.tool_calls or ''}" for chunk in chunks)


@pytest.mark.parametrize("part", [*parts()], ids=lambda part: part["type"])
def test_a_part_is_read_or_refused(part: dict[str, Any]) -> None:
    said = answered({"content": [part]})
    assert WORDS in said or f"a part of the kind '{part['type']}'" in said


@pytest.mark.parametrize("kind", [ChatCompletionMessage, ChoiceDelta, Message])
def test_a_field_is_read_or_refused(kind: type[BaseModel]) -> None:
    for name in kind.model_fields.keys() - {"role"}:
        for shape in SHAPES:
            said = answered({name: shape})
            assert WORDS in said or said.startswith("refused: "), (name, shape)
