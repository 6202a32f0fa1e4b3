"""Guess what an answer says next from what was said before: drafts by prompt lookup. Pure.

Extraction and rewriting repeat their document. Where the last tokens of an answer stand earlier in
the prompt, what followed there is a good guess; checking a guess costs a fraction of computing it,
and a wrong one is simply not taken, so the answer stays the same. The idea is prompt lookup
decoding (github.com/apoorvumang/prompt-lookup-decoding); the length follows what was accepted.
"""

from __future__ import annotations

import math

from paddock.engine.arrays import Tokens

# So many tokens must stand earlier in the same order: two agree by chance too often.
N_GRAM = 3
MOST_TOKENS = 48
FIRST_PAUSE, LONGEST_PAUSE = 8, 64

# What is believed before the first guess, in tokens: of nine, eight were right.
_FIRST_RIGHT, _FIRST_WRONG = 8.0, 1.0
_FORGETTING = 0.8


class Drafter:
    """Guesses for one answer. Adding a token and guessing cost 1 µs (one dictionary entry).

    A prompt is indexed with the first guess that pays: 8,000 tokens take 2 ms, which the next step
    would wait for.

    The chance that the next guessed token is right follows from the last guesses. The n-th token
    of a guess is needed only if all before it were right, so guessing it pays as long as the
    chance to the power of n is above the price of checking it.
    """

    def __init__(self, prompt: Tokens) -> None:
        self._tokens: list[int] = prompt.tolist()
        self._after: dict[tuple[int, ...], int] = {}
        """Where each run of `N_GRAM` tokens was last followed by something."""
        self._n_indexed = N_GRAM
        self._n_right, self._n_wrong = _FIRST_RIGHT, _FIRST_WRONG
        self._n_paused = 0
        self._pause = FIRST_PAUSE

    def add(self, token: int) -> None:
        """Take in what was really said."""
        self._tokens.append(token)
        self._n_paused = max(0, self._n_paused - 1)

    def guess(self, most: int, price: float) -> list[int]:
        """Give tokens that may come next; none where nothing repeats or guessing does not pay."""
        n_tokens = self.n_worth(most, price)
        if not n_tokens:
            return []
        self._index()
        start = self._after.get(tuple(self._tokens[-N_GRAM:]))
        return [] if start is None else self._tokens[start : start + n_tokens]

    def _index(self) -> None:
        """Note what followed each run of tokens that was added since the last guess."""
        tokens = self._tokens
        for end in range(self._n_indexed, len(tokens)):
            self._after[tuple(tokens[end - N_GRAM : end])] = end
        self._n_indexed = max(self._n_indexed, len(tokens))

    def n_worth(self, most: int, price: float) -> int:
        """Tell how far ahead guessing pays now.

        Args:
            most: so many tokens at most.
            price: seconds that checking a guess takes, as a share of what a token takes without.
        """
        if self._n_paused or most <= 0 or price >= 1:
            return 0
        chance = self._n_right / (self._n_right + self._n_wrong)
        if chance < price:
            self._n_paused, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
            # The next try is a short one.
            self._n_right, self._n_wrong = 1.5 * price / (1 - price), 1.0
            return 0
        return min(most, MOST_TOKENS, max(1, int(math.log(price) / math.log(chance))))

    @property
    def tokens(self) -> list[int]:
        """Prompt and answer so far; not to be changed."""
        return self._tokens

    def learn(self, n_drafted: int, n_accepted: int) -> None:
        """Note how a guess went."""
        if not n_drafted:
            return
        self._n_right = self._n_right * _FORGETTING + n_accepted
        self._n_wrong = max(0.01, self._n_wrong * _FORGETTING + (n_accepted < n_drafted))
        if n_accepted == n_drafted:
            self._pause = FIRST_PAUSE
