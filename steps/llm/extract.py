"""Choose the sentences of a text that say most of it, by their vectors; no model writes.

Centrality is the cosine to the mean of all sentences, which orders them as the degree centrality of
LexRank does with weights in place of a threshold: the sum of a sentence's similarities to all
others is its product with their sum. Erkan and Radev, "LexRank: Graph-based Lexical Centrality as
Salience in Text Summarization", JAIR 22, 2004. Redundancy is held down by maximal marginal
relevance: Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering
Documents and Producing Summaries", SIGIR 1998.

`summarise` imports this module when it extracts: numpy and the tables of words are slow to load.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paddock.engine.request import REQUEST_TEXTS, ModelSpec
from paddock.engine.system.text import counted
from paddock.pipelines.checking.functions import words
from paddock.steps.base import StepError, Tools, Vector
from paddock.steps.text.sentences import TextSpan, prose_sentences, text_lines
from paddock.steps.text.text_parts import TextPart
from paddock.steps.vectors.embed import embed_texts

from .ask_and_repair import UsageOutput

DEFAULT_WORDS = 80
MOST_SENTENCES = 10_000  # one or two minutes of embedding on two cores
_RELEVANCE = 0.7  # of MMR; the rest is what a sentence repeats of those chosen before
_WHOLE_WORDS = 12  # a shorter sentence leans on its neighbours: "They live there now."
_OPEN_SHARE = 0.4  # of the sentences, the most central; others fill no gap


def sentences_of(
    parts: Sequence[TextPart], pages: Sequence[str]
) -> list[tuple[TextPart, TextSpan]]:
    """Return the sentences of the prose, in order, each text once."""
    found: dict[str, tuple[TextPart, TextSpan]] = {}
    for part in parts:
        for span in prose_sentences(part.text, pages):
            found.setdefault(span.text, (part, span))
    return [*found.values()]


def lines_of(parts: Sequence[TextPart]) -> list[tuple[TextPart, TextSpan]]:
    return [(part, span) for part in parts for span in text_lines(part.text)]


def first_lines(lines: Sequence[str], n_words: int) -> range:
    """Return which lines at the beginning have at most so many words together, at least one.

    Raises:
        StepError: the first line is longer.
    """
    n_left = n_words
    for index, line in enumerate(lines):
        n_left -= _count(line)
        if n_left < 0:
            if not index:
                raise _too_short("line", n_words, _count(line))
            return range(index)
    return range(len(lines))


async def central_sentences(
    sentences: Sequence[str], n_words: int, model: ModelSpec, tools: Tools
) -> tuple[list[int] | None, UsageOutput]:
    """Return the indices of sentences with at most `n_words` words together, in order.

    None while planning, where no vector is known.

    Raises:
        StepError: the shortest sentence is longer.
        EngineError: the pool could not embed.
    """
    sizes = [_count(sentence) for sentence in sentences]
    if sum(sizes) <= n_words:
        return list(range(len(sentences))), UsageOutput()
    if min(sizes) > n_words:
        raise _too_short("sentence", n_words, min(sizes))
    compared = range(len(sentences))
    if len(sentences) > MOST_SENTENCES:
        compared = range(0, len(sentences), -(-len(sentences) // MOST_SENTENCES))
        tools.log.note(f"only {len(compared):,} of {len(sentences):,} sentences were compared.")
    vectors: list[Vector] = []
    n_calls = n_tokens = 0
    for first in range(0, len(compared), REQUEST_TEXTS):
        texts = [sentences[index] for index in compared[first : first + REQUEST_TEXTS]]
        reply = await embed_texts(tools, model, texts, on_overflow="split")
        vectors += reply.vectors
        n_calls, n_tokens = n_calls + 1, n_tokens + reply.usage.prompt_tokens
    usage = UsageOutput(calls=n_calls, prompt_tokens=n_tokens)
    if not any(map(any, vectors)):
        return None, usage
    chosen = most_central(vectors, [sizes[index] for index in compared], n_words)
    return sorted(compared[index] for index in chosen), usage


def unit_rows(vectors: Sequence[Vector]) -> NDArray[np.float32]:
    rows = np.asarray(vectors, np.float32)
    unit: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return unit


def most_central(vectors: Sequence[Vector], sizes: Sequence[int], n_words: int) -> list[int]:
    """Return indices by maximal marginal relevance, best first, as long as they fit.

    What is less central than half of the sentences fills no gap: a short remark would.

    >>> most_central([(1, 0), (1, 0.1), (0, 1)], [9, 9, 5], 10)
    [1]
    """
    rows = unit_rows(vectors)
    counts, chosen = np.asarray(sizes), list[int]()
    centrality = rows @ (counts @ rows) * np.minimum(1, counts / _WHOLE_WORDS)
    centrality /= max(float(centrality.max()), 1e-9)
    is_open = centrality >= np.quantile(centrality, 1 - _OPEN_SHARE)
    repeated = np.zeros(len(rows), dtype=np.float32)
    n_left = n_words
    while True:
        fits = is_open & (counts <= n_left)
        if not fits.any():
            # All of the central ones may be longer than `n_words`.
            if chosen or is_open.all():
                return chosen
            is_open[:] = True
            continue
        scores = _RELEVANCE * centrality - (1 - _RELEVANCE) * repeated
        best = int(np.argmax(np.where(fits, scores, -np.inf)))
        chosen.append(best)
        is_open[best] = False
        n_left -= sizes[best]
        repeated = np.maximum(repeated, rows @ rows[best])


def _count(text: str) -> int:
    return int(words(text) or 0)


def _too_short(what: str, n_words: int, least: int) -> StepError:
    which = "the first" if what == "line" else "the shortest"
    limit = counted(n_words, "word")
    return StepError(
        f"no {what} fits into {limit}: {which} has {least:,}.", remedy="Raise `words`."
    )
