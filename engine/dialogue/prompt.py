"""From messages to counted token ids: what a worker does with a request before the scheduler.

Runs beside the owner thread, since tokenising needs only the vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.errors import BadRequest, NoInsert, PromptTooLong
from paddock.engine.native.model import Model
from paddock.engine.request import ChatRequest, Constraint, Message, Sampling, reserved_tokens

from .chat import ChatTemplate, TextPiece
from .expecting import constraint_of, listener_for, shown_tokens, wanted_tools
from .images import PlacedImage, check_image, place
from .listener import Listener, PlainListener
from .shortening import Limit, around, fewer_turns, limit_of, shorter_last, without_middle
from .turns import MEDIA_MARK

if TYPE_CHECKING:
    from paddock.engine.native.vision import Projector

# Templates that requests bring along; to study one takes 50 ms.
_N_TEMPLATES = 16

# Looking at an image takes seconds, so what it takes is guessed while turns are chosen.
_IMAGE_TOKENS = 768


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
    n_original: int | None = None
    """What the prompt had before it was shortened; None: it was not."""


class Prompter:
    """Renders and tokenises for one model."""

    def __init__(self, model: Model, eyes: Projector | None = None) -> None:
        self._model = model
        self._eyes = eyes
        self._templates: OrderedDict[str | None, ChatTemplate] = OrderedDict()
        self._own = self._read_template(None)

    def _read_template(self, source: str | None) -> ChatTemplate:
        """Read a template; None: the one of the model's file."""
        model = self._model
        return ChatTemplate(
            source or model.chat_template(),
            bos=model.special_text("bos"),
            eos=model.special_text("eos"),
            control_tokens=model.special_tokens(),
            ends=[model.piece(token, shows_control=True).decode(errors="replace")
                  for token in model.ending_tokens()],
            tool_source=None if source else model.chat_template("tool_use"),
        )  # fmt: skip

    def _template(self, source: str | None) -> ChatTemplate:
        if source is None:
            return self._own
        if source not in self._templates:
            self._templates[source] = self._read_template(source)
            if len(self._templates) > _N_TEMPLATES:
                self._templates.popitem(last=False)
        self._templates.move_to_end(source)
        return self._templates[source]

    def chat(self, request: ChatRequest, sampling: Sampling, n_ctx_tokens: int = 0) -> Prompted:
        """Give a request's prompt, and who listens to its answer.

        Args:
            request: messages, or a prompt in their place.
            sampling: its stop strings, and how long the answer may get.
            n_ctx_tokens: what prompt and answer may fill; of matter where it may be shortened.

        Raises:
            BadRequest: the model's template refuses it, or a tool is wanted that there is not.
        """
        limit = None
        if request.truncates and n_ctx_tokens:
            limit = limit_of(request, sampling.max_tokens, n_ctx_tokens)
            limit = limit if limit.n_goal > 0 else None
        if request.prompt is not None:
            return self._raw(request, request.prompt, sampling, limit)
        wanted = wanted_tools(request)
        tools = () if request.tool_choice == "none" else request.tools
        template = self._template(request.template)
        pieces = template.render(request.messages, tools=tools, think=request.think)
        n_original = None
        if limit is not None and self._may_exceed(limit, pieces, request):
            request, n_original = self._shortened(request, template, limit)
        if n_original is not None:
            pieces = template.render(request.messages, tools=tools, think=request.think)
        is_inside = bool(pieces) and template.opens_reasoning(pieces[-1].text)
        tokens, images = self._with_images(pieces, request)
        manner = template.manner
        return Prompted(
            tokens,
            listener_for(manner, tools, sampling, is_inside=is_inside),
            shown_tokens(manner, self._specials, has_tools=bool(tools)),
            constraint_of(request, manner, wanted, self._specials, is_inside=is_inside),
            images,
            n_original,
        )

    # Too long

    @staticmethod
    def _may_exceed(limit: Limit, pieces: Items[TextPiece], request: ChatRequest) -> bool:
        """Whether it is worth counting: a token has a byte at least, and counting has its price."""
        n_bytes = sum(len(piece.text.encode(errors="replace")) for piece in pieces)
        n_images = sum(len(one.images) for one in request.messages)
        n_most = n_bytes + 1 + len(request.prompt_tokens) + n_images * _IMAGE_TOKENS
        return n_most > limit.n_most

    def _shortened(
        self, request: ChatRequest, template: ChatTemplate, limit: Limit
    ) -> tuple[ChatRequest, int | None]:
        """Give a conversation that fits, if it can, and what the whole one would have taken."""
        tools = () if request.tool_choice == "none" else request.tools

        def count(messages: Items[Message]) -> int:
            pieces = template.render(messages, tools=tools, think=request.think)
            n_images = sum(len(one.images) for one in messages)
            return len(self._tokens(pieces)) + n_images * _IMAGE_TOKENS

        n_turns, n_before = count(request.messages), len(request.prompt_tokens)
        if n_turns + n_before <= limit.n_most:
            return request, None
        messages = request.messages
        if n_turns > limit.n_most:
            messages = fewer_turns(messages, limit, count)
            if count(messages) > limit.n_most:
                messages = shorter_last(messages, limit, count, self._plain, self._text)
        n_room = max(0, limit.n_goal - count(messages))
        before = self._ids(request.prompt_tokens)
        before = without_middle(before, n_room, request.n_keep_tokens) if n_room else before[:0]
        ids = tuple(before.tolist())
        return replace(request, messages=messages, prompt_tokens=ids), n_turns + n_before

    # Images

    def _with_images(
        self, pieces: Items[TextPiece], request: ChatRequest
    ) -> tuple[Tokens, tuple[PlacedImage, ...]]:
        """Tokenise a prompt with its images in their places, behind what came before it."""
        before = self._before(request.prompt_tokens)
        images = [image for message in request.messages for image in message.images]
        if not images:
            return np.concatenate([before, self._tokens(pieces, begins=not len(before))]), ()
        parts = self._cut_at_images(pieces, begins=not len(before))
        return self._placed([np.concatenate([before, parts[0]]), *parts[1:]], images)

    def _placed(
        self, parts: Items[Tokens], images: Items[bytes]
    ) -> tuple[Tokens, tuple[PlacedImage, ...]]:
        if not images:
            return np.concatenate(parts), ()
        if self._eyes is None:
            raise BadRequest("this model cannot see images: it has no projector")
        for number, image in enumerate(images, start=1):
            check_image(image, number)
        return place(parts, images, self._eyes.look)

    def _cut_at_images(self, pieces: Items[TextPiece], *, begins: bool) -> list[Tokens]:
        """Tokenise what stands before, between and behind the images."""
        parts: list[list[TextPiece]] = [[]]
        for piece in pieces:
            texts = [piece.text] if piece.is_literal else piece.text.split(MEDIA_MARK)
            for number, text in enumerate(texts):
                if number:
                    parts.append([])
                if text:
                    parts[-1].append(TextPiece(text, piece.is_literal))
        first, *others = parts
        return [
            self._tokens(first, begins=begins),
            *(self._tokens(part, begins=False, is_first=False) for part in others),
        ]

    # Prompts without a conversation

    def _raw(
        self, request: ChatRequest, prompt: str, sampling: Sampling, limit: Limit | None
    ) -> Prompted:
        """Give a prompt as it was written; what answers it is nothing but text."""
        if request.tools:
            raise BadRequest("a raw prompt has no place for tools")
        if request.suffix is not None:
            return self._insert(request, prompt, request.suffix, sampling, limit)
        before = self._before(request.prompt_tokens)
        text = self._tokens([TextPiece(prompt, False)], begins=not len(before))
        parts = [before, text]
        if request.images:
            n_begin = self._n_bos(text) if not len(before) else 0
            gaps = [text[:0]] * (len(request.images) - 1)
            parts = [np.concatenate([before, text[:n_begin]]), *gaps, text[n_begin:]]
        tokens, images = self._placed(parts, request.images)
        whole, n_original = tokens, None
        if limit is not None and len(whole) > limit.n_most:
            n_seen = max((one.start + len(one.piece.rows) for one in images), default=0)
            n_wished = request.n_keep_tokens if request.n_keep_tokens >= 0 else len(whole)
            n_keep = max(n_wished + self._n_bos(whole), n_seen)
            if n_seen < limit.n_goal:
                tokens, n_original = without_middle(whole, limit.n_goal, n_keep), len(whole)
        listener = PlainListener(sampling.stop)
        return Prompted(
            tokens, listener, constraint=request.constraint, images=images, n_original=n_original
        )

    def _insert(
        self,
        request: ChatRequest,
        prompt: str,
        suffix: str,
        sampling: Sampling,
        limit: Limit | None,
    ) -> Prompted:
        """Give a prompt whose answer goes between two texts.

        Raises:
            NoInsert: neither the template nor the file tells how this model is asked for it.
        """
        if request.images or request.prompt_tokens:
            raise BadRequest("what fills in the middle has no place for images or earlier tokens")
        template, marks = self._template(request.template), self._model.insert_tokens()
        if not template.inserts and marks is None:
            raise NoInsert

        def build(before: Tokens, behind: Tokens) -> Tokens:
            if template.inserts:
                texts = self._text(before), self._text(behind)
                return self._tokens(template.render_insert(*texts, think=request.think))
            assert marks is not None
            opens, gap, closes = (np.array([mark], np.int32) for mark in marks)
            return np.concatenate([self._bos, opens, before, gap, behind, closes])

        before, behind = self._plain(prompt), self._plain(suffix)
        tokens, n_original = build(before, behind), None
        if limit is not None and len(tokens) > limit.n_most:
            n_original = len(tokens)
            n_around = n_original - len(before) - len(behind)
            tokens = build(*around(before, behind, max(1, limit.n_goal - n_around)))
        listener = PlainListener(sampling.stop)
        return Prompted(tokens, listener, constraint=request.constraint, n_original=n_original)

    # Tokens

    @cached_property
    def _specials(self) -> dict[str, int]:
        return self._model.special_tokens()

    @cached_property
    def _bos(self) -> Tokens:
        """What the model wants before every prompt, if it wants anything."""
        if not self._model.adds_bos:
            return np.empty(0, np.int32)
        return self._model.tokenise("", with_special=True, parse_special=False)[:1]

    def _n_bos(self, tokens: Tokens) -> int:
        has_bos = len(self._bos) and len(tokens) and tokens[0] == self._bos[0]
        return 1 if has_bos else 0

    def _before(self, ids: Items[int]) -> Tokens:
        """Give the tokens that stand before a prompt, with the model's own beginning."""
        tokens = self._ids(ids)
        if not len(tokens) or self._n_bos(tokens):
            return tokens
        return np.concatenate([self._bos, tokens])

    def _ids(self, ids: Items[int]) -> Tokens:
        """Take token ids from a request.

        Raises:
            BadRequest: the model has no such token.
        """
        for one in ids:
            if not 0 <= one < self._model.n_vocab:
                raise BadRequest(
                    f"there is no token {one}: the model's are 0 to {self._model.n_vocab - 1}"
                )
        return np.array(ids, np.int32)

    def count_chat(self, messages: Items[Message], template: str | None = None) -> int:
        """Count the tokens of a conversation's prompt."""
        return len(self._tokens(self._template(template).render(messages)))

    def _tokens(
        self, pieces: Items[TextPiece], *, begins: bool = True, is_first: bool = True
    ) -> Tokens:
        """Tokenise a rendered prompt.

        Args:
            pieces: its parts.
            begins: whether the model's BOS token belongs before it.
            is_first: whether anything else of the prompt stands before it.
        """
        bos = self._model.special_text("bos")
        # A template that writes BOS itself must not get a second one.
        has_bos = bool(bos and pieces and pieces[0].text.startswith(bos))
        if has_bos and is_first and not begins:
            first = replace(pieces[0], text=pieces[0].text.removeprefix(bos))
            pieces = [first, *pieces[1:]]
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

    def tokenise(self, text: str) -> list[int]:
        """Give a text's token ids; control tokens are read as such, and none is added."""
        ids: list[int] = self._model.tokenise(text, with_special=False, parse_special=True).tolist()
        return ids

    def detokenise(self, ids: Items[int]) -> str:
        """Give the text of token ids.

        Raises:
            BadRequest: the model has no such token.
        """
        return self._text(self._ids(ids))

    def _text(self, tokens: Tokens) -> str:
        return self._model.text(tokens.tolist())

    def _plain(self, text: str) -> Tokens:
        return self._model.tokenise(text, with_special=False, parse_special=False)


def answer_budget(
    n_prompt_tokens: int, max_tokens: int | None, n_ctx_tokens: int, *, reserves: bool = True
) -> int:
    """Tell how long an answer may get.

    >>> answer_budget(1000, 3000, 2048, reserves=False), answer_budget(48, -1, 2048)
    (1048, 2000)

    Raises:
        PromptTooLong: prompt and reserved answer together exceed the context.
    """
    n_reserved = reserved_tokens(max_tokens, n_ctx_tokens)
    n_least = n_reserved if reserves else 1
    if n_prompt_tokens + n_least > n_ctx_tokens or n_prompt_tokens == 0:
        raise PromptTooLong(n_prompt_tokens, n_least, n_ctx_tokens)
    n_left = n_ctx_tokens - n_prompt_tokens
    has_end = max_tokens is None or max_tokens > 0
    return min(n_reserved, n_left) if has_end else n_left
