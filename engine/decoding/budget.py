"""Share a turn's tokens out among prompts that are being read. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .sequence import Sequence

# A long chat leaves this share of a turn to the other prompts, and a long job half of it.
CHAT_SHARE, JOB_SHARE = 0.75, 0.5


def shares(prompts: Iterable[Sequence], budget: int) -> list[tuple[Sequence, int]]:
    """Tell how many tokens of each prompt are computed now.

    Chats come before jobs, the older before the younger. The first one gets at most its share of
    the budget while others wait; what is left goes to the shortest ones, which are soon done, and
    then to the first again. So a long prompt can neither hold the others up nor be held up.
    """
    order = sorted(prompts, key=lambda one: (one.priority != "interactive", one.rank))
    if not order or budget <= 0:
        return []
    first, *others = order
    share = CHAT_SHARE if first.priority == "interactive" else JOB_SHARE
    cap = int(budget * share) if others else budget
    given = {first: min(first.n_missing, max(1, cap))}
    left = budget - given[first]
    for one in sorted(others, key=lambda one: (one.priority != "interactive", one.n_missing)):
        given[one] = min(one.n_missing, left)
        left -= given[one]
    given[first] += min(left, first.n_missing - given[first])
    return list(given.items())
