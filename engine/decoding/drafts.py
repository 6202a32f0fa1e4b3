"""Drafts by lookup: guess the next tokens from the prompt and earlier answers. Pure.

Extraction and rewriting repeat their document, and the answers of one step repeat each other:
headings, labels, set phrases. If the last tokens of an answer occur earlier in its prompt, in
itself or in the last answers to similar requests, what followed there is a good guess. Checking a
guess costs a fraction of computing it, and a wrong one is rejected, so the answer stays the same.
The idea is prompt lookup decoding (github.com/apoorvumang/prompt-lookup-decoding); here the length
follows the acceptance rate.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence as Items

from paddock.engine.arrays import Tokens, Vectors
from paddock.engine.system.records import Struct

# Tokens that must match for a lookup: two agree by chance too often.
N_GRAM = 3
MOST_DRAFT_TOKENS = 48
FIRST_PAUSE, LONGEST_PAUSE = 8, 64

# Requests of one pipeline step begin with the same template and instructions, or end with them
# after the document.
N_SAME_TOKENS = 48
# Tokens kept of the answers to such requests, and number of such steps.
MOST_KEPT_TOKENS, MOST_STEPS = 8192, 8
_ANSWER_END = -1  # separates answers; rows of images are negative, too

# Prior: of nine tokens, eight were right.
_FIRST_RIGHT, _FIRST_WRONG = 8.0, 1.0
_FORGETTING = 0.8


class DraftOdds:
    """Acceptance rate of one source of guesses, and so how far ahead guessing pays.

    The n-th token of a guess is needed only if all before it were right, so guessing it pays as
    long as the rate to the power of n is above the price of checking it.
    """

    def __init__(self) -> None:
        self._n_right, self._n_wrong = _FIRST_RIGHT, _FIRST_WRONG
        self.n_paused = 0
        """Tokens until guessing is tried again."""
        self._pause = FIRST_PAUSE

    def n_worth(self, most: int, price: float) -> int:
        """Return how many tokens to guess now, at most `most`.

        `price` is the time to check a guess, as a share of the time for a token without guesses.
        """
        if self.n_paused or most <= 0 or price >= 1:
            return 0
        chance = self._n_right / (self._n_right + self._n_wrong)
        if chance < price:
            self.n_paused, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
            # The next guess is short.
            self._n_right = 1.5 * price / (1 - price)
            self._n_wrong = 1.0
            return 0
        return min(most, MOST_DRAFT_TOKENS, max(1, int(math.log(price) / math.log(chance))))

    def learn(self, n_drafted: int, n_accepted: int) -> None:
        if not n_drafted:
            return
        self._n_right = self._n_right * _FORGETTING + n_accepted
        self._n_wrong = max(0.01, self._n_wrong * _FORGETTING + (n_accepted < n_drafted))
        if n_accepted == n_drafted:
            self._pause = FIRST_PAUSE


class _NgramIndex:
    """Tokens, and the last position after each run of `N_GRAM` of them."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self.after: dict[tuple[int, ...], int] = {}
        self._n_indexed = N_GRAM

    def followed(self, last: tuple[int, ...], n_tokens: int) -> list[int]:
        """Return what last followed these tokens, up to the end of that answer or an image."""
        for end in range(self._n_indexed, len(self.tokens)):
            self.after[tuple(self.tokens[end - N_GRAM : end])] = end
        self._n_indexed = max(self._n_indexed, len(self.tokens))
        start = self.after.get(last)
        if start is None:
            return []
        found = self.tokens[start : start + n_tokens]
        return list(itertools.takewhile(lambda token: token >= 0, found))


class SimilarAnswers:
    """The last answers to requests with the same beginning or end."""

    def __init__(self) -> None:
        self.odds = DraftOdds()
        self.n_answers = 0
        self._index = _NgramIndex([])

    def add(self, answer: list[int]) -> None:
        """Add an answer with the tokens before it, so that its first ones can be guessed too."""
        self.n_answers += 1
        kept = self._index.tokens
        kept += [*answer, _ANSWER_END]
        if len(kept) > MOST_KEPT_TOKENS:
            self._index = _NgramIndex(kept[-MOST_KEPT_TOKENS // 2 :])

    def followed(self, last: tuple[int, ...], n_tokens: int) -> list[int]:
        return self._index.followed(last, n_tokens)


class PastAnswers:
    """The last answers, by the beginning and by the end of their requests."""

    def __init__(self) -> None:
        self._by_beginning: OrderedDict[bytes, SimilarAnswers] = OrderedDict()
        self._by_end: OrderedDict[bytes, SimilarAnswers] = OrderedDict()

    def like(self, prompt: Tokens) -> tuple[SimilarAnswers, ...]:
        ends = (
            (self._by_beginning, prompt[:N_SAME_TOKENS]), (self._by_end, prompt[-N_SAME_TOKENS:])
        )  # fmt: skip
        found = []
        for steps, tokens in ends:
            key = tokens.tobytes()
            found.append(steps.setdefault(key, SimilarAnswers()))
            steps.move_to_end(key)
            if len(steps) > MOST_STEPS:
                steps.popitem(last=False)
        return tuple(found)


class LookupDrafter:
    """Guesses for one answer. Adding a token and guessing cost 1 µs (one dictionary entry).

    A prompt is indexed at the first guess that pays: 8,000 tokens take 2 ms, which delay a step.
    """

    def __init__(self, prompt: Tokens, past: Items[SimilarAnswers] = ()) -> None:
        self._index = _NgramIndex(prompt.tolist())
        self._n_before = max(0, len(prompt) - N_GRAM)
        self._odds = self._guessed_by = DraftOdds()
        self._past = past
        self._all_odds = (self._odds, *(answers.odds for answers in past))

    def add(self, token: int) -> None:
        self._index.tokens.append(token)
        for odds in self._all_odds:
            if odds.n_paused:
                odds.n_paused -= 1

    def guess(self, most: int, price: float) -> list[int]:
        """Return tokens that may come next, or [] if nothing repeats or guessing does not pay.

        The prompt and the answer itself are searched before other answers. Of these, the larger set
        is that of the same step: the others are those about the same document.
        """
        last = tuple(self.tokens[-N_GRAM:])
        self._guessed_by = self._odds
        n_tokens = self._odds.n_worth(most, price)
        guess = self._index.followed(last, n_tokens) if n_tokens else []
        if not guess and self._past:
            past = max(self._past, key=lambda answers: answers.n_answers)
            n_tokens = past.odds.n_worth(most, price)
            guess = past.followed(last, n_tokens) if n_tokens else []
            if guess:
                self._guessed_by = past.odds
        return guess

    def n_worth(self, most: int, price: float) -> int:
        return self._odds.n_worth(most, price)

    @property
    def tokens(self) -> list[int]:
        return self._index.tokens

    def learn(self, n_drafted: int, n_accepted: int) -> None:
        self._guessed_by.learn(n_drafted, n_accepted)

    def keep(self) -> None:
        for past in self._past:
            past.add(self.tokens[self._n_before :])


class DraftRequest(Struct, frozen=True):
    """Prompt and answer of a request so far, which only grow, and how many tokens to guess."""

    tokens: Items[int]
    n_ahead: int


# It was trained for one token ahead; later ones are less often right.
MOST_MTP_TOKENS = 3


class HiddenStates(Struct, frozen=True):
    """The model's hidden states of some consecutive tokens of a request."""

    request_id: int
    tokens: Items[int]
    pos: int
    states: Vectors
