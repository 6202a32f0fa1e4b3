"""Every part and field of an answer that the newest SDKs have a type for is read, or refused."""

from collections.abc import Iterator
from importlib import import_module
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

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


def type_of(path: str) -> Any:
    """Import it then: the clients take two seconds of a processor."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def parts(union: Any) -> Iterator[dict[str, Any]]:
    for kind in kinds_of(union):
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


@pytest.mark.parametrize(
    "union",
    [
        "anthropic.types.ContentBlock",
        "anthropic.types.beta.BetaContentBlock",
        "openai.types.chat.chat_completion_assistant_message_param.ContentArrayOfContentPart",
        "openai.types.responses.ResponseOutputItem",
        "openai.types.responses.response_output_message.Content",
    ],
)
def test_each_part_is_read_or_refused(union: str) -> None:
    for part in parts(type_of(union)):
        said = answered({"content": [part]})
        assert WORDS.removesuffix(".") in said or f"a part of the kind '{part['type']}'" in said


@pytest.mark.parametrize(
    "path",
    [
        "ollama.Message",
        "openai.types.chat.ChatCompletionMessage",
        "openai.types.chat.chat_completion_chunk.ChoiceDelta",
    ],
)
def test_each_field_is_read_or_refused(path: str) -> None:
    for name in type_of(path).model_fields.keys() - {"role"}:
        for shape in SHAPES:
            said = answered({name: shape})
            assert WORDS.removesuffix(".") in said or said.startswith("refused: "), (name, shape)
