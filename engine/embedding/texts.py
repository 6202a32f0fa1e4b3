"""From texts to counted pieces of tokens: whole, or split or cut where the request wants it so.

Runs beside the thread that computes, since tokenising needs only the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.errors import TextRefused, TextTooLong
from paddock.engine.native.model import Model
from paddock.engine.request import OnOverflow

# Where a long text is best divided is looked for in the last quarter of each part.
_LOOK_BACK = 4
_ENDS = (".", "!", "?", "\u3002", "\uff01", "\uff1f", "\n")


@dataclass(frozen=True, slots=True)
class Read:
    """A text in tokens."""

    pieces: tuple[Tokens, ...]
    """One, unless it is split; each with what the model puts around a text."""
    n_cut: int = 0
    """Tokens that were left out at its end."""


class TextReader:
    """Tokenises for one embedding model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._before, self._after = self._surroundings()

    def read(
        self, texts: Sequence[str], n_ctx_tokens: int, on_overflow: OnOverflow = "error"
    ) -> list[Read]:
        """Give each text's pieces.

        Raises:
            TextTooLong: one does not fit whole, and is neither to be split nor to be cut.
            TextRefused: one has no tokens at all.
        """
        return [self._read(index, text, n_ctx_tokens, on_overflow)
                for index, text in enumerate(texts)]  # fmt: skip

    def read_pairs(
        self, query: str, documents: Sequence[str], n_ctx_tokens: int, on_overflow: OnOverflow
    ) -> list[Read]:
        """Return the tokens of each document behind the query, as the reranker was trained.

        Raises:
            TextTooLong: a document does not fit beside the query, and is not to be cut.
        """
        form = self._model.chat_template("rerank")
        pairs = []
        for index, document in enumerate(documents):
            before, plain, after = self._pair(form, query, document)
            room = n_ctx_tokens - len(before) - len(after)
            if len(plain) > room and (on_overflow != "cut" or room <= 0):
                raise TextTooLong(index, len(before) + len(plain) + len(after), n_ctx_tokens)
            tokens = np.concatenate([before, plain[:room], after]).astype(np.int32)
            pairs.append(Read((tokens,), max(0, len(plain) - room)))
        return pairs

    def _pair(self, form: str | None, query: str, document: str) -> tuple[Tokens, Tokens, Tokens]:
        """Return the tokens before a document, its own, and those after it, as llama-server."""
        model = self._model
        if form is not None:
            whole = form.replace("{query}", query)
            head, _, tail = whole.partition("{document}")
            tokens = model.tokenise(head + document + tail, with_special=False, parse_special=True)
            return tokens[:0], tokens, tokens[:0]
        asked, plain = (
            model.tokenise(text, with_special=False, parse_special=False)
            for text in (query, document)
        )
        begin, middle, end = model.pair_tokens()
        before = np.concatenate([np.array(begin, np.int32), asked, np.array(middle, np.int32)])
        return before, plain, np.array(end, np.int32)

    def _read(self, index: int, text: str, n_ctx_tokens: int, on_overflow: OnOverflow) -> Read:
        tokens = self._model.tokenise(text, with_special=True, parse_special=False)
        if not len(tokens):
            raise TextRefused(index, "has no tokens, so it has no vector")
        if len(tokens) <= n_ctx_tokens:
            return Read((tokens,))
        room = n_ctx_tokens - len(self._before) - len(self._after)
        if on_overflow == "error" or room <= 0:
            raise TextTooLong(index, len(tokens), n_ctx_tokens)
        plain = tokens[len(self._before) : len(tokens) - len(self._after)]
        if on_overflow == "cut":
            return Read((self._dressed(plain[:room]),), len(plain) - room)
        words = [self._word(token) for token in plain.tolist()]
        return Read(tuple(self._dressed(plain[begin:end]) for begin, end in split(words, room)))

    def _dressed(self, plain: Tokens) -> Tokens:
        return np.concatenate([self._before, plain, self._after]).astype(np.int32)

    def _word(self, token: int) -> str:
        return self._model.piece(token).decode("utf-8", errors="replace")

    def _surroundings(self) -> tuple[Tokens, Tokens]:
        """Tell what the model puts before and after a text."""
        bare = self._model.tokenise("a", with_special=False, parse_special=False)
        dressed = self._model.tokenise("a", with_special=True, parse_special=False)
        n_around = len(dressed) - len(bare)
        n_before = next(
            n for n in range(n_around + 1) if np.array_equal(dressed[n : n + len(bare)], bare)
        )
        return dressed[:n_before], dressed[n_before + len(bare) :]


def split(words: Sequence[str], room: int) -> list[tuple[int, int]]:
    """Divide tokens, given by their text, into parts of like length, hardly more than must be.

    A part ends with a sentence where one ends in its last quarter, else before a word.

    >>> split([" a", " b", " c.", " d", " e"], 4)
    [(0, 3), (3, 5)]
    """
    parts, begin = [], 0
    while len(words) - begin > room:
        n_left = len(words) - begin
        end = begin + -(-n_left // -(-n_left // room))
        end = _border(words, max(begin + 1, end - (end - begin) // _LOOK_BACK), end)
        parts.append((begin, end))
        begin = end
    return [*parts, (begin, len(words))]


def _border(words: Sequence[str], low: int, high: int) -> int:
    """Give the last good place to divide between two: after a sentence, else before a word."""
    wishes: tuple[Callable[[int], bool], ...] = (
        lambda at: words[at - 1].rstrip(" ").endswith(_ENDS),
        lambda at: words[at][:1].isspace(),
    )
    for is_good in wishes:
        for at in range(high, low - 1, -1):
            if is_good(at):
                return at
    return high
