"""How many tokens a turn may have, and how prompts that are being read share them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .sequence import Sequence
from .turn import LEAST_PIECE_TOKENS

# A long job leaves half of a turn to the others, and a long chat a quarter.
CHAT_SHARE, JOB_SHARE = 0.75, 0.5


# However slow the machine, a prompt goes on by so many tokens a turn.
LEAST_READ_TOKENS = 16


class Pace:
    """How many tokens a step may have, so that a slow machine is not taken for a hung one."""

    def __init__(self, step_s: float = float("inf"), s_per_token: float = 0.0) -> None:
        """Take how long a step should last at most, and what a token was seen to take."""
        self._step_s = step_s
        self._s_per_token = s_per_token

    def note(self, n_tokens: int, seconds: float) -> None:
        """Note how long a step took; the next ones will be about as quick."""
        if n_tokens >= LEAST_READ_TOKENS:  # fewer take nearly as long, and tell less
            self._s_per_token = seconds / n_tokens

    @property
    def n_most_tokens(self) -> int:
        """Tokens that a step should have at most."""
        most = self._step_s / max(self._s_per_token, 1e-9)
        return int(max(LEAST_READ_TOKENS, min(most, 1 << 30)))


def shares(
    prompts: Iterable[Sequence],
    budget: int,
    *,
    is_shorts_turn: bool = False,
    has_pass_each: bool = False,
    n_least: int = LEAST_PIECE_TOKENS,
) -> list[tuple[Sequence, int]]:
    """Return how many tokens of each prompt are computed now.

    Chats come before jobs, the older before the younger. The first one gets at most its share of
    the budget while others wait; what is left goes to the shortest ones, which are soon done, and
    then to the first again. So a long prompt can neither hold the others up nor be held up. Where
    the budget is too small to be shared, the shortest one takes turns with the first
    (`is_shorts_turn`). No piece is shorter than `n_least` but the last one of a prompt.

    Where each prompt gets a pass of its own, which costs as much with few tokens as with many
    (`has_pass_each`), the first gets all it can use, and others only what reads them whole; the
    shortest take turns with the first whatever the budget.
    """
    order = sorted(prompts, key=lambda one: (one.priority != "interactive", one.rank))
    if not order or budget <= 0:
        return []
    if is_shorts_turn and (has_pass_each or budget < 2 * n_least):
        order.sort(key=lambda one: (one.priority != "interactive", one.n_missing))
    if has_pass_each:
        return _whole_ones(order, budget)
    first, *others = order
    share = CHAT_SHARE if first.priority == "interactive" else JOB_SHARE
    cap = max(n_least, int(budget * share)) if others else budget
    given = {first: min(first.n_missing, cap, budget)}
    left = budget - given[first]
    for one in sorted(others, key=lambda one: (one.priority != "interactive", one.n_missing)):
        is_worth_it = left >= min(n_least, one.n_missing)
        given[one] = min(one.n_missing, left) if is_worth_it else 0
        left -= given[one]
    given[first] += min(left, first.n_missing - given[first])
    return list(given.items())


def _whole_ones(order: list[Sequence], budget: int) -> list[tuple[Sequence, int]]:
    """Return all that the first prompt can use, then those prompts that fit whole into the rest."""
    first, *others = order
    given = [(first, min(first.n_missing, budget))]
    left = budget - given[0][1]
    for one in others:
        n_tokens = one.n_missing if one.n_missing <= left else 0
        given.append((one, n_tokens))
        left -= n_tokens
    return given
