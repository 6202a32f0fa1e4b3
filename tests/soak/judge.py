"""What became of every file, judged from outside. Pure.

It knows what arrived, what ran, who was killed, and what lies there in the end.
"""

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Arrival:
    pipeline: str
    path: str
    """Relative to the watched folder, with forward slashes."""
    sha256: str
    at: float
    """Unix time at which its last byte was there."""
    is_broken: bool = False
    """A file that no step can read: it must be quarantined, and hold no one up."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of the journal: this version was worked on."""

    at: float
    pid: int
    pipeline: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was ended by force, or whose parent was."""

    at: float
    pid: int
    recorded: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(pipeline, path) → when the ledger's entry of then was made: that must not be done again."""

    def ended(self, mark: Mark) -> bool:
        """Return whether the process died of it with this work in its hands."""
        at = self.recorded.get((mark.pipeline, mark.path), 0.0)
        return self.pid == mark.pid and mark.at <= self.at and at < mark.at


@dataclass(frozen=True, slots=True)
class Verdict:
    arrived: int
    done: int
    quarantined: int
    repeated: tuple[tuple[Mark, Mark], ...]
    """Worked on, and again although nothing had ended the first time in its middle."""
    again: int
    """Worked on again because the process was killed in the middle of it."""
    lost: tuple[Arrival, ...]
    """Neither done nor quarantined."""
    superseded: int
    """Versions that were worked on and then replaced by a later one."""
    delays_s: tuple[float, ...]
    """From the last byte to the step, one for each that was done."""

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost and nothing done twice."""
        return not self.lost and not self.repeated


def verdict(
    arrivals: Iterable[Arrival],
    marks: Sequence[Mark],
    kills: Iterable[Kill],
    outputs: Mapping[tuple[str, str], str],
    quarantined: frozenset[tuple[str, str]],
) -> Verdict:
    """Judge.

    Args:
        arrivals: the last version of each file that is still there.
        marks: what was worked on, in order.
        kills: who was killed, and when.
        outputs: (pipeline, path) → sha256 of the version that its output was made from.
        quarantined: (pipeline, path) of the items that are.

    >>> mark = Mark(2.0, 7, "p", "a", "x")
    >>> said = verdict([Arrival("p", "a", "x", 1.0)], [mark], [], {("p", "a"): "x"}, frozenset())
    >>> said.done, said.lost, said.delays_s
    (1, (), (1.0,))
    """
    last = {(one.pipeline, one.path): one for one in arrivals}
    first: dict[tuple[str, str, str], Mark] = {}
    for mark in marks:
        first.setdefault((mark.pipeline, mark.path, mark.sha256), mark)
    done = [
        one for key, one in last.items() if not one.is_broken and outputs.get(key) == one.sha256
    ]
    kept = [one for key, one in last.items() if one.is_broken and key in quarantined]
    lost = {*last.values()} - {*done} - {*kept}
    repeated, again = _twice(marks, kills)
    began = [
        (one, first[key]) for one in done if (key := (one.pipeline, one.path, one.sha256)) in first
    ]
    return Verdict(
        arrived=len(last),
        done=len(done),
        quarantined=len(kept),
        repeated=repeated,
        again=again,
        lost=tuple(sorted(lost, key=lambda one: one.at)),
        superseded=len({*first} - {(*key, one.sha256) for key, one in last.items()}),
        delays_s=tuple(max(0.0, mark.at - one.at) for one, mark in began),
    )  # fmt: skip


def _twice(
    marks: Sequence[Mark], kills: Iterable[Kill]
) -> tuple[tuple[tuple[Mark, Mark], ...], int]:
    """Return what was worked on once more for no reason, and how often there was one."""
    killed = [*kills]
    by_version: dict[tuple[str, str, str], list[Mark]] = defaultdict(list)
    for mark in marks:
        by_version[mark.pipeline, mark.path, mark.sha256].append(mark)
    repeated: list[tuple[Mark, Mark]] = []
    again = 0
    for times in by_version.values():
        for before, after in itertools.pairwise(times):
            if any(kill.ended(before) for kill in killed):
                again += 1
            else:
                repeated.append((before, after))
    return tuple(repeated), again


def table(said: Verdict, more: Mapping[str, str]) -> str:
    """Return the table for a person, in Markdown.

    >>> print(table(Verdict(1, 1, 0, (), 0, (), 0, (1.5,)), {"killed": "none"}))
    | | |
    |---|--:|
    | arrived | 1 |
    | done | 1 |
    | quarantined | 0 |
    | lost | 0 |
    | repeated | 0 |
    | in a process's hands when it was killed, done again | 0 |
    | versions done that were replaced later | 0 |
    | delay from the last byte to the first step: median, 95 %, longest | 1.5 s, 1.5 s, 1.5 s |
    | killed | none |
    """
    rows = {
        "arrived": said.arrived,
        "done": said.done,
        "quarantined": said.quarantined,
        "lost": len(said.lost),
        "repeated": len(said.repeated),
        "in a process's hands when it was killed, done again": said.again,
        "versions done that were replaced later": said.superseded,
        "delay from the last byte to the first step: median, 95 %, longest": _delays(said.delays_s),
        **more,
    }
    return "\n".join(["| | |", "|---|--:|", *(f"| {what} | {n} |" for what, n in rows.items())])


def _delays(delays_s: Sequence[float]) -> str:
    if not delays_s:
        return "none"
    ordered = sorted(delays_s)
    late = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"{statistics.median(ordered):.1f} s, {late:.1f} s, {ordered[-1]:.1f} s"
