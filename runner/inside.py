"""Carry out the pipeline that a step runs: the same pool, ledger and border, scopes of its own.

How a pipeline is walked through is handed in, since the walk itself comes by here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from paddock.pipelines.inputs import WrongInput
from paddock.steps.step import StepError

from .binding.bound import BoundPlan, BoundStep
from .binding.inner import given_to
from .body import names_of
from .crash_suspects import Solitude
from .inner_tally import InnerTally
from .items import ItemRun
from .tools import Toolbox
from .work import Options, Work

Walk = Callable[[BoundStep, ItemRun, Work, Toolbox], Awaitable[Any]]
"""(step, the item for which it runs, what must be done, with what) → the pipeline's returns."""


class Inside:
    """Implements `paddock.steps.step.SubPipelines` for one step of one item."""

    def __init__(
        self, step: BoundStep, record: ItemRun, work: Work, toolbox: Toolbox, walk: Walk
    ) -> None:
        self._step = step
        self._record = record
        self._work = work
        self._toolbox = toolbox
        self._walk = walk

    async def run(self, file: str, inputs: Mapping[str, Any]) -> Any:
        """Run the pipeline to its end and give its `returns`.

        Raises:
            StepError: an input is wrong, or it is another file than the step was checked with.
            StepFailed, Stopped, BorderReached: as the steps within say.
        """
        inner = self._step.inner
        if inner is None or file != self._step.params.step.params.data.get("file"):
            raise StepError(f"the pipeline '{file}' was not checked before the run.")
        try:
            bound = given_to(inner, inputs, self._toolbox.bound.roots)
        except WrongInput as error:
            raise StepError(f"{error.message}.", remedy=error.remedy) from error
        work, toolbox = entered(self._step, self._record, bound, self._work, self._toolbox)
        return await self._walk(self._step, self._record, work, toolbox)


def entered(
    step: BoundStep, record: ItemRun, bound: BoundPlan, work: Work, toolbox: Toolbox
) -> tuple[Work, Toolbox]:
    """Give what the steps within need: all that is the run's, and what is the pipeline's own."""
    around = toolbox.bound
    bound = replace(bound, watches=around.watches, priority=around.priority)
    item = (record.block, record.shown_key) if record.outer else None
    options = _options_within(toolbox.options, step.id, bound, is_nested=item is not None)
    inner_work = work.within(step.id, bound, options, is_nested=item is not None)
    inner_toolbox = replace(
        toolbox,
        bound=bound,
        options=options,
        tally=InnerTally(toolbox.tally, step.id, item),
        shares=None if item else toolbox.shares,  # they go with the item around them
        solitude=Solitude() if item else toolbox.solitude,
    )
    return inner_work, inner_toolbox


def _options_within(options: Options, step: str, bound: BoundPlan, *, is_nested: bool) -> Options:
    """Give what is asked of the pipeline that a step runs; who names the step means all of it."""
    inner = tuple(names_of(bound.nodes))
    prefix = f"{step}."
    force = {name.removeprefix(prefix) for name in options.force if name.startswith(prefix)}
    if step in options.force:
        force.update(inner)
    only = frozenset[str]() if is_nested else options.only  # the item around it is asked for
    return replace(options, force=frozenset(force), only=only)
