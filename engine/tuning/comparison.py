"""Compare a model with its copy in another format: how fast each is, and how often they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paddock.engine.native.context import Context, ContextOptions
from paddock.engine.native.model import Model
from paddock.engine.profile.bench import Bench, Clock, Shape

from .tuned import Speeds

# Texts are compared in windows, since the logits of each of their tokens are kept at once:
# 128 rows of a vocabulary of 150,000 are 77 MB.
_N_WINDOW, _N_ROWS = 256, 128
_N_PROMPT, _N_TOGETHER, _N_TIMES = 256, 8, 3


def speeds(path: Path, like: Shape) -> Speeds:
    """Measure one file, with the threads and kernels of `like`; takes a second or two."""
    model = Model(path, uses_extra_buffers=like.uses_extra_buffers)
    try:
        clock = Clock(60.0, like.n_threads)
        n_cells = (_N_TOGETHER + 1) * 2 * _N_PROMPT
        shape = replace(like, n_cells=n_cells, n_batch_tokens=_N_PROMPT)
        bench = Bench(model, shape, clock, _N_TOGETHER)
        with bench.context:
            bench.read(0, 1)  # brings the file's pages in
            bench.clear()
            clock.forget_share()
            return _speeds(bench, clock)
    finally:
        model.close()


def _speeds(bench: Bench, clock: Clock) -> Speeds:
    read_s = []
    for _ in range(_N_TIMES):
        bench.clear()
        read_s.append(bench.read(0, _N_PROMPT))
    alone_s = min(bench.step(1) for _ in range(2 * _N_TIMES))
    bench.spread(_N_TOGETHER)
    together_s = min(bench.step(_N_TOGETHER) for _ in range(2 * _N_TIMES))
    return Speeds(
        _N_PROMPT / min(read_s), 1 / alone_s, _N_TOGETHER / together_s, min(1.0, clock.share)
    )


def predictions(path: Path, texts: Sequence[str], n_tokens: int, like: Shape) -> NDArray[np.int32]:
    """Give the token that a model would say next after each token of real texts.

    Teacher-forced: the text goes on as it stands, whatever the model would have said. The first
    of at most `n_tokens` tokens are used, evenly over the texts.
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
            each = min(_N_WINDOW, -(-n_tokens // max(1, len(texts))))
            rows = [_read(context, model, text, each) for text in texts]
            return np.concatenate(rows)[:n_tokens]
    finally:
        model.close()


def _read(context: Context, model: Model, text: str, n_most: int) -> NDArray[np.int32]:
    tokens = model.tokenise(text, with_special=True, parse_special=False)[:n_most]
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
