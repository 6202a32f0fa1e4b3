"""Prompts without a conversation: text to go on with, and texts around a gap to be filled.

What answers them is nothing but text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.errors import BadRequest
from paddock.engine.request import ChatRequest

from .chat import ChatTemplate, TextPiece
from .images import PlacedImage
from .shortening import Limit, around, without_middle
from .tokeniser import Tokeniser

Placing = Callable[[Sequence[Tokens], Sequence[bytes]], tuple[Tokens, tuple[PlacedImage, ...]]]
"""Puts images between texts, of which there is one more."""
Marks = tuple[int, int, int]
"""The tokens before what begins, before what ends, and before what goes between."""


@dataclass(frozen=True, slots=True)
class Bare:
    """A prompt in tokens."""

    tokens: Tokens
    images: tuple[PlacedImage, ...] = field(default=())
    n_original: int | None = None
    """What it had before it was shortened; None: it was not."""


def go_on(
    request: ChatRequest, prompt: str, tokeniser: Tokeniser, placed: Placing, limit: Limit | None
) -> Bare:
    """Give a text as it was written, behind the tokens and images that stand before it.

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
        return Bare(tokens, images)
    n_wished = request.n_keep_tokens if request.n_keep_tokens >= 0 else len(tokens)
    n_keep = max(n_wished + tokeniser.n_bos(tokens), n_seen)
    return Bare(without_middle(tokens, limit.n_goal, n_keep), images, len(tokens))


def fill_in(
    request: ChatRequest,
    texts: tuple[str, str],
    tokeniser: Tokeniser,
    template: ChatTemplate,
    marks: Marks | None,
    limit: Limit | None,
) -> Bare:
    """Give two texts so that the answer goes between them.

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
        return Bare(whole)
    n_around = len(whole) - len(before) - len(behind)
    room = max(1, limit.n_goal - n_around)
    return Bare(build(*around(before, behind, room)), n_original=len(whole))
