"""Have a person decide on an item's answer, apply the decision, and calibrate its confidence."""

from __future__ import annotations

import asyncio
import hashlib
import json
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any

from paddock.engine.system.text import canonical_json
from paddock.pipelines.expressions import ExpressionError
from paddock.runner.answers.evidence import EvidenceSource, read_sources
from paddock.runner.answers.scoped_reply import ScopedReply
from paddock.runner.answers.text_vectors import inserted_text
from paddock.runner.bind.bound import BoundStep
from paddock.runner.bind.scope import Scope
from paddock.runner.bind.specs import prompt_digest
from paddock.runner.calibration.confidence_calibration import CalibrationKey, calibrated, start_text
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.reviews.asked_before import is_same_value
from paddock.runner.ledger.reviews.reviews import Question, Review
from paddock.steps.base import OutsideRoots, Tools

from .failures import Cause, RunStopped, SkippedByReview, StepFailed
from .item_attempt import ItemAttempt
from .reviews.review_questions import (
    answer_of,
    document_spec,
    is_drawn,
    is_due,
    iso_time,
    question_reasons,
    source_texts,
    text_objects,
    values_read,
)
from .reviews.run_reviews import ReviewDue, decision_reason
from .run_context import RunContext

MODE_OPTION = "--review accept"
"""Who decided, where a run was told to accept everything."""


class AnswerReviewer:
    """Has a person decide on the answers of steps with `review`, or applies what was decided."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._reviews = context.judge.reviews
        self._prompts: dict[str, str] = {}
        """Step → digest of what it asks."""

    async def calibrated(
        self, step: BoundStep, scope: Scope, attempt: ItemAttempt, outputs: dict[str, Any]
    ) -> dict[str, Any]:
        """Return outputs with the confidence as people's decisions have it, where these suffice.

        Recorded as it was at that time: later decisions make no item stale. What was decided about
        this item, or about its document elsewhere, does not count.
        """
        if step.model is None:
            return outputs
        key = await self._calibration_key(step)
        tables = await self._reviews.calibrations()
        if (changed := start_text(key, tables)) is not None:
            self._context.stats.note(changed)
        if key not in tables:
            return outputs
        item = (attempt.scope_id, attempt.key)
        line = tables[key].calibration(item, attempt.document_digest(scope))
        if line is None:
            return outputs
        return {**outputs, "confidence": calibrated(outputs["confidence"], line)}

    async def _calibration_key(self, step: BoundStep) -> CalibrationKey:
        assert step.model is not None
        bound = self._context.bound
        if step.id not in self._prompts:
            self._prompts[step.id] = prompt_digest(step, bound)
        schema = None if step.reply is None else step.reply.schema
        model = await self._context.models.of(step.model)
        return CalibrationKey(
            self._context.options.variant_of or bound.file.name,
            step.id,
            model,
            self._prompts[step.id],
            hashlib.sha256(canonical_json(schema).encode()).hexdigest(),
        )

    async def n_rejected(self, step: BoundStep, scope: Scope, attempt: ItemAttempt) -> int:
        """Return how many rejected answers were tried again: another one is wanted."""
        if step.review is None:
            return 0
        try:
            review = await self._reviews.at(attempt.scope_id, attempt.key, step.id)
        except LedgerError as error:
            raise RunStopped(str(error)) from error
        if review is None:
            return 0
        decisions = [(row.get("state"), row.get("document_sha256")) for row in review.earlier]
        if self._context.options.retry_failed:  # another answer is wanted in place of this one, too
            decisions.append((review.state, review.subject.get("document_sha256")))
        return decisions.count(("rejected", attempt.document_digest(scope)))

    async def recorded(self, step: BoundStep, attempt: ItemAttempt) -> dict[str, Any] | None:
        """Return the outputs that a person decided on, without asking the model again."""
        review = await self._reviews.at(attempt.scope_id, attempt.key, step.id)
        if review is None or not review.is_decided:
            return None
        outputs = review.subject.get("outputs")
        return dict(outputs) if isinstance(outputs, Mapping) else None

    async def reviewed(
        self,
        step: BoundStep,
        scope: Scope,
        attempt: ItemAttempt,
        outputs: dict[str, Any],
        tools: Tools,
    ) -> dict[str, Any]:
        """Return a step's outputs as decided.

        Raises:
            AwaitingReview: a person has to decide first.
            StepFailed: the answer was rejected, or no one may be asked.
        """
        assert step.review is not None
        names = ("document_sha256", "answer")
        # What a question is about, without the texts that the answer was made of
        name = attempt.name(step.id, scope, self._context.index)
        subject = {
            "pipeline": self._context.bound.file.name,
            "block": attempt.node.id if attempt.item is not None else "",
            "item": attempt.shown_key or attempt.key,
            "document": name.path or None,
            "document_sha256": attempt.document_digest(scope),
            "around": [list(place) for place in attempt.around],
            "answer": answer_of(outputs),
            "evidence": outputs.get("evidence"),
            "confidence": outputs.get("confidence"),
            "outputs": outputs,
            "when": step.review.when.source,
            "by": list(step.review.by),
            "on_expiry": step.review.on_expiry,
        }
        light = self._question(step, attempt, {name: subject[name] for name in names})

        spec = step.review

        # Where no one is asked, a sure answer is used as it would be without the share.
        is_sampled = self._reviews.mode == "ask" and is_drawn(spec, step.id, subject["item"])

        async def whole() -> Question:
            why = question_reasons(spec, scope, outputs, is_drawn=is_sampled)
            taught = {"prompt_vector": attempt.vectors.get(step.id)}
            return self._question(
                step, attempt, await self._whole(step, scope, {**subject, **why, **taught}, tools)
            )

        while True:
            try:
                due = is_due(spec, scope, outputs)
                review = await self._reviews.decision_on(light, whole, is_due=due or is_sampled)
            except ReviewDue as error:
                raise StepFailed(step.id, str(error), cause=Cause.REVIEW) from error
            except ExpressionError as error:
                raise StepFailed(step.id, f"`review.when`: {error}") from error
            if review is None:
                unseen = {"state": "accepted", "by": MODE_OPTION, "at": None}
                return {**outputs, "review": unseen} if due else outputs
            if await self._reviews.apply(review):
                return await self._decided(step, review, outputs, tools)

    async def _decided(
        self, step: BoundStep, review: Review, outputs: dict[str, Any], tools: Tools
    ) -> dict[str, Any]:
        assert step.review is not None
        ends = step.review.on_expiry
        if review.state == "rejected" or (review.state == "expired" and ends == "quarantine"):
            raise StepFailed(step.id, str(decision_reason(review)))
        if review.state == "expired" and ends == "skip":
            raise SkippedByReview(step.id, str(decision_reason(review)))
        has_schema = step.reply is not None and step.reply.schema is not None
        evidence = None
        if review.state == "edited" and tools.reply is not None and has_schema:
            evidence = await tools.reply.evidence(review.value)
        return decided_outputs(outputs, review, has_schema=has_schema, evidence=evidence)

    def _question(
        self, step: BoundStep, attempt: ItemAttempt, subject: Mapping[str, Any]
    ) -> Question:
        assert step.review is not None
        return Question(
            attempt.scope_id,
            attempt.key,
            step.id,
            self._context.stats.run,
            self._context.stats.secrets.redacted(subject),
            step.review.ttl_s,
            text_objects(subject),
            attempt.renamed_from,
            self._context.options.retry_failed,
        )

    async def _whole(
        self, step: BoundStep, scope: Scope, subject: Mapping[str, Any], tools: Tools
    ) -> dict[str, Any]:
        reply = step.reply
        checks = () if reply is None else reply.checks.values()
        paths = {path for check in checks for path in check.references}
        prompt = EvidenceSource("prompt", inserted_text(step.params.render(scope)))
        read, form = document_spec(scope), tools.reply
        used = form.sources() if isinstance(form, ScopedReply) else ()
        if not used and read.sources:  # the documents that were read
            used = read_sources(read, scope, tools.roots.base)
        sources = [*used, prompt]
        if len(sources) == 1 and prompt.text:  # the item has the text of what was read before
            path = str(subject["document"] or "")
            kind = mimetypes.guess_type(path)[0] or ""
            name = path or prompt.name
            sources.insert(0, replace(prompt, name=name, path=path, media_type=kind))
        ledger = self._context.ledger
        texts = await asyncio.to_thread(source_texts, sources, ledger, self._stored)
        spec = None if reply is None else reply.evidence
        made_by = dict.fromkeys(("model", "digest", "prompt_digest", "schema_digest"))
        if step.model is not None:
            key = await self._calibration_key(step)
            values = (step.model.ref, key.model_digest, key.prompt_digest, key.schema_digest)
            made_by = dict(zip(made_by, values, strict=True))
        return {
            **subject,
            **made_by,
            "schema": None if tools.reply is None else tools.reply.schema,
            "checks": [check.source for check in checks],
            "scope": values_read(sorted(paths), scope),
            "evidence_only": [] if spec is None else list(spec.only),
            "evidence_language": "" if spec is None else spec.language,
            "sources": texts[:-1],
            "prompt_text": texts[-1],
        }

    def _stored(self, path: str) -> str:
        """Return a document's path as the ledger writes it, without links."""
        try:
            return self._context.index.stored(self._context.bound.roots.resolve(path))
        except (OutsideRoots, OSError, RuntimeError, ValueError):
            return self._context.index.stored(path)


# --- what a decision makes of an answer: accepted, edited or rejected


def decided_outputs(
    outputs: Mapping[str, Any], review: Review, has_schema: bool, evidence: Any = None
) -> dict[str, Any]:
    """Return a step's outputs after an accepted or edited answer; `evidence`: of the new values."""
    outcome: dict[str, Any] = {
        "state": review.state,
        "by": review.by,
        "at": iso_time(review.decided_at),
    }
    if review.state != "edited":
        return {**outputs, "review": outcome}
    value = review.value
    answer = {"text": value, "output": None, "undecided": []}
    if has_schema:
        answer |= {"text": json.dumps(value, ensure_ascii=False), "output": value}
    outcome["value"] = value
    was = answer_of(outputs)
    mirrors = {
        "evidence": _after_edit(outputs.get("evidence"), evidence, was, value),
        "confidence": _after_edit(
            outputs.get("confidence"), _of_person(outputs.get("confidence"), value), was, value
        ),
    }
    return {**outputs, **answer, **mirrors, "review": outcome}


_FROM_PERSON = {**dict.fromkeys(("p", "low", "raw", "second", "second_p")), "is_calibrated": False}
"""The confidence of a value that a person wrote: no model was asked."""


def _of_person(confidence: Any, value: Any) -> Any:
    """Return the confidence of a value that a person wrote; None where there was none before."""
    if confidence is None:
        return None
    if isinstance(value, Mapping):
        return {name: _of_person(confidence, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_of_person(confidence, inner) for inner in value]
    return _FROM_PERSON


def _after_edit(before: Any, new: Any, was: Any, value: Any) -> Any:
    """Return a mirror of an edited answer: that from before for the fields that were not edited.

    Elements of a list are the same where their values are, so one that is added or removed leaves
    the others theirs.

    >>> _after_edit({"a": 1, "b": 2}, {"a": 3, "b": 4}, {"a": "x", "b": "y"}, {"a": "x", "b": "z"})
    {'a': 1, 'b': 4}
    """
    if before is None:
        return new
    if is_same_value(was, value):
        return before
    if all(isinstance(each, Mapping) for each in (before, was, value)):
        held = new if isinstance(new, Mapping) else {}
        return {
            name: _after_edit(before.get(name), held.get(name), was[name], inner)
            if name in was
            else held.get(name)
            for name, inner in value.items()
        }
    if all(isinstance(each, list) for each in (before, was, value)) and len(before) == len(was):
        others = [*(new if isinstance(new, list) else ()), *[None] * len(value)]
        return [
            other if origin is None else _after_edit(before[origin], other, was[origin], element)
            for origin, other, element in zip(_origins(was, value), others, value, strict=False)
        ]
    return new


def _origins(was: Sequence[Any], now: Sequence[Any]) -> list[int | None]:
    """Return for each element of a list where it was before; None: it is new."""
    found: list[int | None] = [None] * len(now)
    before, after = ([canonical_json(item) for item in items] for items in (was, now))
    same = SequenceMatcher(None, before, after, autojunk=False)
    for kind, i, i_end, j, j_end in same.get_opcodes():
        if kind == "equal" or (kind == "replace" and i_end - i == j_end - j):
            found[j:j_end] = range(i, i_end)
    return found
