"""Guess what an answer says next from what was said before: drafts by lookup. Pure.

Extraction and rewriting repeat their document, and the answers of one step repeat each other:
headings, labels, set phrases. Where the last tokens of an answer stand earlier in its prompt, in
itself or in the last answers to requests that begin alike, what followed there is a good guess;
checking a guess costs a fraction of computing it, and a wrong one is simply not taken, so the
answer stays the same. The idea is prompt lookup decoding
(github.com/apoorvumang/prompt-lookup-decoding); the length follows what was accepted.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from paddock.engine.arrays import Tokens

# So many tokens must stand earlier in the same order: two agree by chance too often.
N_GRAM = 3
MOST_TOKENS = 48
FIRST_PAUSE, LONGEST_PAUSE = 8, 64

# Requests of one step begin alike: with the template's words and the step's instructions.
N_ALIKE = 48
# Of the answers to such requests so many tokens are kept, for so many steps.
MOST_KEPT_TOKENS, MOST_STEPS = 8192, 8
_END = -1  # between two answers

# What is believed before the first guess, in tokens: of nine, eight were right.
_FIRST_RIGHT, _FIRST_WRONG = 8.0, 1.0
_FORGETTING = 0.8


class Odds:
    """How often the guesses from one source were right, and so how far ahead guessing pays.

    The n-th token of a guess is needed only if all before it were right, so guessing it pays as
    long as the chance to the power of n is above the price of checking it.
    """

    def __init__(self) -> None:
        self._n_right, self._n_wrong = _FIRST_RIGHT, _FIRST_WRONG
        self._n_paused = 0
        self._pause = FIRST_PAUSE

    def rest(self) -> None:
        """Count one token of a pause."""
        self._n_paused = max(0, self._n_paused - 1)

    def n_worth(self, most: int, price: float) -> int:
        """Return how many tokens to guess now.

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

    def learn(self, n_drafted: int, n_accepted: int) -> None:
        """Note how a guess went."""
        if not n_drafted:
            return
        self._n_right = self._n_right * _FORGETTING + n_accepted
        self._n_wrong = max(0.01, self._n_wrong * _FORGETTING + (n_accepted < n_drafted))
        if n_accepted == n_drafted:
            self._pause = FIRST_PAUSE


class _Index:
    """Tokens, and where each run of `N_GRAM` of them was last followed by something."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self.after: dict[tuple[int, ...], int] = {}
        self._n_indexed = N_GRAM

    def followed(self, last: tuple[int, ...], n_tokens: int) -> list[int]:
        """Return what followed these tokens the last time, up to the end of that answer."""
        for end in range(self._n_indexed, len(self.tokens)):
            self.after[tuple(self.tokens[end - N_GRAM : end])] = end
        self._n_indexed = max(self._n_indexed, len(self.tokens))
        start = self.after.get(last)
        if start is None:
            return []
        found = self.tokens[start : start + n_tokens]
        return found[: found.index(_END)] if _END in found else found


class StepAnswers:
    """The last answers to requests that begin alike."""

    def __init__(self) -> None:
        self.odds = Odds()
        self._index = _Index([])

    def add(self, answer: list[int]) -> None:
        """Keep an answer with the tokens before it, so that its first ones can be guessed too."""
        kept = self._index.tokens
        kept += [*answer, _END]
        if len(kept) > MOST_KEPT_TOKENS:
            self._index = _Index(kept[-MOST_KEPT_TOKENS // 2 :])

    def followed(self, last: tuple[int, ...], n_tokens: int) -> list[int]:
        """Return what followed these tokens in the last answer that has them."""
        return self._index.followed(last, n_tokens)


class PastAnswers:
    """What was answered before, by how the requests began."""

    def __init__(self) -> None:
        self._steps: OrderedDict[bytes, StepAnswers] = OrderedDict()

    def like(self, prompt: Tokens) -> StepAnswers:
        """Return the answers to requests that began as this one does."""
        beginning = prompt[:N_ALIKE].tobytes()
        step = self._steps.setdefault(beginning, StepAnswers())
        self._steps.move_to_end(beginning)
        if len(self._steps) > MOST_STEPS:
            self._steps.popitem(last=False)
        return step


class Drafter:
    """Guesses for one answer. Adding a token and guessing cost 1 µs (one dictionary entry).

    A prompt is indexed with the first guess that pays: 8,000 tokens take 2 ms, which the next step
    would wait for.
    """

    def __init__(self, prompt: Tokens, past: StepAnswers | None = None) -> None:
        self._index = _Index(prompt.tolist())
        self._n_before = max(0, len(prompt) - N_GRAM)
        self._odds = self._guessed_by = Odds()
        self._past = past

    def add(self, token: int) -> None:
        """Take in what was really said."""
        self.tokens.append(token)
        self._odds.rest()
        if self._past is not None:
            self._past.odds.rest()

    def guess(self, most: int, price: float) -> list[int]:
        """Return tokens that may come next; none where nothing repeats or guessing does not pay.

        The prompt and the answer itself come before other answers.
        """
        last = tuple(self.tokens[-N_GRAM:])
        self._guessed_by = self._odds
        n_tokens = self._odds.n_worth(most, price)
        guess = self._index.followed(last, n_tokens) if n_tokens else []
        if not guess and self._past is not None:
            n_tokens = self._past.odds.n_worth(most, price)
            guess = self._past.followed(last, n_tokens) if n_tokens else []
            if guess:
                self._guessed_by = self._past.odds
        return guess

    def n_worth(self, most: int, price: float) -> int:
        """Return how far ahead a guess from elsewhere pays; see `Odds.n_worth`."""
        return self._odds.n_worth(most, price)

    @property
    def tokens(self) -> list[int]:
        """Prompt and answer so far; not to be changed."""
        return self._index.tokens

    def learn(self, n_drafted: int, n_accepted: int) -> None:
        """Note how a guess went."""
        self._guessed_by.learn(n_drafted, n_accepted)

    def keep(self) -> None:
        """Keep the answer for requests to come."""
        if self._past is not None:
            self._past.add(self.tokens[self._n_before :])
