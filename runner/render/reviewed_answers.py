"""Decisions about answers, and the answers' confidence, as texts for a page or a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from paddock.engine.system.item_samples import share_interval
from paddock.engine.system.records import Struct
from paddock.engine.system.text import counted


class ReviewedAnswer(Struct, frozen=True):
    """What a person decided, or is asked, about a step's answer for one item; texts for people."""

    item: str
    step: str
    state: str
    """`open`, `accepted`, `edited`, `rejected` or `expired`; `none`: no one was asked."""
    outcome: str
    """The same with who and why, such as `edited by ann`."""
    by: str | None = None
    at: float | None = None
    """When it was decided; None while it is open."""
    reason: str | None = None
    changes: tuple[tuple[str, str, str], ...] = ()
    """Of an edit: field, the model's value, the person's."""
    fields: tuple[tuple[str, str, str], ...] = ()
    """Of the model's answer: field, value with its confidence, where it stands."""
    earlier: tuple[str, ...] = ()
    """Earlier decisions, newest first, a sentence each."""

    @property
    def after(self) -> Mapping[str, str]:
        return {path: value for path, _, value in self.changes}


class FieldReliability(Struct, frozen=True):
    """How often a field of a step was right, as far as people have looked."""

    step: str
    model: str
    field: str
    """Empty of an answer that is one value."""
    n: int
    """How many of these people have decided on."""
    n_right: int
    n_needed: int
    """Fewer calibrate nothing."""
    n_rejected: int = 0
    """Rejected answers whose reason names no field."""
    former: str = ""
    """What is another model, prompt or schema than that of the step's newest answers."""
    n_former: int = 0
    """Answers that were reviewed with those and do not count."""

    @property
    def summary(self) -> str:
        of = f"confidence of '{self.step}' ({self.model})" if self.model else f"'{self.step}'"
        if self.field:
            of += f", {self.field}"
        if self.former:
            of += f" with the earlier {self.former}"
        words = f"{of}: not calibrated: {self.n:,} of {self.n_needed:,} values reviewed"
        if self.n >= self.n_needed:
            low, high = share_interval(self.n_right / self.n, self.n)
            right = f"{self.n_right:,} of {self.n:,} reviewed values right"
            words = f"{of}: calibrated: {right} ({low:.0%} to {high:.0%})"
        if self.n_rejected:
            words += f"; {counted(self.n_rejected, 'rejected answer')} named no field"
        if self.n_former:
            words += f"; {self.n_former:,} of an earlier model, prompt or schema do not count"
        return words


class ReviewRecord(Struct, frozen=True):
    """The answers of one run, or of one item, and how reliable their confidence is."""

    answers: tuple[ReviewedAnswer, ...] = ()
    reliability: tuple[FieldReliability, ...] = ()
