"""What a run tells whoever watches it: a live table, plain lines, Prefect artefacts, nobody.

Every method returns at once and is called in the run's own event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from paddock.engine.pool import PoolStats
    from paddock.engine.request import Usage

    from .report import Report

ItemState = Literal["running", "done", "fresh", "skipped", "quarantined", "failed"]


class Observer(Protocol):
    """Someone who watches a run."""

    def began(self, run: str, pipeline: str, steps: Sequence[str]) -> None:
        """The run starts; `steps` are the top-level steps and blocks in order."""
        ...

    def pool(self, stats: Callable[[], PoolStats]) -> None:
        """The run has a pool; `stats` tells what it holds, at any time and from any thread."""
        ...

    def step(self, step: str, total: int | None, fresh: int) -> None:
        """The size of a step or block is known: `total` items, `fresh` of them need nothing.

        What is known to fail, or not asked for, is not among them.
        """
        ...

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        """An item of a block, or a top-level step (`key` is then empty), changed its state.

        Items counted as `fresh` in `step` are not told one by one. `detail` is the running inner
        step, or the reason of a failure.
        """
        ...

    def call(self, step: str, key: str, usage: Usage, is_cached: bool) -> None:
        """A model call ended; `is_cached` when the ledger had its reply."""
        ...

    def tokens(self, n: int) -> None:
        """So many tokens were just generated."""
        ...

    def note(self, text: str) -> None:
        """One line for a person: waiting for a lock, an edited file, what is not carried out."""
        ...

    def ended(self, report: Report) -> None:
        """The run is over, however it ended."""
        ...


class Silent:
    """Watches and says nothing; also the base of observers that care about a part only."""

    def began(self, run: str, pipeline: str, steps: Sequence[str]) -> None:
        """Say nothing."""

    def pool(self, stats: Callable[[], PoolStats]) -> None:
        """Say nothing."""

    def step(self, step: str, total: int | None, fresh: int) -> None:
        """Say nothing."""

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        """Say nothing."""

    def call(self, step: str, key: str, usage: Usage, is_cached: bool) -> None:
        """Say nothing."""

    def tokens(self, n: int) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def ended(self, report: Report) -> None:
        """Say nothing."""


class Several:
    """Tells several observers the same."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def began(self, run: str, pipeline: str, steps: Sequence[str]) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.began(run, pipeline, steps)

    def pool(self, stats: Callable[[], PoolStats]) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.pool(stats)

    def step(self, step: str, total: int | None, fresh: int) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.step(step, total, fresh)

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.item(step, key, state, detail)

    def call(self, step: str, key: str, usage: Usage, is_cached: bool) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.call(step, key, usage, is_cached)

    def tokens(self, n: int) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.tokens(n)

    def note(self, text: str) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.note(text)

    def ended(self, report: Report) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.ended(report)
