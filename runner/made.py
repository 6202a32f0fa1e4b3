"""What an item was made of: its source, and each step with its calls and their times. Plain data.

Knows no ledger; `ledger/origins.py` keeps it, `provenance` and `pictures` read it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from paddock.engine.request import Usage


@dataclass(frozen=True, slots=True)
class CallMade:
    """One call that a step made, of a model or a tool."""

    hash: str
    """Names its row in the ledger, with request and reply."""
    kind: str
    """`chat`, `embed` or `tool`."""
    is_known: bool
    """Whether the ledger had its reply."""
    began: float
    """Seconds since 1970."""
    seconds: float
    prompt: int = 0
    reused: int = 0
    completion: int = 0
    queue_s: float = 0.0
    """Of `seconds`, waited for a model to be loaded and for its turn."""

    @classmethod
    def of(cls, hash_: str, kind: str, began: float, usage: Usage, *, is_known: bool) -> CallMade:
        """Say what a call cost that has just ended; a known one cost nothing now."""
        return cls(
            hash_,
            kind,
            is_known,
            round(began, 3),
            round(max(0.0, time.time() - began), 4),  # the clock may have been set meanwhile
            usage.prompt_tokens,
            usage.prompt_reused_tokens,
            usage.completion_tokens,
            0.0 if is_known else round(usage.queue_s + usage.load_s, 4),
        )


@dataclass(slots=True)
class StepMade:
    """One step of an item, done or failed."""

    id: str
    uses: str
    version: int
    model: str | None
    began: float = field(default_factory=time.time)
    seconds: float = 0.0
    calls: list[CallMade] = field(default_factory=list)
    state: Literal["done", "skipped", "failed"] = "done"
    """Known while the run goes on; afterwards the item's entry tells how that ended."""
    _since: float = field(default_factory=time.monotonic, repr=False, compare=False)

    def end(self) -> None:
        """Note how long it took, by a clock that nobody sets."""
        self.seconds = time.monotonic() - self._since


@dataclass(frozen=True, slots=True)
class StepSum:
    """What a step has done in a run, for all items together."""

    n: int = 0
    seconds: float = 0.0
    """At work; those of items that were done at once are added up."""
    calls: int = 0
    known_calls: int = 0
    tokens: int = 0
    failed: int = 0
    """Of `n`."""

    def plus(self, made: StepMade) -> StepSum:
        """Add what it did once more."""
        new = [call for call in made.calls if not call.is_known]
        return StepSum(
            self.n + 1,
            round(self.seconds + made.seconds, 4),
            self.calls + len(new),
            self.known_calls + len(made.calls) - len(new),
            self.tokens + sum(call.prompt + call.completion for call in new),
            self.failed + (made.state == "failed"),
        )


@dataclass(frozen=True, slots=True)
class Source:
    """The file that an item is."""

    path: str
    """As the ledger writes it: relative to the pipeline's folder where it is inside."""
    sha256: str


def source_of(item: Any, stored: str | None) -> Source | None:
    """Give the file that an item is, by its content, as `files.scan` describes it."""
    sha256 = item.get("sha256") if isinstance(item, Mapping) else None
    if stored is None or not isinstance(sha256, str):
        return None
    return Source(stored, sha256)


RENAMED = "renamed_from"


def as_json(
    source: Source | None, steps: Iterable[StepMade], renamed_from: str | None = None
) -> dict[str, Any]:
    """Give what is kept; `read` gives it back but for the old key of a renamed document."""
    return {
        "source": None if source is None else asdict(source),
        **({} if renamed_from is None else {RENAMED: renamed_from}),
        "steps": [
            {
                "id": step.id,
                "uses": step.uses,
                "version": step.version,
                "model": step.model,
                "began": round(step.began, 3),
                "seconds": round(step.seconds, 4),
                "calls": [list(_values(call)) for call in step.calls],
            }
            for step in steps
        ],
    }


def _values(call: CallMade) -> Iterable[Any]:
    return (getattr(call, name) for name in CallMade.__slots__)


def read(made: Mapping[str, Any]) -> tuple[Source | None, tuple[StepMade, ...]]:
    """Give back what `as_json` wrote; what a later version adds to a call is left out."""
    source = made.get("source")
    n_values = len(CallMade.__slots__)
    steps = tuple(
        StepMade(
            step["id"],
            step["uses"],
            step["version"],
            step["model"],
            step["began"],
            step["seconds"],
            [CallMade(*call[:n_values]) for call in step["calls"]],
        )
        for step in made.get("steps", ())
    )
    return (None if source is None else Source(**source)), steps
