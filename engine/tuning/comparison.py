"""Compare a model with its copy in another format: how fast each is, and how often they agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Tokens
from paddock.engine.native.context import Context, ContextOptions
from paddock.engine.native.model import Model
from paddock.engine.profile.bench import Bench, Clock, Shape

from .tuned import Speeds

# Texts are compared in windows, since the logits of each of their tokens are kept at once:
# 128 rows of a vocabulary of 150,000 are 77 MB. A window has at least so many tokens, since the
# first ones follow from nothing.
_N_WINDOW, _N_LEAST, _N_ROWS = 256, 64, 128
_N_PROMPT, _N_TOGETHER, _N_TIMES = 256, 8, 3
# Prompts of this length or shorter: eight of them together must fit into memory as well.
_N_LONGEST, _N_SHORTEST = 512, 32


def speeds(path: Path, like: Shape, texts: Sequence[str] = ()) -> Speeds:
    """Measure one file, with the threads and kernels of `like`; takes a second or two.

    The prompts are `texts`, in their median length up to 512 tokens; else 256 tokens of any kind.
    """
    model = Model(path, uses_extra_buffers=like.uses_extra_buffers)
    try:
        clock = Clock(60.0, like.n_threads)
        read = [_tokens(model, text) for text in texts]
        n_prompt = prompt_length([len(one) for one in read])
        n_cells = (_N_TOGETHER + 1) * 2 * n_prompt
        shape = replace(like, n_cells=n_cells, n_batch_tokens=min(n_prompt, _N_PROMPT))
        bench = Bench(model, shape, clock, _N_TOGETHER)
        if read:
            bench.use_text(np.concatenate(read).astype(np.int32))
        with bench.context:
            bench.read(0, 1)  # brings the file's pages in
            bench.clear()
            clock.forget_share()
            return _speeds(bench, clock, n_prompt)
    finally:
        model.close()


def prompt_length(lengths: Sequence[int]) -> int:
    """Return how many tokens a prompt has for texts of these lengths.

    >>> [prompt_length(lengths) for lengths in ([], [90, 300, 4000], [4000], [3])]
    [256, 300, 512, 32]
    """
    if not lengths:
        return _N_PROMPT
    return min(_N_LONGEST, max(_N_SHORTEST, sorted(lengths)[len(lengths) // 2]))


def _speeds(bench: Bench, clock: Clock, n_prompt: int) -> Speeds:
    read_s = []
    for _ in range(_N_TIMES):
        bench.clear()
        read_s.append(bench.read(0, n_prompt))
    alone_s = min(bench.step(1) for _ in range(2 * _N_TIMES))
    bench.spread(_N_TOGETHER)
    together_s = min(bench.step(_N_TOGETHER) for _ in range(2 * _N_TIMES))
    return Speeds(
        n_prompt / min(read_s),
        1 / alone_s,
        _N_TOGETHER / together_s,
        min(1.0, clock.share),
        n_prompt,
    )


def predictions(path: Path, texts: Sequence[str], n_tokens: int, like: Shape) -> NDArray[np.int32]:
    """Return the token that a model would say next after each token of real texts.

    Teacher-forced: the text goes on as it stands, whatever the model would have said. At most
    `n_tokens` tokens are used, evenly over the texts.
    """
    model = Model(path, uses_extra_buffers=like.uses_extra_buffers)
    try:
        options = ContextOptions(
            n_ctx_tokens=_N_WINDOW,
            n_batch_tokens=_N_ROWS,
            n_seq_max=1,
            n_threads=like.n_threads,
            flash_attention=like.flash_attention,
        )
        with Context(model, options) as context:
            read = [_tokens(model, text) for text in texts]
            rows = [
                _read(context, read[which][start : start + n])
                for which, start, n in windows([len(one) for one in read], n_tokens)
            ]
            return np.concatenate([np.empty(0, np.int32), *rows])
    finally:
        model.close()


def windows(lengths: Sequence[int], n_tokens: int) -> Iterator[tuple[int, int, int]]:
    """Yield pieces of texts, `n_tokens` altogether: which text, the first token, how many.

    The beginning of every text comes first, then the second piece of every text, and so on.

    >>> list(windows([100, 1000], 600))
    [(0, 0, 100), (1, 0, 256), (1, 256, 244)]
    """
    size = min(_N_WINDOW, max(_N_LEAST, -(-n_tokens // max(1, len(lengths)))))
    for start in range(0, max(lengths, default=0), size):
        for which, length in enumerate(lengths):
            n = min(size, length - start, n_tokens)
            if n > 0:
                yield which, start, n
                n_tokens -= n


def _tokens(model: Model, text: str) -> Tokens:
    return model.tokenise(text, with_special=True, parse_special=False)


def _read(context: Context, tokens: Tokens) -> NDArray[np.int32]:
    said = [np.empty(0, np.int32)]
    context.clear()
    for start in range(0, len(tokens), _N_ROWS):
        piece = tokens[start : start + _N_ROWS]
        n = len(piece)
        pos = np.arange(start, start + n, dtype=np.int32)
        context.decode(piece, pos, np.zeros(n, np.int32), np.ones(n, np.int8))
        said.append(context.logits(n).argmax(axis=1).astype(np.int32))
    return np.concatenate(said)


def agreement(first: NDArray[np.int32], second: NDArray[np.int32]) -> float:
    """Give the share of places where both would go on with the same token.

    >>> agreement(np.array([1, 2, 3, 4], np.int32), np.array([1, 2, 9, 4], np.int32))
    0.75
    """
    return float(np.mean(first == second)) if len(first) else 1.0
