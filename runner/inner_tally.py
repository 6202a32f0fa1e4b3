"""What a pipeline within another one tells, under the name of the step that runs it.

`each` within the step `clean` is `clean.each` to whoever watches. Where the step runs once for each
item of a block, what happens within is a detail of that item. Knows no ledger and no steps.
"""

from __future__ import annotations

from dataclasses import replace

from paddock.engine.request import Usage

from .made import StepMade
from .observer import ItemState, Observer, Silent
from .report import ItemReport
from .tally import Tally


class InnerTally(Tally):
    """Counts into the tally of the pipeline around it."""

    def __init__(self, outer: Tally, step: str, item: tuple[str, str] | None = None) -> None:
        """`item` is the block and the key of the item for which the step runs, if it is one's."""
        told = InnerObserver(outer.observer, step, is_nested=item is not None)
        super().__init__(outer.run, outer.pipeline, told, None, outer.secrets)
        self._outer = outer
        self._step = step
        self._item = item

    @property
    def n_tokens(self) -> int:
        """How many tokens the whole run has spent."""
        return self._outer.n_tokens

    def note(self, text: str) -> None:
        """Show one line and keep it for the report."""
        self._outer.note(text)

    def call(self, step: str, key: str, usage: Usage, *, is_cached: bool) -> None:
        """Count a model call."""
        self._outer.call(*self._place(step, key), usage, is_cached=is_cached)

    def item(self, report: ItemReport) -> None:
        """Keep how an item ended."""
        self.counts[report.state] += 1
        self._outer.item(replace(report, step=f"{self._step}.{report.step}"))

    def tell(self, step: str, key: str, state: ItemState, detail: str | None = None) -> None:
        """Tell the observer that an item changed its state."""
        if self._item is None:
            self._outer.tell(f"{self._step}.{step}", key, state, detail)
        elif state == "running":
            self._outer.tell(*self._item, "running", f"{self._step}.{step}")

    def took(self, made: StepMade) -> None:
        """Add up how long steps were at work, and on how many items."""
        self._outer.took(replace(made, id=f"{self._step}.{made.id}"))

    def _place(self, step: str, key: str) -> tuple[str, str]:
        """Say whose call it is: whoever watches knows the items of the outermost pipeline."""
        return self._item or (f"{self._step}.{step}", key)

    def wrote(self, path: str) -> None:
        """Keep the name of a file that was made or changed."""
        self._outer.wrote(path)

    def removed(self, n: int) -> None:
        """Count outputs that were removed."""
        self._outer.removed(n)

    def acted(self, step: str) -> None:
        """Keep that a step outside of blocks may have changed something."""
        if self._item is None:
            self._outer.acted(f"{self._step}.{step}")

    def unexpected(self, where: str, error: BaseException) -> None:
        """Keep the traceback of an error that nobody foresaw."""
        self._outer.unexpected(f"{self._step}: {where}", error)


class InnerObserver(Silent):
    """Passes on what is told of steps, under the name of the step that runs them."""

    def __init__(self, outer: Observer, step: str, *, is_nested: bool) -> None:
        self._outer = outer
        self._step = step
        self._is_nested = is_nested

    def step(self, step: str, total: int | None, fresh: int) -> None:
        """Tell how much there is to do, where it is not a part of one item."""
        if not self._is_nested:
            self._outer.step(f"{self._step}.{step}", total, fresh)

    def tokens(self, n: int) -> None:
        """Tell it."""
        self._outer.tokens(n)

    def note(self, text: str) -> None:
        """Tell it."""
        self._outer.note(text)
