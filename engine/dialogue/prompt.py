"""From messages to counted token ids: what a worker does with a request before the scheduler.

Runs beside the owner thread, since tokenising needs only the vocabulary.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.errors import BadRequest, NoInsert, PromptTooLong
from paddock.engine.native.model import Model
from paddock.engine.request import (
    ChatRequest,
    Constraint,
    Message,
    Sampling,
    Think,
    Tool,
    reserved_tokens,
)

from .bare import fill_in, go_on
from .chat import ChatTemplate, TextPiece
from .expecting import constraint_of, listener_for, shown_tokens, wanted_tools
from .images import PlacedImage, StandIns, check_image, place
from .listener import Listener, PlainListener
from .shortening import Limit, fewer_turns, limit_of, shorter_last, without_middle
from .tokeniser import Tokeniser
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
        self._stand_ins = StandIns()
        self._tokeniser = Tokeniser(model)
        self._templates_lock = threading.Lock()
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
        with self._templates_lock:
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
        is_cut = request.prompt is None or request.shifts is not False
        if request.truncates and is_cut and n_ctx_tokens:
            limit = limit_of(request, sampling.max_tokens, n_ctx_tokens)
            limit = limit if limit.n_goal > 0 else None
        if request.prompt is not None:
            return self._bare(request, request.prompt, sampling, limit)
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
        manner, specials = template.manner, self._tokeniser.specials
        return Prompted(
            tokens,
            listener_for(manner, tools, sampling, is_inside=is_inside),
            shown_tokens(manner, specials, has_tools=bool(tools)),
            constraint_of(request, manner, wanted, specials, is_inside=is_inside),
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
            return len(self._tokeniser.read(pieces)) + n_images * _IMAGE_TOKENS

        n_turns, n_before = count(request.messages), len(request.prompt_tokens)
        if n_turns + n_before <= limit.n_most:
            return request, None
        messages, read = request.messages, self._tokeniser
        if n_turns > limit.n_most:
            messages = fewer_turns(messages, limit, count)
            if count(messages) > limit.n_most and request.shifts is not False:
                messages = shorter_last(messages, limit, count, read.plain, read.text)
        n_room = max(0, limit.n_goal - count(messages))
        before = read.known(request.prompt_tokens)
        before = without_middle(before, n_room, request.n_keep_tokens) if n_room else before[:0]
        ids = tuple(before.tolist())
        return replace(request, messages=messages, prompt_tokens=ids), n_turns + n_before

    # Images

    def _with_images(
        self, pieces: Items[TextPiece], request: ChatRequest
    ) -> tuple[Tokens, tuple[PlacedImage, ...]]:
        """Tokenise a prompt with its images in their places, behind what came before it."""
        before, read = self._tokeniser.earlier(request.prompt_tokens), self._tokeniser.read
        images = [image for message in request.messages for image in message.images]
        if not images:
            return np.concatenate([before, read(pieces, begins=not len(before))]), ()
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
        return place(parts, images, self._eyes.look, self._stand_ins)

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
            self._tokeniser.read(first, begins=begins),
            *(self._tokeniser.read(part, begins=False, is_first=False) for part in others),
        ]

    # Prompts without a conversation

    def _bare(
        self, request: ChatRequest, prompt: str, sampling: Sampling, limit: Limit | None
    ) -> Prompted:
        """Give a prompt as it was written; what answers it is nothing but text.

        Raises:
            NoInsert: neither the template nor the file tells how a gap is filled.
        """
        if request.tools:
            raise BadRequest("a prompt without a conversation has no place for tools")
        if request.images and request.suffix is not None:
            raise BadRequest("a prompt with a suffix has no place for images")
        if request.suffix is None:
            bare = go_on(request, prompt, self._tokeniser, self._placed, limit)
        else:
            template, marks = self._template(request.template), self._model.insert_tokens()
            if not template.inserts and marks is None:
                raise NoInsert
            texts = prompt, request.suffix
            bare = fill_in(request, texts, self._tokeniser, template, marks, limit)
        return Prompted(
            bare.tokens,
            PlainListener(sampling.stop),
            constraint=request.constraint,
            images=bare.images,
            n_original=bare.n_original,
        )

    # What needs no answer

    def count_chat(
        self,
        messages: Items[Message],
        template: str | None = None,
        tools: Items[Tool] = (),
        think: Think | None = None,
    ) -> int:
        """Count the tokens of a conversation's prompt."""
        pieces = self._template(template).render(messages, tools=tools, think=think)
        return len(self._tokeniser.read(pieces))

    def count(self, texts: Items[str]) -> list[int]:
        """Count each text's tokens, without what the model puts around a prompt."""
        return [len(self._tokeniser.plain(text)) for text in texts]

    def tokenise(self, text: str) -> list[int]:
        """Give a text's token ids; control tokens are read as such, and none is added."""
        ids: list[int] = self._tokeniser.marked(text).tolist()
        return ids

    def detokenise(self, ids: Items[int]) -> str:
        """Give the text of token ids.

        Raises:
            BadRequest: the model has no such token.
        """
        return self._tokeniser.text(self._tokeniser.known(ids))


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
