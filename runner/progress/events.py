"""Events of a run: the observer protocol.

Every method of an observer returns at once and is called in the run's own event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from paddock.engine.system.records import Struct

if TYPE_CHECKING:
    from paddock.engine.memory.pool_stats import PoolStats
    from paddock.engine.request import Usage

    from .item_states import ItemState
    from .report import Report


class ShownWork(Struct, eq=False):
    """A top-level step or block, or some items of a block; what runs it says how it ended."""

    counts: Mapping[str, int] | None = None
    """By state, how many of its items ended so; None: it is a step, or has none."""
    text: str = ""
    """How a step ended, in words."""
    is_bad: bool = False
    """Whether items of it were given up."""


class ModelCall(Struct, frozen=True):
    hash: str
    kind: str
    """`chat` or `embed`."""
    model: str
    """As the step names it."""
    usage: Usage
    began: float
    """Seconds since the epoch."""
    is_cached: bool
    """Whether the ledger had its reply."""
    request: str = ""
    """What decides the answer, as JSON; without secrets."""
    answer: str = ""
    """Of a chat; without secrets."""
    done_reason: str | None = None


class Observer:
    """Observer of a run; this one ignores all events."""

    def began(self, run: str, pipeline: str, steps: Sequence[str]) -> None:
        """The run starts; `steps` are the top-level steps and blocks in order."""

    def pool(self, stats: Callable[[], PoolStats]) -> None:
        """The run has a pool; `stats` may be called at any time, from any thread."""

    def step(self, step: str, total: int | None, fresh: int) -> None:
        """The size of a step or block is known: `total` items, `fresh` of them need nothing.

        None: a step outside of blocks, which is no item, or not one yet. Items that are known to
        fail, or not asked for, do not count.
        """

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        """An item of a block, or a top-level step (`key` is then empty), changed its state.

        Items counted as `fresh` in `step` are not reported one by one. `detail` is the running
        inner step, or the reason of a failure.
        """

    def call(self, step: str, key: str, call: ModelCall) -> None:
        """A model call ended, or was found in the ledger."""

    def tokens(self, n: int) -> None:
        """So many tokens were just generated."""

    def time_left(self, step: str, seconds: float) -> None:
        """The items of a step take about so long yet; told from the first that ended."""

    def note(self, text: str) -> None:
        """One line for people: waiting for a lock, an edited file, what is left out."""

    def waits(self, text: str) -> None:
        self.note(text)

    def stops(self, text: str) -> None:
        """A note: a stop was requested, so that no other item begins."""
        self.note(text)

    def ended(self, report: Report) -> None:
        """The run is over, however it ended."""


class MultiObserver(Observer):
    def __init__(self, *observers: Observer) -> None:
        for event in vars(Observer):
            if not event.startswith("_"):
                methods = [getattr(observer, event) for observer in observers]
                setattr(self, event, partial(_forward, methods))


def _forward(methods: Sequence[Callable[..., None]], *event: Any) -> None:
    for method in methods:
        method(*event)


LONGEST_KEY, LONGEST_TEXT = 1_000, 4_000
