"""Comparison of a copy with its original: do both say the same of real texts?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits, Tokens, Vectors
from paddock.engine.llama.forward_context import EmbeddingContext, ForwardContext
from paddock.engine.llama.llama_context import ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.openvino.ir_model import IrEncoder, WorkerModel
from paddock.engine.profile.measure import EMBED_TEXT, BenchOptions
from paddock.engine.system.records import Struct

from .copy_trials import CopyRefused, MeasuredModels, Weights

# Compared positions: by chance, a share of 0.96 of them differs by 0.004.
N_COMPARED = 2048
# Texts are compared in windows, since the logits of all their tokens are in memory at once: 128
# rows of a vocabulary of 150,000 are 77 MB. A window has a minimum length, since its first tokens
# have no context.
_N_WINDOW, _N_LEAST, _N_ROWS = 256, 64, 128
# The bound: share of next tokens that are the original's; of vectors their mean cosine. The
# original's own rounding of activations to 8 bits takes most of it. Copies of SmolLM2-135M, BF16
# and F16: from Q4_1 0.956 to 0.959, from Q4_K 0.950, from Q5_K 0.943 to 0.947.
LEAST_AGREEMENT, LEAST_COSINE = 0.93, 0.999
# A copy's perplexity on the reference text, as a multiple of the original's. openvino-genai reads
# some formats wrongly, and nothing but this tells: SmolLM2-135M from Q4_1 directly has 1.23.
MOST_PERPLEXITY = 1.005


class Computed(Struct, frozen=True):
    """Of each token of a text the likeliest next one, shape (n,); or vectors of texts."""

    values: NDArray[np.int32] | Vectors
    surprise: float = 0.0
    """Mean negative log-likelihood of the text's own next tokens."""


class Likeness(Struct, frozen=True):
    """How like its original a copy computes."""

    agreement: float
    """Share of the same likeliest tokens, or the mean cosine of vectors."""
    perplexity: float
    """As a multiple of the original's."""

    @classmethod
    def of(cls, original: Computed, copy: Computed) -> Likeness:
        share = agreement(original.values, copy.values)
        return cls(share, math.exp(copy.surprise - original.surprise))

    def require(self, *, is_embedder: bool) -> None:
        """Raise `CopyRefused` if a copy says something else than its original."""
        if self.agreement < (LEAST_COSINE if is_embedder else LEAST_AGREEMENT):
            raise CopyRefused(f"its next tokens differ ({self.agreement:.1%} are the same)")
        if self.perplexity > MOST_PERPLEXITY:
            raise CopyRefused(f"its perplexity is {self.perplexity:.3f} times as high")


class CopyComparison:
    """Compares copies with their original, which is computed once, for the first of them."""

    def __init__(
        self, original: Weights, texts: Sequence[str], like: BenchOptions, models: MeasuredModels
    ) -> None:
        self._original, self._texts, self._like, self._models = original, texts, like, models
        self._known: Computed | None = None

    def likeness_of(self, copy: Weights) -> Likeness:
        self._known = self._known or self._compute(self._original)
        return Likeness.of(self._known, self._compute(copy))

    def _compute(self, weights: Weights) -> Computed:
        model = self._models.load(weights, self._like)
        return computed_results(model, self._texts, N_COMPARED, self._like)


def computed_results(
    model: WorkerModel, texts: Sequence[str], n_tokens: int, like: BenchOptions
) -> Computed:
    """Compute at most `n_tokens` tokens of real texts, evenly over these (teacher forcing).

    Vectors are of length 1, one for each piece of a text.
    """
    options = ContextOptions(
        n_ctx_tokens=_N_WINDOW,
        n_batch_tokens=_N_WINDOW if like.embeds else _N_ROWS,
        n_seq_max=1,
        n_threads=like.n_threads,
        embeds=like.embeds,
        flash_attention=like.flash_attention,
    )
    read = [model.tokenise(text, with_special=True, parse_special=False) for text in texts]
    n_most = EMBED_TEXT if like.embeds else _N_WINDOW
    pieces = windows([len(tokens) for tokens in read], n_tokens, n_most)
    batches = (read[which][start : start + n] for which, start, n in pieces)
    if isinstance(model, IrEncoder) or (isinstance(model, Model) and like.embeds):
        with model.open_context(options) as encoder:
            return Computed(np.array([_vector(encoder, batch) for batch in batches], np.float32))
    with model.open_context(options) as context:
        return _predictions(context, batches)


def agreement(original: NDArray[Any], copy: NDArray[Any]) -> float:
    """Return the share of positions with the same likeliest token, or the mean cosine."""
    if not len(original):
        return 1.0
    if original.ndim > 1:
        return float(np.sum(original * copy, axis=1).mean())
    return float((original == copy).mean())


def windows(
    lengths: Sequence[int], n_tokens: int, n_most: int = _N_WINDOW
) -> Iterator[tuple[int, int, int]]:
    """Yield pieces of texts, `n_tokens` altogether: index of the text, first token, length.

    The first piece of every text comes first, then the second piece of every text, and so on.

    >>> list(windows([100, 1000], 600))
    [(0, 0, 100), (1, 0, 256), (1, 256, 244)]
    """
    size = min(n_most, max(_N_LEAST, -(-n_tokens // max(1, len(lengths)))))
    for start in range(0, max(lengths, default=0), size):
        for which, length in enumerate(lengths):
            n = min(size, length - start, n_tokens)
            if n > 0:
                yield which, start, n
                n_tokens -= n


def _predictions(context: ForwardContext[Any], batches: Iterable[Tokens]) -> Computed:
    likeliest, surprises = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for batch in batches:
        at = 0
        for rows in _rows(context, batch):
            likeliest.append(rows.argmax(axis=1).astype(np.int32))
            following = batch[at + 1 : at + len(rows) + 1]  # the last token has none
            at += len(rows)
            known = rows[: len(following)] - rows[: len(following)].max(axis=1, keepdims=True)
            own = known[np.arange(len(following)), following]
            surprises.append(np.log(np.exp(known).sum(axis=1)) - own)
    of_all = np.concatenate(surprises)
    return Computed(np.concatenate(likeliest), float(of_all.mean()) if len(of_all) else 0.0)


def _rows(context: ForwardContext[Any], tokens: Tokens) -> Iterator[Logits]:
    context.clear()
    for start in range(0, len(tokens), _N_ROWS):
        piece = tokens[start : start + _N_ROWS]
        n = len(piece)
        pos = np.arange(start, start + n, dtype=np.int32)
        context.decode(piece, pos, np.zeros(n, np.int32), np.ones(n, np.int8))
        yield context.logits(n)


def _vector(context: EmbeddingContext, tokens: Tokens) -> Vectors:
    n = len(tokens)
    context.clear()
    context.decode(tokens, np.arange(n, dtype=np.int32), np.zeros(n, np.int32), np.ones(n, np.int8))
    vector = context.embedding(0)
    length: Vectors = vector / np.linalg.norm(vector)
    return length
