"""What a pipeline reaches besides files and models, and whether its caller allows that.

A YAML may be a stranger's: what reaches further needs `--allow`, or the caller's own settings.
Knows no run: it is asked before one begins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.marks import Mark
from paddock.steps.own_function import is_function

from .binding.bound import BoundPlan
from .body import plans_of, steps_of
from .reach import as_it_will_run, far_words, is_far, reached
from .secrets import place_of
from .settings import FILE_NAME
from .values import CONSENTS

if TYPE_CHECKING:
    from paddock.pipelines.triggers import Notify


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a pipeline wants, and the name by which it is allowed."""

    name: str
    what: str
    """The end of the sentence 'the pipeline wants to …'."""
    mark: Mark | None = None
    is_of_run: bool = False
    """Whether only a run does it, so that a plan may be made without."""


class NotAllowed(PipelineError):
    """A pipeline wants more than it may have; every need at once."""

    def __init__(self, needs: Collection[Need], names: str = "") -> None:
        self.needs = tuple(needs)
        self.names = names or names_of(needs)
        """What must be allowed for all that it wants, and not only for what it lacks."""
        remedy = (
            f'If you trust it: `--allow {self.names}`, or `allow = "{self.names}"` in '
            f"~/.config/paddock/{FILE_NAME}."
        )
        words = "the pipeline wants to {}, which needs '{}'.".format
        super().__init__(Fault(words(need.what, need.name), remedy, need.mark) for need in needs)


def refuse(bound: BoundPlan, allowed: Collection[str], own: str, *, is_plan: bool = False) -> None:
    """Refuse a pipeline that wants more than is allowed; a plan does not do what steps want.

    Args:
        bound: the plan.
        allowed: the names of what its caller allows.
        own: the address of Paddock's own service, which needs no consent.
        is_plan: nothing is run.

    Raises:
        NotAllowed: with all that it wants besides.
    """
    lacking = _lacking(bound, allowed, own)
    if any(not (is_plan and need.is_of_run) for need in lacking):
        raise NotAllowed(lacking, names_of(needs(bound, own)))


def advice(bound: BoundPlan, allowed: Collection[str], own: str) -> str | None:
    """Say what a run of a planned pipeline will need; None: nothing more than it has."""
    lacking = _lacking(bound, allowed, own)
    if not lacking:
        return None
    wants = "; ".join(dict.fromkeys(need.what for need in lacking))
    return f"A run wants to {wants}. If you trust it: `--allow {names_of(needs(bound, own))}`."


def _lacking(bound: BoundPlan, allowed: Collection[str], own: str) -> list[Need]:
    return [need for need in needs(bound, own) if need.name not in allowed]


def names_of(needs: Collection[Need]) -> str:
    """Give the names by which needs are allowed, as `--allow` takes them."""
    return ",".join(sorted({need.name for need in needs}, key=CONSENTS.index))


def needs(bound: BoundPlan, own: str) -> list[Need]:
    """Give all that a pipeline wants besides files and models, in the file's order."""
    found: list[Need] = []
    for plan in plans_of(bound):
        wanted = [*_pools(plan, own), *_secrets(plan), *_functions(plan)]
        wanted += [Need(name, what, mark, True) for name, what, mark in reached(plan, own)]
        wanted += _notified(plan, own) if plan is bound else ()  # a step sends no messages
        found += sorted(wanted, key=lambda need: need.mark.line if need.mark else 0)
    return list(dict.fromkeys(found))


def _pools(bound: BoundPlan, own: str) -> Iterator[Need]:
    for pool in bound.pools.values():
        far = [far_words(url) for url in pool.urls if is_far(url, own)]
        if far:
            yield Need("network", f"ask {' and '.join(far)} for a model", pool.mark)


def _secrets(bound: BoundPlan) -> Iterator[Need]:
    for name, keys in bound.pipeline.secrets.items():
        mark = bound.pipeline.mark(("secrets", name))
        yield Need("secrets", f"read {place_of(keys)}", mark)


def _functions(bound: BoundPlan) -> Iterator[Need]:
    for step in steps_of(bound.nodes):
        if is_function(step.uses):
            mark = bound.pipeline.mark((*step.params.step.at, "uses"))
            yield Need("tool", f"call the Python function '{step.uses}'", mark, True)


def _notified(bound: BoundPlan, own: str) -> Iterator[Need]:
    on = bound.pipeline.on
    for at, notify in enumerate(on.notify if on is not None else ()):
        mark = bound.pipeline.mark(_notify_at(bound, at))
        if notify.command is not None:
            yield Need("run", f"run {_shown(notify, bound)} when a run has ended", mark, True)
        elif notify.email is not None:
            yield Need("network", f"send mail to {notify.email}", mark, True)
        elif notify.webhook is not None and is_far(notify.webhook, own):
            what = f"call {far_words(notify.webhook)} when a run has ended"
            yield Need("network", what, mark, True)


def _notify_at(bound: BoundPlan, at: int) -> Place:
    """Give the place of one of `on.notify`, which may be written without a list."""
    written = bound.pipeline.document.data["on"]["notify"]
    return ("on", "notify", at) if isinstance(written, list) else ("on", "notify")


def _shown(notify: Notify, bound: BoundPlan) -> str:
    command = notify.command or ""
    return f"`{command}`" if isinstance(command, str) else as_it_will_run(command, bound)
