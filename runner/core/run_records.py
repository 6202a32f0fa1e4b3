"""Records of a run's work on an item: calls, steps and source, which are its lineage.

The ledger keeps the lineage as plain data.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import ValidationError

from paddock.engine.request import Usage
from paddock.engine.system.distribution import own_version
from paddock.engine.system.records import Struct, asdict, astuple, field, record_from
from paddock.runner.bind.bound import BoundStep
from paddock.runner.ledger.entries import LedgerError, LineageRow
from paddock.runner.progress.report import FiledCounts


class CallRecord(Struct, frozen=True, array_like=True):
    hash: str
    """Key of its row in the ledger, with request and reply."""
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
    """The part of `seconds` spent waiting for a model's load and its queue."""

    @classmethod
    def of(cls, hash_: str, kind: str, began: float, usage: Usage, *, is_known: bool) -> CallRecord:
        """Return the record of a call that has just ended; a cached one costs nothing."""
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


class StepRecord(Struct, omit_defaults=True):
    id: str
    uses: str
    version: int
    model: str | None
    began: float
    seconds: float
    calls: list[CallRecord]
    state: Literal["begun", "done", "skipped", "failed"] = "done"
    """`begun` until it ends: also if it is cancelled, or put off. The ledger has those that ended
    alone."""
    answer: Mapping[str, Any] | None = None
    """Its answer with `evidence` and `confidence`, where one of these was asked for."""

    @classmethod
    def begin(cls, step: BoundStep, calls: list[CallRecord]) -> StepRecord:
        ref = None if step.model is None else step.model.ref
        began = round(time.time(), 3)
        return cls(step.id, step.uses, step.kind.version, ref, began, 0.0, calls, "begun")

    def note_answer(self, outputs: Mapping[str, Any]) -> None:
        evidence, confidence = outputs.get("evidence"), outputs.get("confidence")
        if evidence is not None or confidence is not None:
            answer = answer_of(outputs)
            self.answer = {"answer": answer, "evidence": evidence, "confidence": confidence}


def answer_of(outputs: Mapping[str, Any]) -> Any:
    value = outputs.get("output")
    return outputs.get("text") if value is None else value


class StepTotals(Struct, frozen=True):
    n: int = 0
    seconds: float = 0.0
    """Working time; that of parallel items is added up."""
    calls: int = 0
    known_calls: int = 0
    tokens: int = 0
    failed: int = 0

    def plus(self, record: StepRecord) -> StepTotals:
        calls, known_calls, tokens = self.calls, self.known_calls, self.tokens
        for call in record.calls:
            if call.is_known:
                known_calls += 1
            else:
                calls += 1
                tokens += call.prompt + call.completion
        n, failed = self.n + (record.state != "begun"), self.failed + (record.state == "failed")
        seconds = round(self.seconds + record.seconds, 4)
        return StepTotals(n, seconds, calls, known_calls, tokens, failed)

    def without(self, record: StepRecord) -> StepTotals:
        less = asdict(StepTotals().plus(record)) | {"seconds": 0.0}
        return StepTotals(**{name: value - less[name] for name, value in asdict(self).items()})


class ItemSource(Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    """As stored in the ledger: relative to the pipeline's folder where it is inside."""
    sha256: str
    size: int = 0
    modified: str = ""
    """As the file was listed."""


def source_of(item: Any, stored: str | None) -> ItemSource | None:
    """Return the file that an item is; None: it is not from `files.scan`."""
    sha256 = item.get("sha256") if isinstance(item, Mapping) else None
    if stored is None or not isinstance(sha256, str):
        return None
    types = {"size": int, "modified": str}  # True is no size
    facts = {name: item[name] for name in types if type(item.get(name)) is types[name]}
    return ItemSource(stored, str(sha256), **facts)


class Lineage(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What an item's entry was made of, as `LineageRow.made` has it."""

    source: ItemSource | None
    steps: Sequence[StepRecord]
    renamed_from: str | None = None
    wrote: Sequence[str] | None = None
    """Stored paths of the files of a step that no report counts; None: of any other."""
    inputs_by_item: Sequence[str] = ()
    """Inputs of a sub-pipeline that its caller made of the item."""


class FiledTotals(Struct):
    """Filed documents, by path and digest: each counts once, however many blocks have it."""

    documents: set[tuple[str, str]] = field(default_factory=set)
    away: set[tuple[str, str]] = field(default_factory=set)
    of_earlier_version: set[tuple[str, str]] = field(default_factory=set)
    changed: dict[str, None] = field(default_factory=dict)

    def add(self, other: FiledTotals) -> None:
        for own, of_other in zip(astuple(self), astuple(other), strict=True):
            own.update(of_other)

    @property
    def counts(self) -> FiledCounts:
        n, n_away, n_earlier = map(len, (self.documents, self.away, self.of_earlier_version))
        return FiledCounts(n, n_away, n_earlier, (*self.changed,))


def read_lineage(row: LineageRow | None) -> Lineage:
    """Return the lineage in a row; None: of an item that has none.

    Raises:
        LedgerError: another version of Paddock wrote it.
    """
    try:
        return Lineage(None, ()) if row is None else record_from(Lineage, row.made)
    except ValidationError as error:
        raise LedgerError(
            f"the ledger says of a document what Paddock {own_version()} does not know ({error}): "
            "another version wrote it. Go on with that one, or begin a ledger in a new folder."
        ) from error
