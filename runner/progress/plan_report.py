"""The report of a plan: frozen, and as JSON for machines.

The JSON keys are the contract of the language's page, "What machines read".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from paddock.engine.system.records import Struct, asdict, field

from .item_states import WORK, ItemState
from .reasons import Outdated, Reason, Why, in_words
from .report import MOST_SHOWN_FAILURES, FiledCounts, shown_html, shown_lines

CallsAre = Literal["exact", "at most", "about"]


class PlanItem(Struct, frozen=True):
    step: str
    key: str
    state: ItemState
    reasons: tuple[Reason, ...] = ()

    @property
    def why(self) -> str | None:
        return in_words(self.reasons)

    @property
    def is_step(self) -> bool:
        """Whether it is a step outside of blocks, whose key is its id."""
        return f".{self.step}".endswith(f".{self.key}")

    @property
    def is_undecided(self) -> bool:
        """Whether only a run knows if it has work to do."""
        return any(reason.why is Why.LABEL_UNDECIDED for reason in self.reasons)

    def as_json(self) -> dict[str, Any]:
        return {"step": self.step, "key": self.key, "state": self.state.value, "why": self.why}


class PlanReport(Struct, frozen=True):
    """What a run would do; a number that is not known is None."""

    pipeline: str
    items: tuple[PlanItem, ...]
    calls: int | None = None
    calls_are: CallsAre = "exact"
    """`about`: estimated from earlier runs, since nothing bounds them."""
    likely_calls: int | None = None
    """As many as there are where each answer passes its checks at once."""
    least_calls: int | None = None
    """Fewer, where `calls_are` is `at most`: steps may be skipped, or their answers be known."""
    tokens: int | None = None
    loads: int | None = None
    models: Mapping[str, int] = field(default_factory=dict)
    """By name: how many of `likely_calls` are its."""
    least_models: Mapping[str, int] = field(default_factory=dict)
    """By name: how many of `least_calls` are its."""
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    """What is unknown until a step has run, one sentence each."""
    advice: tuple[str, ...] = ()
    """Advice and warnings, one sentence each; for people."""
    remarks: tuple[str, ...] = ()
    """Notes of steps during planning, such as a folder without files; for people."""
    outdated: Mapping[str, Outdated] = field(default_factory=dict)
    """Outputs that no longer apply and are kept (paths, and rows in stores), and why."""
    removed: Mapping[str, Outdated] = field(default_factory=dict)
    """Those that a run would remove."""
    outdated_rows: Mapping[tuple[str, str, str], Outdated] = field(default_factory=dict)
    """Of both the rows, by their store and their item's scope and key."""
    filed: FiledCounts = FiledCounts()
    not_taken: Mapping[str, int] = field(default_factory=dict)
    """Files of scanned folders that no pattern takes, by suffix."""

    def __repr__(self) -> str:
        """Return the plan in at most ten lines; `items` and `notes` have the rest."""
        return shown_lines(f"PlanReport: {self.pipeline}", self._facts())

    def _repr_html_(self) -> str:
        return shown_html(f"Plan of {self.pipeline}", self._facts())

    def _facts(self) -> Iterator[tuple[str, str]]:
        counts = Counter(item.state for item in self.items)
        yield "items", ", ".join(f"{n:,} {state}" for state, n in counts.items()) or "none"
        n_calls = "not known" if self.calls is None else f"{self.calls_are} {self.calls:,}"
        yield "model calls", n_calls
        if self.seconds is not None:
            yield "seconds", f"about {self.seconds:,.0f}"
        for note in self.notes[:MOST_SHOWN_FAILURES]:
            yield "not known yet", note

    @property
    def has_work(self) -> bool:
        """Whether a run would do anything (`--detailed-exitcode` 10)."""
        return bool(self.notes or self.removed) or any(
            item.state in (*WORK, ItemState.DELETED) for item in self.items
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "items": [item.as_json() for item in self.items],
            "filed": asdict(self.filed),
            "outdated": dict(self.outdated),
            "removed": dict(self.removed),
            "not_taken": dict(self.not_taken),
            "calls": self.calls,
            "calls_are": None if self.calls is None else self.calls_are,
            "likely_calls": self.likely_calls,
            "least_calls": self.least_calls,
            "tokens": self.tokens,
            "loads": self.loads,
            "models": dict(self.models),
            "least_models": dict(self.least_models),
            "seconds": self.seconds,
        }
