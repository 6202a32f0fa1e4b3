"""The report of a run: frozen, and as JSON for machines.

The JSON keys are the contract of the language's page, "What machines read".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from markupsafe import Markup

from paddock.engine.system.records import Struct, asdict, field, replace
from paddock.engine.system.text import counted, listed, one_line
from paddock.pipelines.errors import did_you_mean

from .item_states import BAD, REPORTED, WAITS, WITH_RESULT, WORK, ItemState
from .reasons import Outdated, Reason, Why, in_words
from .report_table import ReportTable

Status = Literal["completed", "failed", "quarantined", "budget", "suspended", "interrupted"]
HELD_REMEDY = (
    "To have ours, delete the outputs, set `on_edited: overwrite`, or run again with `--take`."
)
BLOCKED_REMEDY = "Let its path differ (`{{ doc.sha256[:8] }}` in it), or delete what has the path."
FailOn = Literal["new", "any", "never"]
ReviewMode = Literal["ask", "fail", "skip", "accept"]
"""What a run does with an answer whose review is due: all but `ask` are for runs with no one to
ask."""

MAX_SUFFIXES = 6  # named in a line
MOST_SHOWN_FAILURES = 3
"""In what a notebook shows of a report."""


class ItemReport(Struct, frozen=True):
    """One item of a block, or one top-level step that calls a model (`key` is then its id)."""

    step: str
    key: str
    state: ItemState
    seconds: float = 0.0
    error: str | None = None
    """One sentence, for `failed`, `quarantined` and `missing`."""
    reasons: tuple[Reason, ...] = ()
    """Why it is `changed` or `stale`, or the outputs for which it is `held`."""
    is_known: bool = False
    """Quarantined before and unchanged since: not tried again."""

    @property
    def why(self) -> str | None:
        return in_words(self.reasons)

    @property
    def may_be_fraud(self) -> bool:
        """Whether it waits since its document has an account that its sender never had."""
        return any(reason.why is Why.MAY_BE_FRAUD_SINCE for reason in self.reasons)

    @property
    def has_failed(self) -> bool:
        return self.state is ItemState.QUARANTINED or (
            self.state is ItemState.SKIPPED and bool(self.error)
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "key": self.key,
            "state": self.state.value,
            "seconds": round(self.seconds, 3),
            "error": self.error,
        }


class FiledCounts(Struct, frozen=True):
    """How many documents are filed, and how many of them a run from scratch would not make so."""

    n: int = 0
    no_longer_there: int = 0
    """The documents are not where they went."""
    of_earlier_version: int = 0
    """The pipeline would make them otherwise now, and the documents cannot be read again."""
    changed: tuple[str, ...] = ()
    """What of the pipeline changed since, as far as the ledger knows."""

    def in_words(self) -> str:
        """Return a line; empty for none.

        >>> FiledCounts(1234, 0, 1, ("prompt changed (step 'sum')",)).in_words()
        "Filed: 1,234, of which 1 was made by an earlier version: prompt changed (step 'sum')."
        """
        parts = []
        if n := self.no_longer_there:
            parts.append(f"{n:,} {'is' if n == 1 else 'are'} no longer there")
        if n := self.of_earlier_version:
            why = f": {listed([*self.changed], 3)}" if self.changed else ""
            parts.append(f"{n:,} {'was' if n == 1 else 'were'} made by an earlier version{why}")
        noted = f", of which {' and '.join(parts)}" if parts else ""
        return f"Filed: {self.n:,}{noted}." if self.n else ""


class QuarantineCounts(Struct, frozen=True):
    """What of a run that came to its end makes its exit status 3."""

    new: int = 0
    known: int = 0
    without_result: tuple[str, ...] = ()
    """Blocks of which items failed, also by `on_error: skip`, and none is done, filed or waits."""

    def plus(self, other: QuarantineCounts) -> QuarantineCounts:
        names = dict.fromkeys((*self.without_result, *other.without_result))
        return QuarantineCounts(self.new + other.new, self.known + other.known, tuple(names))

    def is_failure(self, fail_on: FailOn) -> bool:
        if fail_on == "never":
            return False
        n_counted = self.new + (self.known if fail_on == "any" else 0)
        return bool(n_counted or self.without_result)


class Report(Struct, frozen=True):
    run: str
    pipeline: str
    status: Status
    counts: Mapping[str, int]
    calls: int = 0
    cached_calls: int = 0
    tokens: Mapping[str, int] = field(default_factory=dict)
    """`prompt`, `prompt_reused`, `completion`."""
    models: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By name: `loads`, `load_s`."""
    seconds: float = 0.0
    items: tuple[ItemReport, ...] = ()
    returns: Any = None
    notes: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    """Files written, absolute, in order."""
    n_removed: int = 0
    """Number of files and rows that were removed, since their source is gone."""
    acted: tuple[str, ...] = ()
    """Steps outside of blocks that may have changed something else: commands, functions, moves."""
    filed: FiledCounts = FiledCounts()
    outdated: Mapping[str, Outdated] = field(default_factory=dict)
    """Outputs that no longer apply and are kept (paths, and rows in stores), and why."""
    not_taken: Mapping[str, int] = field(default_factory=dict)
    """Files of scanned folders that no pattern takes, by suffix."""
    message: str | None = None
    """Why the run failed or stopped, one sentence."""
    log: str | None = None
    """The file with the tracebacks of unexpected errors, when there were any."""
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By id of a step or block: how often, how long, its calls, its items by state."""
    counted: QuarantineCounts | None = None
    """Where the items are those of other processes and not here."""
    tables: Mapping[str, ReportTable] = field(default_factory=dict)

    def table(self, step: str) -> ReportTable:
        """Return a table of a block, with a row for each item, or of a step that gives rows.

        Raises:
            LookupError: there is none, or the run has not come that far.
        """
        if step not in self.tables:
            remedy = did_you_mean(step, self.tables, "It has none.")
            raise LookupError(f"The report has no table '{step}'. {remedy}")
        return self.tables[step]

    def __repr__(self) -> str:
        """Return the run in at most ten lines; `items` and `notes` have the rest."""
        return shown_lines(f"Report: {self.pipeline}, run {self.run}, {self.status}", self._facts())

    def _repr_html_(self) -> str:
        return shown_html(f"{self.pipeline}: {self.status}", self._facts())

    def _facts(self) -> Iterator[tuple[str, str]]:
        yield "items", counts_text(self.counts) or "none"
        yield "model calls", f"{self.calls:,}, and {self.cached_calls:,} from the ledger"
        yield "seconds", f"{self.seconds:,.1f}"
        if done := self.effects_in_words():
            yield "effects", done
        if self.message:
            yield "message", self.message
        if self.returns is not None:
            yield "returns", repr(self.returns)
        for item in self.not_done[:MOST_SHOWN_FAILURES]:
            yield f"{item.state} {item.key}", item.error or ""

    def exit_status(self, fail_on: FailOn = "new") -> int:
        """Return the process's exit status.

        >>> known = ItemReport("each", "a.md", ItemState.QUARANTINED, is_known=True)
        >>> done = ItemReport("each", "b.md", ItemState.FRESH)
        >>> Report("a", "p", "quarantined", {}, items=(known, done)).exit_status()
        0
        >>> Report("a", "p", "quarantined", {}, items=(known,)).exit_status()
        3
        """
        if self.status in _STATUS_CODES:
            return _STATUS_CODES[self.status]
        return 3 if self.quarantine().is_failure(fail_on) else 0

    def quarantine(self) -> QuarantineCounts:
        if self.counted is not None:
            return self.counted
        failed = [item for item in self.items if item.has_failed]
        quarantined = [item for item in failed if item.state is ItemState.QUARANTINED]
        n_known = sum(item.is_known for item in quarantined)
        ends = (*WITH_RESULT, *WAITS)
        done = {item.step for item in self.items if failed and item.state in ends}
        done |= {
            step for step, totals in self.steps.items() if totals.get("counts", {}).get("filed")
        }
        without_result = tuple(dict.fromkeys(item.step for item in failed if item.step not in done))
        return QuarantineCounts(len(quarantined) - n_known, n_known, without_result)

    @property
    def not_done(self) -> list[ItemReport]:
        return [item for item in self.items if item.state in BAD]

    def effects_in_words(self) -> str:
        """Return the effects that items do not show, in words."""
        n_changed = (len(self.written), self.n_removed, len(self.acted))
        return effects_in_words(self.status, *n_changed, len(self.outdated))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON for machines; `message` only when the run stopped early."""
        answer = {
            "run": self.run,
            "pipeline": self.pipeline,
            "status": self.status,
            "counts": {state.value: self.counts.get(state, 0) for state in REPORTED},
            "calls": self.calls,
            "cached_calls": self.cached_calls,
            "tokens": {
                name: self.tokens.get(name, 0) for name in ("prompt", "prompt_reused", "completion")
            },
            "models": {name: dict(facts) for name, facts in self.models.items()},
            "seconds": round(self.seconds, 3),
            "items": [item.as_json() for item in self.items],
            "filed": asdict(self.filed),
            "outdated": dict(self.outdated),
            "not_taken": dict(self.not_taken),
            "returns": self.returns,
        }
        return answer if self.message is None else {**answer, "message": self.message}

    def as_summary(self) -> dict[str, Any]:
        """Return the JSON that the ledger keeps of a run: all but items and values."""
        summary = replace(self, items=()).as_json()  # of 10,000 items
        del summary["items"]
        n_outdated = len(summary.pop("outdated"))
        changed = [len(self.written), self.n_removed, len(self.acted)]
        return {
            **summary,
            "steps": self.steps,
            "done": [*changed, n_outdated],
            "quarantine": asdict(self.quarantine()),
            "returns": None,  # may be large, or must not be stored
        }

    @classmethod
    def of_summary(cls, summary: Mapping[str, Any]) -> Report:
        """Return what a summary has: an ended run's counts, and what decides its exit status."""
        found = summary.get("quarantine", {})
        without_result = tuple(found.get("without_result", ()))
        return cls(
            summary["run"],
            summary["pipeline"],
            summary["status"],
            summary["counts"],
            message=summary.get("message"),
            counted=QuarantineCounts(**found | {"without_result": without_result}),
        )


def shown_lines(head: str, facts: Iterable[tuple[str, str]]) -> str:
    return "\n  ".join([head, *(one_line(f"{name}: {value}", 200) for name, value in facts)])


def shown_html(head: str, facts: Iterable[tuple[str, str]]) -> str:
    row = Markup("<tr><th>{}</th><td>{}</td></tr>")
    rows = Markup().join(row.format(name, one_line(value, 2_000)) for name, value in facts)
    return Markup("<table><caption>{}</caption>{}</table>").format(head, rows)


def not_taken_in_words(by_suffix: Mapping[str, int]) -> str:
    """Return how many files of scanned folders no pattern takes; empty for none.

    >>> not_taken_in_words({"png": 2, "xlsx": 3})
    '5 files are not taken: 2 png, 3 xlsx.'
    """
    if not by_suffix:
        return ""
    kinds = [f"{n:,} {suffix or 'without a suffix'}" for suffix, n in by_suffix.items()]
    what = counted(sum(by_suffix.values()), "file is", "files are")
    return f"{what} not taken: {listed(kinds, MAX_SUFFIXES)}."


def outdated_in_words(n_outdated: int) -> str:
    """Return how many outputs no longer apply; empty for none."""
    if not n_outdated:
        return ""
    what = (
        "output no longer applies and is" if n_outdated == 1 else "outputs no longer apply and are"
    )
    return f"{n_outdated:,} {what} kept"


def effects_in_words(
    status: str, n_written: int, n_removed: int, n_acted: int, n_outdated: int = 0
) -> str:
    """Return effects that items do not show; empty where the run did not get far.

    >>> effects_in_words("completed", 2, 0, 1), effects_in_words("completed", 0, 0, 0)
    ('2 files written, 1 step done', 'nothing to do')
    >>> effects_in_words("failed", 0, 0, 0)
    ''
    """
    parts = [
        (n_written, "file written", "files written"),
        (n_removed, "output removed", "outputs removed"),
        (n_acted, "step done", "steps done"),
    ]
    phrases = [f"{n:,} {single if n == 1 else many}" for n, single, many in parts if n]
    phrases += [words] if (words := outdated_in_words(n_outdated)) else []
    return ", ".join(phrases) or ("nothing to do" if status in ("completed", "quarantined") else "")


def sums_by_outcome(counts: Mapping[str, Any]) -> dict[str, int]:
    """Return the numbers of items by what became of them, without those of 0.

    >>> sums_by_outcome({"new": 3, "changed": 1, "fresh": 96, "quarantined": 1, "deleted": 0})
    {'done': 4, 'fresh': 96, 'quarantined': 1}
    """
    sums = {"done": 0}
    for state, n in counts.items():
        outcome = "done" if state in WORK else _OUTCOMES.get(state, state)
        sums[outcome] = sums.get(outcome, 0) + int(n or 0)
    return {outcome: n for outcome, n in sums.items() if n}


def counts_text(counts: Mapping[str, Any]) -> str:
    """Return the numbers of items by what became of them, in words.

    >>> counts_text({"new": 3, "changed": 1, "fresh": 96, "quarantined": 1, "deleted": 0})
    '4 done, 96 fresh, 1 quarantined'
    """
    return ", ".join(f"{n:,} {outcome}" for outcome, n in sums_by_outcome(counts).items())


_OUTCOMES = {"unsampled": "not in the sample"}
_STATUS_CODES = {"failed": 1, "budget": 5, "suspended": 5, "interrupted": 130}


def outcome_of(status: str, counted: Mapping[str, Any] | None) -> str:
    """Return a status for people: `completed`, too, where all that is quarantined was so before."""
    if status != "quarantined" or not counted:
        return status
    return "quarantined" if counted["new"] or counted["without_result"] else "completed"
