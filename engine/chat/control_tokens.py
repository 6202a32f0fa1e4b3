"""Control tokens that a text only spells: they are taken out before a prompt is rendered.

Text from a document must never become a turn of the conversation: strings that spell one of the
model's control tokens are replaced by marks before rendering, wherever they occur (contents, tool
results, names, arguments, reasoning, tool descriptions). They come back as literal text pieces,
which are tokenised without special tokens.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from paddock.engine.request import Message, Tool, ToolCall
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import map_texts

# Private-use characters that no template and hardly a document contains.
_MARK_OPENS, _MARK_CLOSES, MARK_END = "\U000f5ade", "\U000f5adf", "\U000f5ae0"
_MOST_PIECE_CHARS, _PIECE_CHARS = 65_536, 4_096
_ALL_MARKS = re.compile(f"[{_MARK_OPENS}{_MARK_CLOSES}{MARK_END}]")


class TextPiece(Struct, frozen=True):
    """A part of a rendered prompt; `is_literal`: control tokens in it are plain text."""

    text: str
    is_literal: bool


class ControlTokenRemover:
    def __init__(self, forged: re.Pattern[str] | None, literals: list[str]) -> None:
        self._forged = forged
        self._literals = literals

    def text(self, text: str) -> str:
        text = _ALL_MARKS.sub("", text)
        return text if self._forged is None else self._forged.sub(self._mark, text)

    def _mark(self, match: re.Match[str]) -> str:
        self._literals.append(match.group())
        return f"{_MARK_OPENS}{len(self._literals) - 1}{_MARK_CLOSES}"

    def message(self, message: Message) -> Message:
        return replace(
            message,
            content=self.text(message.content),
            reasoning=self.text(message.reasoning),
            tool_name=self.text(message.tool_name),
            tool_call_id=self.text(message.tool_call_id),
            tool_calls=tuple(
                ToolCall(
                    self.text(call.name), map_texts(call.arguments, self.text), self.text(call.id)
                )
                for call in message.tool_calls
            ),
        )

    def tool(self, tool: Tool) -> Tool:
        return Tool(
            self.text(tool.name), self.text(tool.description), map_texts(tool.parameters, self.text)
        )


def any_of_pattern(words: Collection[str]) -> re.Pattern[str] | None:
    longest_first = sorted((word for word in words if word.strip()), key=len, reverse=True)
    if not longest_first:
        return None
    # The first character is tested first: 256 alternatives at every place took 30 times as long.
    first = "".join(sorted({re.escape(word[0]) for word in longest_first}))
    return re.compile(f"(?=[{first}])(?:{'|'.join(map(re.escape, longest_first))})")


def with_literals(
    rendered: str, literals: Sequence[str], control: re.Pattern[str] | None = None
) -> tuple[TextPiece, ...]:
    """Split a rendered prompt at the marks and put the literal texts back.

    llama.cpp's time grows with the square of the `control` tokens in a piece, so a long one is cut
    before some of them, except for those that may take the white space before them.
    """
    pieces = list[TextPiece]()
    for number, part in enumerate(re.split(f"{_MARK_OPENS}(\\d+){_MARK_CLOSES}", rendered)):
        is_literal = number % 2 == 1
        text = literals[int(part)] if is_literal else part
        while control and not is_literal and len(text) > _MOST_PIECE_CHARS:
            found = control.search(text, _PIECE_CHARS)
            while found and text[found.start() - 1].isspace():
                found = control.search(text, found.end())
            if found is None:
                break
            pieces.append(TextPiece(text[: found.start()], is_literal=False))
            text = text[found.start() :]
        if text:
            pieces.append(TextPiece(text, is_literal))
    return tuple(pieces)
