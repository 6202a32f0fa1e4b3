"""Prompts: from a request's messages or raw text to token ids, with the parser of the answer.

A worker does this before the scheduler, in a thread of its own: tokenising needs only the
vocabulary. Chat requests go through the model's chat template; raw prompts (text to continue, or a
gap to fill) do not, and their answers are plain text. The model's BOS token is added exactly once,
also where a template writes it itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.errors import BadRequest, NoInsert, PromptTooLong
from paddock.engine.llama.vocabulary import Vocabulary
from paddock.engine.request import ChatRequest, Constraint, Message, Sampling, Think, Tool
from paddock.engine.system.records import Struct, replace

from .answer_format import answer_format, offered_tools, required_tools
from .chat_template import ChatTemplate
from .control_tokens import TextPiece
from .known_templates import is_foreign, served_template
from .prompt_images import ImagePlaceholders, PlacedImage, place_images
from .prompt_overflow import (
    PromptLimit,
    cut_around_gap,
    cut_last_turn,
    cut_middle,
    drop_oldest_turns,
    least_turns,
    prompt_limit,
)
from .stream_parser import PlainTextParser, StreamParser
from .template_messages import MEDIA_MARK
from .template_trials import ForeignTemplate, TemplateTrials

if TYPE_CHECKING:
    from paddock.engine.llama.vision import Projector


class PromptTokeniser:
    """Turns text into token ids and back; safe from any thread."""

    def __init__(self, model: Vocabulary) -> None:
        self._model = model

    @cached_property
    def special_ids(self) -> dict[str, int]:
        return self._model.special_tokens()

    @cached_property
    def bos(self) -> Tokens:
        if not self._model.adds_bos:
            return _NO_TOKENS
        return self._model.tokenise("", with_special=True, parse_special=False)[:1]

    @cached_property
    def longest_token_bytes(self) -> int:
        return max(len(self._model.piece(token)) for token in range(self._model.n_vocab))

    def n_bos(self, tokens: Tokens) -> int:
        """Return 1 if the tokens begin with the model's BOS token, else 0."""
        has_bos = len(self.bos) and len(tokens) and tokens[0] == self.bos[0]
        return 1 if has_bos else 0

    def tokenise(
        self, pieces: Sequence[TextPiece], *, begins: bool = True, is_first: bool = True
    ) -> Tokens:
        """Return the tokens of a rendered prompt.

        `begins`: the model's BOS token belongs before it; not `is_first`: it follows an image.
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
            # It spells a special token, and must stay text. Even without `parse_special`, llama.cpp
            # recognises tags that a model's makers added, so the first sign is tokenised alone.
            else np.concatenate(
                [self.tokenise_text(piece.text[:1]), self.tokenise_text(piece.text[1:])]
            )
            for number, piece in enumerate(pieces)
        ]  # fmt: skip
        return np.concatenate([_NO_TOKENS, *parts])

    def tokenise_text(self, text: str) -> Tokens:
        """Return the tokens of plain text, without BOS or EOS."""
        return self._model.tokenise(text, with_special=False, parse_special=False)

    def text(self, tokens: Tokens) -> str:
        """Return the text of tokens, control tokens as they are spelled."""
        return self._model.text(tokens.tolist())

    def checked(self, ids: Sequence[int]) -> Tokens:
        """Return token ids of a request as an array.

        Raises:
            BadRequest: the model has no such token.
        """
        for token in ids:
            if not 0 <= token < self._model.n_vocab:
                raise BadRequest(
                    f"there is no token {token}: the model's are 0 to {self._model.n_vocab - 1}"
                )
        return np.array(ids, np.int32)

    def tokens_before(self, ids: Sequence[int]) -> Tokens:
        """Return the tokens that stand before a prompt, with BOS where the model wants it."""
        tokens = self.checked(ids)
        if not len(tokens) or self.n_bos(tokens):
            return tokens
        return np.concatenate([self.bos, tokens])


_NO_TOKENS: Tokens = np.empty(0, np.int32)

# Encoding an image takes seconds, so its tokens are estimated while turns are chosen.
_IMAGE_TOKENS = 768


class BuiltPrompt(Struct, frozen=True):
    tokens: Tokens
    parser: StreamParser
    visible_tokens: frozenset[int] = frozenset()
    constraint: Constraint | None = None
    """What the answer must match: the request's constraint, or the grammar of a forced call."""
    images: tuple[PlacedImage, ...] = ()
    """In `tokens`, each image's positions hold negative numbers: equal ones for equal images."""
    n_original: int | None = None
    """Tokens of the prompt before it was truncated; None: it was not."""


class PromptBuilder:
    def __init__(self, model: Vocabulary, projector: Projector | None = None) -> None:
        self._model = model
        self._projector = projector
        self._placeholders = ImagePlaceholders()
        self._tokeniser = PromptTokeniser(model)
        self._of_file = model.chat_template()
        self._of_family = lru_cache(self._read_template)
        self._own = self._read_template(self._of_file, model.chat_template("tool_use"))
        self._trials = TemplateTrials()

    def _facts(self, source: str | None, tool_source: str | None = None) -> dict[str, Any]:
        model = self._model
        return dict(
            source=source,
            bos=model.special_text("bos"),
            eos=model.special_text("eos"),
            control_tokens=list(model.special_tokens()),
            ends=[model.piece(token, shows_control=True).decode(errors="replace")
                  for token in model.ending_tokens],
            tool_source=tool_source,
        )  # fmt: skip

    def _read_template(self, source: str | None, tool_source: str | None = None) -> ChatTemplate:
        return ChatTemplate(**self._facts(source, tool_source))

    def _template(self, source: str | None) -> ChatTemplate:
        """Return the file's template, which ends no more than its own worker, or another one."""
        served = served_template(source, self._of_file)
        if served is None or served is self._of_file:
            return self._own
        if is_foreign(source):
            return ForeignTemplate(self._facts(served), self._trials)
        return self._of_family(served)

    def chat(self, request: ChatRequest, sampling: Sampling, n_ctx_tokens: int = 0) -> BuiltPrompt:
        """Return a request's prompt, with the parser of its answer.

        `n_ctx_tokens`: what prompt and answer may fill together; it limits what a template may
        print, and how long a truncated prompt is. 0: no such limit.

        Raises:
            BadRequest: the model's template refuses it, or a required tool is not offered.
        """
        limit = None
        is_cut = request.prompt is None or request.shifts is not False
        if request.truncates and is_cut and n_ctx_tokens:
            limit = prompt_limit(request, sampling.max_tokens, n_ctx_tokens)
            limit = limit if limit.n_goal > 0 else None
        if request.prompt is not None:
            # Build a prompt without a template; its answer is plain text.
            if request.tools:
                raise BadRequest("a prompt without a conversation has no place for tools")
            if request.images and request.suffix is not None:
                raise BadRequest("a prompt with a suffix has no place for images")
            built = BuiltPrompt(
                _NO_TOKENS, PlainTextParser(sampling.stop), constraint=request.constraint
            )
            if request.suffix is None:
                return self._continuation(request, request.prompt, limit, built, n_ctx_tokens)
            texts = (request.prompt, request.suffix)
            return self._fill_in_middle(request, texts, limit, built)
        required = required_tools(request)
        tools = offered_tools(request)
        template = self._template(request.template)

        def render(messages: Sequence[Message]) -> tuple[TextPiece, ...]:
            return template.render(
                messages,
                tools=tools,
                think=request.think,
                variables=request.template_variables,
                n_ctx_tokens=n_ctx_tokens,
            )

        pieces = render(request.messages)
        n_original = None
        if limit is not None:
            request, n_original = self._truncated(request, pieces, render, limit)
        if n_original is not None:
            pieces = render(request.messages)
        if request.answers and template.chat_format.is_harmony:
            pieces = (*pieces, TextPiece("<|channel|>final<|message|>", is_literal=False))
        is_inside = bool(pieces) and template.opens_reasoning(pieces[-1].text)
        tokens, images = self._with_images(pieces, request, n_ctx_tokens)
        special_ids = self._tokeniser.special_ids
        parser, visible_tokens, constraint = answer_format(
            request, sampling, template.chat_format, required, special_ids, is_inside=is_inside
        )
        return BuiltPrompt(tokens, parser, visible_tokens, constraint, images, n_original)

    def check_length(self, request: ChatRequest, n_ctx_tokens: int) -> None:
        """Raise PromptTooLong for texts that cannot fit, however they are tokenised.

        To render and tokenise 20 MB takes 14 s, and the limits of templates end it with a reason
        of their own. The number of tokens is estimated from the beginning of the longest text.
        """
        texts = [message.content for message in request.messages]
        n_characters = sum(map(len, texts))
        if request.truncates or n_characters < 16 * n_ctx_tokens:
            return
        if n_characters > n_ctx_tokens * self._tokeniser.longest_token_bytes:
            text = max(texts, key=len)[:65_536]
            n_tokens = len(self._tokeniser.tokenise_text(text)) * n_characters // len(text)
            raise PromptTooLong(n_tokens, 1, n_ctx_tokens)

    # Truncation

    def _truncated(
        self,
        request: ChatRequest,
        pieces: Sequence[TextPiece],
        render: Callable[[Sequence[Message]], tuple[TextPiece, ...]],
        limit: PromptLimit,
    ) -> tuple[ChatRequest, int | None]:
        """Return a conversation that fits, if it can, and the tokens of the whole one."""
        tokeniser = self._tokeniser
        n_bytes = sum(len(piece.text.encode(errors="replace")) for piece in pieces)
        n_images = sum(len(message.images) for message in request.messages)
        n_most = n_bytes + 1 + len(request.prompt_tokens) + n_images * _IMAGE_TOKENS
        if n_most <= limit.n_most:  # each token has at least one byte: nothing has to be counted
            return request, None

        def count(messages: Sequence[Message]) -> int:
            n_images = sum(len(message.images) for message in messages)
            return len(tokeniser.tokenise(render(messages))) + n_images * _IMAGE_TOKENS

        n_turns, n_before = count(request.messages), len(request.prompt_tokens)
        if n_turns + n_before <= limit.n_most:
            return request, None
        messages = request.messages
        if n_turns > limit.n_most:
            with suppress(BadRequest):  # of empty turns, which a cut need not come to
                if count([replace(m, images=()) for m in least_turns(messages)]) > limit.n_most:
                    return request, None
            messages = drop_oldest_turns(messages, limit, count)
            if count(messages) > limit.n_most and request.shifts is not False:
                messages = cut_last_turn(
                    messages, limit, count, tokeniser.tokenise_text, tokeniser.text
                )
        n_free = max(0, limit.n_goal - count(messages))
        before = tokeniser.checked(request.prompt_tokens)
        before = cut_middle(before, n_free, request.n_keep_tokens) if n_free else before[:0]
        ids = tuple(before.tolist())
        return replace(request, messages=messages, prompt_tokens=ids), n_turns + n_before

    # Images

    def _with_images(
        self, pieces: Sequence[TextPiece], request: ChatRequest, n_ctx_tokens: int
    ) -> tuple[Tokens, tuple[PlacedImage, ...]]:
        """Tokenise a prompt with its images in their places, behind the earlier tokens."""
        before = self._tokeniser.tokens_before(request.prompt_tokens)
        tokenise = self._tokeniser.tokenise
        images = [image for message in request.messages for image in message.images]
        if not images:
            return np.concatenate([before, tokenise(pieces, begins=not len(before))]), ()
        parts: list[list[TextPiece]] = [[]]
        """The texts before, between and after the images."""
        for piece in pieces:
            texts = [piece.text] if piece.is_literal else piece.text.split(MEDIA_MARK)
            for number, text in enumerate(texts):
                if number:
                    parts.append([])
                if text:
                    parts[-1].append(TextPiece(text, piece.is_literal))
        first, *others = parts
        tokens = [
            np.concatenate([before, tokenise(first, begins=not len(before))]),
            *(tokenise(part, begins=False, is_first=False) for part in others),
        ]
        return self._place_images(tokens, images, request, n_ctx_tokens)

    def _place_images(
        self,
        parts: Sequence[Tokens],
        images: Sequence[bytes],
        request: ChatRequest,
        n_ctx_tokens: int,
    ) -> tuple[Tokens, tuple[PlacedImage, ...]]:
        if not images:
            return np.concatenate(parts), ()
        if self._projector is None:
            raise BadRequest("this model cannot see images: it has no projector")
        embed_image = partial(self._projector.embed_image, on_disk=request.keeps_images)
        return place_images(parts, images, embed_image, self._placeholders, n_ctx_tokens)

    # Raw prompts

    def _continuation(
        self,
        request: ChatRequest,
        prompt: str,
        limit: PromptLimit | None,
        built: BuiltPrompt,
        n_ctx_tokens: int,
    ) -> BuiltPrompt:
        """Add a text as it is, behind the request's earlier tokens and images."""
        earlier = self._tokeniser.tokens_before(request.prompt_tokens)
        text = self._tokeniser.tokenise([TextPiece(prompt, False)], begins=not len(earlier))
        parts = [earlier, text]
        if request.images:
            n_begin = 0 if len(earlier) else self._tokeniser.n_bos(text)
            gaps = [text[:0]] * (len(request.images) - 1)
            parts = [np.concatenate([earlier, text[:n_begin]]), *gaps, text[n_begin:]]
        tokens, images = self._place_images(parts, request.images, request, n_ctx_tokens)
        if not len(tokens):
            raise BadRequest("the prompt is empty")
        n_images_end = max((image.start + len(image.piece.rows) for image in images), default=0)
        if limit is None or len(tokens) <= limit.n_most or n_images_end >= limit.n_goal:
            return replace(built, tokens=tokens, images=images)
        n_requested = request.n_keep_tokens if request.n_keep_tokens >= 0 else len(tokens)
        n_keep = max(n_requested + self._tokeniser.n_bos(tokens), n_images_end)
        kept = cut_middle(tokens, limit.n_goal, n_keep)
        return replace(built, tokens=kept, images=images, n_original=len(tokens))

    def _fill_in_middle(
        self,
        request: ChatRequest,
        texts: tuple[str, str],
        limit: PromptLimit | None,
        built: BuiltPrompt,
    ) -> BuiltPrompt:
        """Add the texts before and after a gap, by the model's own tokens."""
        if (marks := self._model.insert_tokens()) is None:
            raise NoInsert
        tokeniser = self._tokeniser
        earlier = tokeniser.tokens_before(request.prompt_tokens)
        begins = earlier if len(earlier) else tokeniser.bos
        prefix, suffix, middle = (np.array([mark], np.int32) for mark in marks)

        def build(before: Tokens, after: Tokens) -> Tokens:
            return np.concatenate([begins, prefix, before, suffix, after, middle])

        before, after = (tokeniser.tokenise_text(text) for text in texts)
        whole = build(before, after)
        if limit is None or len(whole) <= limit.n_most:
            return replace(built, tokens=whole)
        n_around = len(whole) - len(before) - len(after)
        cut = cut_around_gap(before, after, max(1, limit.n_goal - n_around))
        return replace(built, tokens=build(*cut), n_original=len(whole))

    # Counting and tokenising

    def count_chat(
        self,
        messages: Sequence[Message],
        template: str | None = None,
        tools: Sequence[Tool] = (),
        think: Think | None = None,
        n_ctx_tokens: int = 0,
    ) -> int:
        pieces = self._template(template).render(
            messages, tools=tools, think=think, n_ctx_tokens=n_ctx_tokens
        )
        return len(self._tokeniser.tokenise(pieces))

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(self._tokeniser.tokenise_text(text)) for text in texts]

    def answers(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of possible answers; each ends its turn if one begins another.

        Raises:
            BadRequest: one has no tokens.
        """
        found = [self._tokeniser.tokenise_text(text) for text in texts]
        if not all(map(len, found)):
            raise BadRequest("a possible answer is empty")
        rows = [tuple(tokens.tolist()) for tokens in found]
        if any(a != b and a == b[: len(a)] for a in rows for b in rows):
            end = np.array(self._model.ending_tokens[:1], np.int32)
            found = [np.concatenate([tokens, end]) for tokens in found]
        return found

    def tokenise(self, text: str) -> list[int]:
        """Return a text's token ids; control tokens in it are recognised, and none is added."""
        ids: list[int] = self._model.tokenise(text, with_special=False, parse_special=True).tolist()
        return ids

    def detokenise(self, ids: Sequence[int]) -> str:
        return self._tokeniser.text(self._tokeniser.checked(ids))
