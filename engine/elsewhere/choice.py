"""Which server takes the next request: by who is there, what it has in memory, how busy it is.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# A server that does not say how many requests it answers at a time is taken for one of so many.
USUAL_SLOTS = 4
# To load a model elsewhere costs as much as waiting behind one full round of requests.
LOADING_ROUNDS = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one server at the moment."""

    is_up: bool
    n_running: int
    n_slots: int | None = None
    is_resident: bool | None = None
    """Whether the model is in its memory; None: nobody knows."""
    failed_before: bool = False
    """This very request was lost there."""


def choose(servers: Sequence[Seen]) -> int | None:
    """Give the index of the server to ask; None: nobody has room now.

    >>> choose([Seen(True, 3, 4, True), Seen(True, 1, 4, True), Seen(False, 0)])
    1
    """
    able = [at for at, one in enumerate(servers) if one.is_up and _has_room(one)]
    if not able:
        return None
    return min(able, key=lambda at: (servers[at].failed_before, _wait(servers[at]), at))


def _has_room(one: Seen) -> bool:
    return one.n_slots is None or one.n_running < one.n_slots


def _wait(one: Seen) -> float:
    """Give how many rounds of requests are before the next one."""
    rounds = one.n_running / (one.n_slots or USUAL_SLOTS)
    return rounds + (LOADING_ROUNDS if one.is_resident is False else 0.0)
