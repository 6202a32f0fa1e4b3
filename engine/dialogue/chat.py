"""Render a conversation with the model's own chat template. Knows Jinja2, not llama_cpp.

The template comes with the model file, so it is code from elsewhere: it runs in Jinja2's
immutable sandbox. What a document says must not be read as a turn of the conversation: texts
that spell one of the model's control tokens are taken out before rendering and come back as
plain text pieces, which are tokenised without special tokens.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from paddock.engine.errors import BadRequest
from paddock.engine.request import Message

# For models without a template: ChatML, which most instruction-tuned models have seen.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Private-use characters that no template and hardly a document contains.
_OPEN, _CLOSE = "\U000f5ade", "\U000f5adf"


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A part of a rendered prompt; `is_literal`: control tokens in it are mere text."""

    text: str
    is_literal: bool


class ChatTemplate:
    """One model's template, compiled once."""

    def __init__(
        self, source: str | None, *, bos: str, eos: str, control_tokens: Sequence[str] = ()
    ) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        try:
            self._template = environment.from_string(source or CHATML)
        except TemplateError as error:
            raise BadRequest(f"the model's chat template cannot be read: {error}") from error
        self._special = {"bos_token": bos, "eos_token": eos}
        self._forged = _any_of(control_tokens)

    def render(self, messages: Sequence[Message]) -> tuple[TextPiece, ...]:
        """Render a conversation, ready for the assistant's answer.

        Raises:
            BadRequest: the template refuses it, in its own words.
        """
        if self._forged is None or not any(self._forged.search(one.content) for one in messages):
            return (TextPiece(self._rendered(messages), is_literal=False),)
        literals: list[str] = []
        safe = [replace(one, content=self._take_out(one.content, literals)) for one in messages]
        return _put_back(self._rendered(safe), literals)

    def _rendered(self, messages: Sequence[Message]) -> str:
        turns = [{"role": one.role, "content": one.content} for one in messages]
        try:
            return self._template.render(
                messages=turns, add_generation_prompt=True, tools=None, **self._special
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise BadRequest(f"the model's chat template refuses this: {error}") from error

    def _take_out(self, text: str, literals: list[str]) -> str:
        """Replace what spells a control token by a numbered mark."""

        def mark(match: re.Match[str]) -> str:
            literals.append(match.group())
            return f"{_OPEN}{len(literals) - 1}{_CLOSE}"

        assert self._forged is not None
        return self._forged.sub(mark, text.replace(_OPEN, "").replace(_CLOSE, ""))


def _any_of(words: Sequence[str]) -> re.Pattern[str] | None:
    longest_first = sorted((word for word in words if word.strip()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _put_back(rendered: str, literals: Sequence[str]) -> tuple[TextPiece, ...]:
    """Cut a rendered prompt at the marks and set the literal texts in their places."""
    pieces = []
    for number, part in enumerate(re.split(f"{_OPEN}(\\d+){_CLOSE}", rendered)):
        is_literal = number % 2 == 1
        text = literals[int(part)] if is_literal else part
        if text:
            pieces.append(TextPiece(text, is_literal))
    return tuple(pieces)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().astimezone().strftime(form)


def _to_json(value: Any, indent: int | None = None) -> str:
    """Write JSON as Hugging Face's templates expect it: not escaped for HTML."""
    if isinstance(value, Undefined):
        value = None
    return json.dumps(value, ensure_ascii=False, indent=indent)


Tokenise = Callable[[str, bool], Sequence[int]]
"""Text and whether control tokens in it are meant as such; gives token ids."""
