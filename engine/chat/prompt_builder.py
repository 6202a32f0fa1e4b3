"""Prompts: from a request's messages or raw text to token ids, with the parser of the answer.

A worker does this before the scheduler, in a thread of its own: tokenising needs only the
vocabulary. Chat requests go through the model's chat template; raw prompts (text to continue, or a
gap to fill) do not, and their answers are plain text. The model's BOS token is added exactly once,
also where a template writes it itself.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from collections.abc import Sequence as Items
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.errors import BadRequest, NoInsert, PromptTooLong
from paddock.engine.llama.llama_model import Model
from paddock.engine.request import (
    ChatRequest,
    Constraint,
    Message,
    Sampling,
    Think,
    Tool,
    reserved_tokens,
)

from .answer_format import (
    answer_constraint,
    required_tools,
    stream_parser_for,
    visible_control_tokens,
)
from .chat_template import ChatTemplate, TextPiece
from .prompt_images import ImagePlaceholders, PlacedImage, check_image, place_images
from .prompt_truncation import (
    PromptLimit,
    cut_around_gap,
    cut_last_turn,
    cut_middle,
    drop_oldest_turns,
    prompt_limit,
)
from .stream_parser import PlainTextParser, StreamParser
from .template_messages import MEDIA_MARK

if TYPE_CHECKING:
    from paddock.engine.llama.vision import Projector


class PromptTokeniser:
    """Reads and writes token ids; safe from any thread."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @cached_property
    def specials(self) -> dict[str, int]:
        """The ids of control tokens and tags, by their texts."""
        return self._model.special_tokens()

    @cached_property
    def bos(self) -> Tokens:
        """What the model wants before every prompt, if it wants anything."""
        if not self._model.adds_bos:
            return np.empty(0, np.int32)
        return self._model.tokenise("", with_special=True, parse_special=False)[:1]

    def n_bos(self, tokens: Tokens) -> int:
        """Count the tokens at the beginning that are the model's own."""
        has_bos = len(self.bos) and len(tokens) and tokens[0] == self.bos[0]
        return 1 if has_bos else 0

    def read(
        self, pieces: Items[TextPiece], *, begins: bool = True, is_first: bool = True
    ) -> Tokens:
        """Return the tokens of a rendered prompt.

        Args:
            pieces: its parts.
            begins: whether the model's BOS token belongs before it.
            is_first: whether it is the rendered text's own beginning, not what follows an image.
        """
        adds_bos = self._model.adds_bos
        bos = self._model.special_text("bos")
        # A template that writes BOS itself must not get a second one.
        has_bos = bool(bos and pieces and pieces[0].text.startswith(bos))
        if adds_bos and has_bos and is_first and not begins:
            first = replace(pieces[0], text=pieces[0].text.removeprefix(bos))
            pieces = [first, *pieces[1:]]
        wants_bos = begins and adds_bos and not has_bos
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
        return np.concatenate([self.plain(text[:1]), self.plain(text[1:])])

    def plain(self, text: str) -> Tokens:
        """Return the tokens of mere text, without what the model puts around a prompt."""
        return self._model.tokenise(text, with_special=False, parse_special=False)

    def marked(self, text: str) -> Tokens:
        """Return the tokens of a text; control tokens are read as such, and none is added."""
        return self._model.tokenise(text, with_special=False, parse_special=True)

    def text(self, tokens: Tokens) -> str:
        """Return the text of tokens, control tokens as they are spelled."""
        return self._model.text(tokens.tolist())

    def known(self, ids: Items[int]) -> Tokens:
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

    def earlier(self, ids: Items[int]) -> Tokens:
        """Take the tokens that stand before a prompt, with the model's own beginning.

        Raises:
            BadRequest: the model has no such token.
        """
        tokens = self.known(ids)
        if not len(tokens) or self.n_bos(tokens):
            return tokens
        return np.concatenate([self.bos, tokens])


PlaceImages = Callable[[Sequence[Tokens], Sequence[bytes]], tuple[Tokens, tuple[PlacedImage, ...]]]
"""Puts images between texts, of which there is one more."""
FillInMiddleTokens = tuple[int, int, int]
"""The tokens before what begins, before what ends, and before what goes between."""


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A prompt in tokens."""

    tokens: Tokens
    images: tuple[PlacedImage, ...] = field(default=())
    n_original: int | None = None
    """What it had before it was shortened; None: it was not."""


def continuation_prompt(
    request: ChatRequest,
    prompt: str,
    tokeniser: PromptTokeniser,
    placed: PlaceImages,
    limit: PromptLimit | None,
) -> RawPrompt:
    """Return a text as it was written, behind the tokens and images that stand before it.

    Raises:
        BadRequest: it is empty, or an image cannot be shown.
    """
    earlier = tokeniser.earlier(request.prompt_tokens)
    text = tokeniser.read([TextPiece(prompt, False)], begins=not len(earlier))
    parts = [earlier, text]
    if request.images:
        n_begin = 0 if len(earlier) else tokeniser.n_bos(text)
        gaps = [text[:0]] * (len(request.images) - 1)
        parts = [np.concatenate([earlier, text[:n_begin]]), *gaps, text[n_begin:]]
    tokens, images = placed(parts, request.images)
    if not len(tokens):
        raise BadRequest("the prompt is empty")
    n_seen = max((one.start + len(one.piece.rows) for one in images), default=0)
    if limit is None or len(tokens) <= limit.n_most or n_seen >= limit.n_goal:
        return RawPrompt(tokens, images)
    n_wished = request.n_keep_tokens if request.n_keep_tokens >= 0 else len(tokens)
    n_keep = max(n_wished + tokeniser.n_bos(tokens), n_seen)
    return RawPrompt(cut_middle(tokens, limit.n_goal, n_keep), images, len(tokens))


def fill_in_middle_prompt(
    request: ChatRequest,
    texts: tuple[str, str],
    tokeniser: PromptTokeniser,
    template: ChatTemplate,
    marks: FillInMiddleTokens | None,
    limit: PromptLimit | None,
) -> RawPrompt:
    """Return two texts so that the answer goes between them.

    Args:
        request: whose tokens of an earlier answer stand before all else.
        texts: what stands before the gap and behind it.
        tokeniser: the model's.
        template: writes both, if it has a place for them.
        marks: the model's own tokens for it; needed where the template has no place.
        limit: how long the prompt may get.
    """
    earlier = tokeniser.earlier(request.prompt_tokens)

    def build(before: Tokens, behind: Tokens) -> Tokens:
        if template.inserts:
            pieces = template.render_insert(
                tokeniser.text(before), tokeniser.text(behind), think=request.think
            )
            return np.concatenate([earlier, tokeniser.read(pieces, begins=not len(earlier))])
        assert marks is not None
        opens, gap, closes = (np.array([mark], np.int32) for mark in marks)
        begins = earlier if len(earlier) else tokeniser.bos
        return np.concatenate([begins, opens, before, gap, behind, closes])

    before, behind = (tokeniser.plain(text) for text in texts)
    whole = build(before, behind)
    if limit is None or len(whole) <= limit.n_most:
        return RawPrompt(whole)
    n_around = len(whole) - len(before) - len(behind)
    room = max(1, limit.n_goal - n_around)
    return RawPrompt(build(*cut_around_gap(before, behind, room)), n_original=len(whole))


# Templates that requests bring along; to study one takes 50 ms.
_N_TEMPLATES = 16

# Looking at an image takes seconds, so what it takes is guessed while turns are chosen.
_IMAGE_TOKENS = 768


@dataclass(frozen=True, slots=True)
class BuiltPrompt:
    """A conversation, ready to be answered."""

    tokens: Tokens
    listener: StreamParser
    shown: frozenset[int] = frozenset()
    """Control tokens that the listener wants to read as text."""
    constraint: Constraint | None = None
    """What the answer must match: the request's own wish, or what a forced tool call needs."""
    images: tuple[PlacedImage, ...] = ()
    """In `tokens`, each image's positions hold negative numbers: equal ones for equal images."""
    n_original: int | None = None
    """What the prompt had before it was shortened; None: it was not."""


class PromptBuilder:
    """Renders and tokenises for one model."""

    def __init__(self, model: Model, eyes: Projector | None = None) -> None:
        self._model = model
        self._eyes = eyes
        self._stand_ins = ImagePlaceholders()
        self._tokeniser = PromptTokeniser(model)
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

    def chat(self, request: ChatRequest, sampling: Sampling, n_ctx_tokens: int = 0) -> BuiltPrompt:
        """Return a request's prompt, and who listens to its answer.

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
            limit = prompt_limit(request, sampling.max_tokens, n_ctx_tokens)
            limit = limit if limit.n_goal > 0 else None
        if request.prompt is not None:
            return self._bare(request, request.prompt, sampling, limit)
        wanted = required_tools(request)
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
        return BuiltPrompt(
            tokens,
            stream_parser_for(manner, tools, sampling, is_inside=is_inside),
            visible_control_tokens(manner, specials, has_tools=bool(tools)),
            answer_constraint(request, manner, wanted, specials, is_inside=is_inside),
            images,
            n_original,
        )

    # Too long

    @staticmethod
    def _may_exceed(limit: PromptLimit, pieces: Items[TextPiece], request: ChatRequest) -> bool:
        """Whether it is worth counting: a token has a byte at least, and counting has its price."""
        n_bytes = sum(len(piece.text.encode(errors="replace")) for piece in pieces)
        n_images = sum(len(one.images) for one in request.messages)
        n_most = n_bytes + 1 + len(request.prompt_tokens) + n_images * _IMAGE_TOKENS
        return n_most > limit.n_most

    def _shortened(
        self, request: ChatRequest, template: ChatTemplate, limit: PromptLimit
    ) -> tuple[ChatRequest, int | None]:
        """Return a conversation that fits, if it can, and what the whole one would have taken."""
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
            messages = drop_oldest_turns(messages, limit, count)
            if count(messages) > limit.n_most and request.shifts is not False:
                messages = cut_last_turn(messages, limit, count, read.plain, read.text)
        n_room = max(0, limit.n_goal - count(messages))
        before = read.known(request.prompt_tokens)
        before = cut_middle(before, n_room, request.n_keep_tokens) if n_room else before[:0]
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
        return place_images(parts, images, self._eyes.look, self._stand_ins)

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
        self, request: ChatRequest, prompt: str, sampling: Sampling, limit: PromptLimit | None
    ) -> BuiltPrompt:
        """Return a prompt as it was written; what answers it is nothing but text.

        Raises:
            NoInsert: neither the template nor the file tells how a gap is filled.
        """
        if request.tools:
            raise BadRequest("a prompt without a conversation has no place for tools")
        if request.images and request.suffix is not None:
            raise BadRequest("a prompt with a suffix has no place for images")
        if request.suffix is None:
            bare = continuation_prompt(request, prompt, self._tokeniser, self._placed, limit)
        else:
            template, marks = self._template(request.template), self._model.insert_tokens()
            if not template.inserts and marks is None:
                raise NoInsert
            texts = prompt, request.suffix
            bare = fill_in_middle_prompt(request, texts, self._tokeniser, template, marks, limit)
        return BuiltPrompt(
            bare.tokens,
            PlainTextParser(sampling.stop),
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
        """Return a text's token ids; control tokens are read as such, and none is added."""
        ids: list[int] = self._tokeniser.marked(text).tolist()
        return ids

    def detokenise(self, ids: Items[int]) -> str:
        """Return the text of token ids.

        Raises:
            BadRequest: the model has no such token.
        """
        return self._tokeniser.text(self._tokeniser.known(ids))


def answer_limit_tokens(
    n_prompt_tokens: int, max_tokens: int | None, n_ctx_tokens: int, *, reserves: bool = True
) -> int:
    """Return how long an answer may get.

    >>> answer_limit_tokens(1000, 3000, 2048, reserves=False), answer_limit_tokens(48, -1, 2048)
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
