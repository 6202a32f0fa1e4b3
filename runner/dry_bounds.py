"""How many model calls steps make at most, by what is written in the YAML alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from paddock.steps.agent import AgentParams

from .binding.bound import BoundBlock, BoundNode, BoundStep
from .body import steps_within
from .dry_pool import Asked, Calls
from .retries import times


def bounded_all(body: Iterable[BoundNode]) -> Calls:
    """Bound the calls of steps by their kinds alone."""
    total = Calls()
    for node in body:
        total += unbounded(node.body) if isinstance(node, BoundBlock) else bounded(node)
    return total


def unbounded(body: Iterable[BoundNode]) -> Calls:
    """Return the calls of a body that is done for nobody knows how many items."""
    asks = any(step.kind.roles for step in steps_within(body))
    return Calls(0, None) if asks else Calls()


def bounded(step: BoundStep) -> Calls:
    """Bound the calls of one step by what is written."""
    if step.inner is not None:
        return bounded_all(step.inner.nodes)
    if not step.kind.roles:
        return Calls()
    most = _most(step)
    if most is None:
        return Calls(0, None)
    return replace(with_repairs(step, Calls(0, most)), least=0)


def _most(step: BoundStep) -> int | None:
    written = step.params.value.data
    if step.uses == "agent":
        return _most_of_agent(written)
    if step.uses == "search":
        return int(written.get("mode") != "text")
    if step.uses in ("chat", "summarise", "summarize"):
        usual = "error" if step.uses == "chat" else "map-reduce"
        has_parts = written.get("on_overflow", usual) in ("map-reduce", "refine")
        return None if has_parts or "map" in step.params.templates else 1
    if step.uses == "embed" and "store" not in written:
        return 1
    return None


def _most_of_agent(written: Mapping[str, Any]) -> int | None:
    """Bound an agent: its turns, the answer without tools, and what it does to remember."""
    n_turns = written.get("max_turns", AgentParams.model_fields["max_turns"].default)
    if not isinstance(n_turns, int):
        return None  # an expression
    memory = written.get("memory", "window")
    kept = {"window": 0, "summary": n_turns, "store": 3 * n_turns + 3}.get(memory)
    return None if kept is None else n_turns + 1 + kept


def with_repairs(step: BoundStep, calls: Calls, *, holds_forms: bool = False) -> Calls:
    """Add what checks may cost: an answer that does not pass them is asked for again.

    `holds_forms`: the model is served on this machine, where it cannot leave a form.
    """
    if not calls.most:
        return calls
    most = calls.most
    is_held = holds_forms and step.model is not None and not step.model.pool
    if step.reply is not None and (step.reply.checks or not is_held):
        most += step.reply.repair * (most if hasattr(step.kind, "foresee") else 1)
    return Calls(calls.least, most * (1 + times(step.retry, "check")))


def with_tree(surely: Calls, n_new: int, asked: Asked) -> Calls:
    """Add the calls of a tree whose prompts have parts that are not known yet."""
    n_later = n_new - (surely.most or 0)
    return Calls(surely.least + (0 if asked.has_history else n_later), n_new)


def between(shortest: Calls, longest: Calls) -> Calls:
    """Bound what depends on how long answers are."""
    if shortest.most is None or longest.most is None:
        return Calls(min(shortest.least, longest.least), None)
    return Calls(min(shortest.least, longest.least), max(shortest.most, longest.most))
