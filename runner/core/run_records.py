"""Records of a run's work on an item: calls, steps and source, which are its lineage.

The ledger keeps the lineage as plain data.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from paddock.engine.request import Usage
from paddock.engine.system.distribution import own_version
from paddock.engine.system.records import SelectiveFields, Struct, asdict, field
from paddock.runner.bind.bound import BoundStep
from paddock.runner.ledger.entries import LedgerError


class CallRecord(Struct, frozen=True):
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


class StepRecord(SelectiveFields, Struct):
    hidden = ("_since",)
    uncompared = ("_since",)

    id: str
    uses: str
    version: int
    model: str | None
    began: float = field(default_factory=time.time)
    seconds: float = 0.0
    calls: list[CallRecord] = field(default_factory=list)
    state: Literal["begun", "done", "skipped", "failed"] = "done"
    """`begun` until it ends: also if it is cancelled, or put off. Only items that ended are in the
    ledger, so a record that is read from there is of a step that ended."""
    answer: Mapping[str, Any] | None = None
    """Its answer with `evidence` and `confidence`, where one of these was asked for."""
    _since: float = field(default_factory=time.monotonic)

    @classmethod
    def begin(cls, step: BoundStep, calls: list[CallRecord]) -> StepRecord:
        ref = None if step.model is None else step.model.ref
        return cls(step.id, step.uses, step.kind.version, ref, calls=calls, state="begun")

    def note_answer(self, outputs: Mapping[str, Any]) -> None:
        evidence, confidence = outputs.get("evidence"), outputs.get("confidence")
        if evidence is not None or confidence is not None:
            answer = answer_of(outputs)
            self.answer = {"answer": answer, "evidence": evidence, "confidence": confidence}

    def end(self) -> None:
        """Measure its duration, by the monotonic clock."""
        self.seconds = time.monotonic() - self._since


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


class ItemSource(Struct, frozen=True):
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
    types = {"size": int, "modified": str}
    facts = {name: item[name] for name in types if isinstance(item.get(name), types[name])}
    return ItemSource(stored, sha256, **facts)


RENAMED = "renamed_from"
WROTE = "wrote"
"""Stored paths of the files of a step that no report counts."""
INPUTS_BY_ITEM = "inputs_by_item"
"""Inputs of a sub-pipeline that its caller made of the item."""


def lineage_as_json(
    source: ItemSource | None, steps: Iterable[StepRecord], renamed_from: str | None = None
) -> dict[str, Any]:
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
                "calls": [
                    [getattr(call, name) for name in CallRecord.__match_args__]
                    for call in step.calls
                ],
                **({} if step.answer is None else {"answer": step.answer}),
            }
            for step in steps
        ],
    }


def read_source(lineage: Mapping[str, Any]) -> ItemSource | None:
    """Return the source that `lineage_as_json` wrote.

    Raises:
        LedgerError: another version of Paddock wrote it.
    """
    source = lineage.get("source")
    try:
        return None if source is None else ItemSource(**source)
    except TypeError as error:
        raise LedgerError(
            f"the ledger says of a document what Paddock {own_version()} does not know ({error}): "
            "another version wrote it. Go on with that one, or begin a ledger in a new folder."
        ) from error


def read_lineage(lineage: Mapping[str, Any]) -> tuple[ItemSource | None, tuple[StepRecord, ...]]:
    """Read what `lineage_as_json` wrote.

    Raises:
        LedgerError: another version of Paddock wrote its source.
    """
    steps = tuple(
        StepRecord(
            step["id"],
            step["uses"],
            step["version"],
            step["model"],
            step["began"],
            step["seconds"],
            [CallRecord(*call) for call in step["calls"]],
            answer=step.get("answer"),
        )
        for step in lineage.get("steps", ())
    )
    return read_source(lineage), steps
