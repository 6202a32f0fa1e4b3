"""From messages to counted token ids: what a worker does with a request before the scheduler.

Runs beside the owner thread, since tokenising needs only the vocabulary.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence as Items
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.errors import BadRequest, PromptTooLong
from paddock.engine.native.model import Model
from paddock.engine.request import (
    ChatRequest,
    Constraint,
    Message,
    Sampling,
    Tool,
    reserved_tokens,
)

from .chat import ChatTemplate, TextPiece
from .ear import AnswerListener, Ways
from .forced import (
    Beginning,
    after_analysis,
    after_reasoning,
    force_call,
    force_harmony_call,
)
from .harmony import HARMONY_TOKENS, HarmonyListener
from .images import PlacedImage, check_image, place
from .listener import Listener
from .turns import MEDIA_MARK

if TYPE_CHECKING:
    from paddock.engine.native.vision import Projector


@dataclass(frozen=True, slots=True)
class Prompted:
    """A conversation, ready to be answered."""

    tokens: Tokens
    listener: Listener
    shown: frozenset[int] = frozenset()
    """Control tokens that the listener wants to read as text."""
    constraint: Constraint | None = None
    """What the answer must match: the request's own wish, or what a forced tool call needs."""
    images: tuple[PlacedImage, ...] = ()
    """In `tokens`, each image's positions hold negative numbers: equal ones for equal images."""


class Prompter:
    """Renders and tokenises for one model."""

    def __init__(self, model: Model, eyes: Projector | None = None) -> None:
        self._model = model
        self._eyes = eyes
        self._template = ChatTemplate(
            model.chat_template(),
            bos=model.special_text("bos"),
            eos=model.special_text("eos"),
            control_tokens=model.special_tokens(),
            ends=[model.piece(token, shows_control=True).decode(errors="replace")
                  for token in model.ending_tokens()],
            tool_source=model.chat_template("tool_use"),
        )  # fmt: skip

    def chat(self, request: ChatRequest, sampling: Sampling) -> Prompted:
        """Give a conversation's prompt, and who listens to its answer.

        Raises:
            BadRequest: the model's template refuses it, or a tool is wanted that there is not.
        """
        wanted = _wanted_tools(request)
        tools = () if request.tool_choice == "none" else request.tools
        pieces = self._template.render(request.messages, tools=tools, think=request.think)
        is_inside = bool(pieces) and self._template.opens_reasoning(pieces[-1].text)
        tokens, images = self._with_images(pieces, request.messages)
        return Prompted(
            tokens,
            self._listener(tools, sampling, is_inside=is_inside),
            self._shown(has_tools=bool(tools)),
            self._constraint(request, wanted, is_inside=is_inside),
            images,
        )

    def _with_images(
        self, pieces: Items[TextPiece], messages: Items[Message]
    ) -> tuple[Tokens, tuple[PlacedImage, ...]]:
        """Tokenise a prompt with its images in their places."""
        images = [image for message in messages for image in message.images]
        if not images:
            return self._tokens(pieces), ()
        if self._eyes is None:
            raise BadRequest("this model cannot see images: it has no projector")
        for number, image in enumerate(images, start=1):
            check_image(image, number)
        return place(self._cut_at_images(pieces), images, self._eyes.look)

    def _cut_at_images(self, pieces: Items[TextPiece]) -> list[Tokens]:
        """Tokenise what stands before, between and behind the images."""
        parts: list[list[TextPiece]] = [[]]
        for piece in pieces:
            texts = [piece.text] if piece.is_literal else piece.text.split(MEDIA_MARK)
            for number, text in enumerate(texts):
                if number:
                    parts.append([])
                if text:
                    parts[-1].append(TextPiece(text, piece.is_literal))
        return [self._tokens(part, begins=number == 0) for number, part in enumerate(parts)]

    def _listener(
        self, tools: tuple[Tool, ...], sampling: Sampling, *, is_inside: bool
    ) -> Listener:
        manner = self._template.manner
        if manner.is_harmony:
            return HarmonyListener(sampling.stop, new_call_id)
        ways = Ways(
            manner.tags,
            manner.forms if tools else (),
            {tool.name: tool for tool in tools},
            manner.wrappers,
            is_inside,
        )
        return AnswerListener(ways, sampling.stop, new_call_id)

    def _shown(self, *, has_tools: bool) -> frozenset[int]:
        """Give the control tokens that stand in anything that is listened for."""
        manner = self._template.manner
        if manner.is_harmony:
            return frozenset(
                self._specials[text] for text in HARMONY_TOKENS if text in self._specials
            )
        texts = [manner.tags.opens, manner.tags.closes]
        if has_tools:
            texts += [text for form in manner.forms for text in form.literals]
            if any("gemma" in form.reads for form in manner.forms):
                texts += ['<|"|>', "<escape>"]
        whole = "\n".join(texts)
        return frozenset(token for text, token in self._specials.items() if text in whole)

    @cached_property
    def _specials(self) -> dict[str, int]:
        return self._model.special_tokens()

    def _constraint(
        self, request: ChatRequest, wanted: tuple[Tool, ...], *, is_inside: bool
    ) -> Constraint | None:
        """Give what the answer must match; reasoning may come before it."""
        manner = self._template.manner
        may_reason = manner.may_reason and request.think is not False
        beginning = Beginning(manner.tags, is_inside, may_reason)
        if wanted:
            if manner.is_harmony:
                return force_harmony_call(wanted, self._specials)
            return force_call(manner.forms[0], wanted, beginning, self._specials)
        if request.constraint is None:
            return None
        if manner.is_harmony:
            return after_analysis(request.constraint, self._specials)
        return after_reasoning(request.constraint, beginning, self._specials)

    def count_chat(self, messages: Items[Message]) -> int:
        """Count the tokens of a conversation's prompt."""
        return len(self._tokens(self._template.render(messages)))

    def _tokens(self, pieces: Items[TextPiece], *, begins: bool = True) -> Tokens:
        bos = self._model.special_text("bos")
        # A template that writes BOS itself must not get a second one.
        has_bos = bool(bos and pieces and pieces[0].text.startswith(bos))
        wants_bos = begins and self._model.adds_bos and not has_bos
        parts = [
            self._model.tokenise(piece.text, with_special=wants_bos and number == 0,
                                 parse_special=True)
            if not piece.is_literal
            else self._spelled(piece.text)
            for number, piece in enumerate(pieces)
        ]  # fmt: skip
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def _spelled(self, text: str) -> Tokens:
        """Tokenise what must stay mere text, though it spells a token of its own.

        Tags that a model's makers added are read as such even where control tokens are not, so
        the first character goes alone.
        """
        return np.concatenate([self._plain(text[:1]), self._plain(text[1:])])

    def count(self, texts: Items[str]) -> list[int]:
        """Count each text's tokens, without what the model puts around a prompt."""
        return [len(self._plain(text)) for text in texts]

    def _plain(self, text: str) -> Tokens:
        return self._model.tokenise(text, with_special=False, parse_special=False)


def new_call_id() -> str:
    """Make an id for a tool call: nine letters and digits, as Mistral's templates insist."""
    return f"c{secrets.token_hex(4)}"


def _wanted_tools(request: ChatRequest) -> tuple[Tool, ...]:
    """Give the tools of which one must be called; empty: none must.

    Raises:
        BadRequest: the choice names no tool of the request.
    """
    choice = request.tool_choice
    if choice in ("auto", "none"):
        return ()
    if choice == "required":
        if not request.tools:
            raise BadRequest("a tool must be called (tool_choice: required), but none is offered")
        return request.tools
    named = tuple(tool for tool in request.tools if tool.name == choice)
    if not named:
        known = ", ".join(f"'{tool.name}'" for tool in request.tools) or "none"
        raise BadRequest(f"the tool '{choice}' must be called, but is not offered. Known: {known}.")
    return named


def answer_budget(n_prompt_tokens: int, max_tokens: int | None, n_ctx_tokens: int) -> int:
    """Tell how long an answer may get.

    Raises:
        PromptTooLong: prompt and reserved answer together exceed the context.
    """
    n_reserved = reserved_tokens(max_tokens, n_ctx_tokens)
    if n_prompt_tokens + n_reserved > n_ctx_tokens or n_prompt_tokens == 0:
        raise PromptTooLong(n_prompt_tokens, n_reserved, n_ctx_tokens)
    return n_reserved
