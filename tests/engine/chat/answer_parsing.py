"""Parse answers in pieces: for the tests of this folder."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import count, pairwise
from pathlib import Path

from paddock.engine.chat.chat_template import ChatTemplate
from paddock.engine.chat.harmony import HarmonyParser
from paddock.engine.chat.known_templates import jinja_template
from paddock.engine.chat.stream_parser import AnswerDelta, AnswerMarkup, MarkupParser, StreamParser
from paddock.engine.request import Tool

TEMPLATES = Path(__file__).parent / "data" / "templates"
FAMILIES = {
    path.stem: ChatTemplate(jinja_template(path.read_text("utf-8")), bos="<BOS>", eos="<EOS>")
    for path in sorted((Path(__file__).parent / "data" / "ollama").glob("*.gotmpl"))
}
"""Chat templates for which Go templates stand, by the names of their files."""

WEATHER = Tool(
    "get_weather",
    "Tells the weather of a city",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where"},
            "days": {"type": "integer", "description": "How many"},
            "unit": {"type": "string", "enum": ["celsius", "kelvin"], "description": "Of what"},
        },
        "required": ["city"],
    },
)


@cache
def template(name: str) -> ChatTemplate:
    """Return the template whose file begins with `name`."""
    (path,) = TEMPLATES.glob(f"{name}*.jinja")
    return ChatTemplate(path.read_text("utf-8"), bos="<BOS>", eos="<EOS>")


def parser_for(
    name: str,
    tools: Sequence[Tool] = (WEATHER,),
    stop: tuple[str, ...] = (),
    *,
    is_inside: bool = False,
    must_call: bool = False,
) -> StreamParser:
    """Return the parser for a model with this template; ids are counted."""
    numbers = count(1)
    chat_format = template(name).chat_format

    def new_id() -> str:
        return f"id{next(numbers)}"

    if chat_format.is_harmony:
        return HarmonyParser(stop, new_id)
    by_name = {tool.name: tool for tool in tools}
    formats = chat_format.formats if tools else ()
    markup = AnswerMarkup(
        chat_format.tags, formats, by_name, chat_format.wrappers, is_inside, must_call=must_call
    )
    return MarkupParser(markup, stop, new_id)


def parsed_answer(
    made: Callable[[], StreamParser], answer: str, cuts: Sequence[int] = (), *, is_cut: bool = False
) -> AnswerDelta:
    """Parse an answer, its bytes cut at these places."""
    parser, raw = made(), answer.encode()
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    parts = []
    for start, end in pairwise(edges):
        parts.append(parser.feed(raw[start:end]))
        if parser.is_stopped:
            break
    parts.append(parser.close(is_cut=is_cut))
    return AnswerDelta(
        "".join(part.text for part in parts),
        "".join(part.reasoning for part in parts),
        tuple(call for part in parts for call in part.tool_calls),
    )
