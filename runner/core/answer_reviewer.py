"""Reviews of a step's answer for one item: ask a person, apply the decision, calibrate."""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paddock.engine.system.records import replace
from paddock.engine.system.text import canonical_json, one_line
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.schema_validation import value_faults
from paddock.pipelines.text_cells import SourceText
from paddock.runner.answers.evidence import read_sources
from paddock.runner.answers.scoped_reply import ScopedReply
from paddock.runner.answers.text_vectors import inserted_text
from paddock.runner.bind.bound import BoundBlock, BoundStep
from paddock.runner.bind.specs import prompt_digest
from paddock.runner.calibration.confidence_calibration import CalibrationKey, calibrated, start_text
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.ledger.reviews.asked_before import asked_or_decided, is_same_value, stands
from paddock.runner.ledger.reviews.reviews import Question, Review, Subject
from paddock.runner.progress.reasons import Why
from paddock.runner.rules.readings import Reading
from paddock.runner.rules.reasons import WhyOpen
from paddock.steps.base import Output, OutsideRoots, Tools
from paddock.steps.param_types import InputContent

from .failures import Cause, ItemWaits, SkippedByReview, StepFailed
from .readings import Readings, outputs_seen
from .reviews.decided_outputs import decided_outputs, with_answer
from .reviews.review_questions import (
    MOST_REASON_CHARS,
    MOST_REASONS,
    document_spec,
    is_drawn,
    is_due,
    second_answer,
    source_texts,
    values_read,
    with_reasons,
)
from .reviews.run_reviews import decision_reason, waiting_reason
from .run_records import answer_of, read_lineage
from .traces.block_items import document_readers

if TYPE_CHECKING:
    from .item_attempt import StepAttempt
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

    async def calibrated(self, attempt: StepAttempt, output: Output) -> dict[str, Any]:
        """Return outputs with the confidence that people's decisions give it, where these suffice.

        The outputs keep the confidence of that time: later decisions make no item stale. Decisions
        about this item, or about its document elsewhere, do not count.
        """
        outputs: dict[str, Any] = output.model_dump(mode="json")
        step, item = attempt.step, attempt.item
        if step.model is None or step.reply is None or outputs.get("confidence") is None:
            return outputs
        key = await self._calibration_key(step)
        tables = self._reviews.calibrations()
        if (changed := start_text(key, tables)) is not None:
            self._context.stats.note(changed)
        if key not in tables:
            return outputs
        own = (item.scope_id, item.key)
        counts = tables[key].counts(own, attempt.document_digest)
        return {**outputs, "confidence": calibrated(outputs["confidence"], counts)}

    async def _calibration_key(self, step: BoundStep) -> CalibrationKey:
        assert step.model is not None
        bound = self._context.bound
        if step.id not in self._prompts:
            self._prompts[step.id] = prompt_digest(step, bound)
        schema = None if step.reply is None else step.reply.schema
        model = await self._context.world.models.of(step.model)
        return CalibrationKey(
            self._context.options.variant_of or bound.file.name,
            step.id,
            model,
            self._prompts[step.id],
            hashlib.sha256(canonical_json(schema).encode()).hexdigest(),
        )

    def n_rejected(self, attempt: StepAttempt) -> int:
        step = attempt.step
        if step.review is None or (review := attempt.item.reviews.get(step.id)) is None:
            return 0
        decisions = [(row.get("state"), row.get("document_sha256")) for row in review.earlier]
        if self._context.options.retry_failed:  # the present answer is replaced, too
            decisions.append((review.state, review.subject.document_sha256))
        return decisions.count(("rejected", attempt.document_digest))

    def decided_before(self, attempt: StepAttempt, readings: Readings) -> dict[str, Any] | None:
        """Return `outputs_seen`; the step is recorded as the run did that made them."""
        step, item, caller = attempt.step, attempt.item, attempt.caller
        if (outputs := outputs_seen(attempt, readings)) is None:
            return None
        ledger = self._context.ledger
        row = LineageStore(ledger).of_item(item.scope_id, item.key)
        for past in read_lineage(row).steps:
            if past.id == step.id:
                caller.calls.extend(replace(call, is_known=True) for call in past.calls)
        return outputs

    async def with_readings(
        self, outputs: dict[str, Any], readings: Readings, tools: Tools
    ) -> tuple[dict[str, Any], list[str]]:
        """Return a model's outputs with what is read without it, and the faults of both."""
        answer = readings.over(was := answer_of(outputs))
        reply, is_same = tools.reply, is_same_value(answer, was)
        if not isinstance(reply, ScopedReply) or reply.schema is None:
            edited = with_answer(outputs, answer, has_schema=False, evidence=None)
            return outputs if is_same else edited, []
        evidence = None if is_same else await reply.evidence(answer)
        names = readings.known if isinstance(answer, Mapping) else ()
        merged = with_answer(outputs, answer, has_schema=True, evidence=evidence, known=names)
        if is_same:  # its text is the model's own, to the byte
            return {**outputs, "confidence": merged["confidence"]}, []
        if readings.is_decided:
            return merged, []
        faults = [fault.sentence for fault in value_faults(answer, reply.schema)]
        return merged, faults or await reply.checked(answer, merged["text"])

    async def review_answer(
        self,
        attempt: StepAttempt,
        outputs: dict[str, Any],
        readings: Readings,
        tools: Tools,
        faults: Sequence[str],
    ) -> dict[str, Any]:
        """Return a step's outputs as a person decides on its answer.

        `readings`: a decision on its whole answer counts, whatever `when` says of it now; else a
        person is asked about the fields that nothing reads without the model. `faults`: those of
        an answer with what they have.

        1. The answer is sure, and not in the random share: its outputs stay as they are.
        2. It is due, and the run accepts all answers: it is accepted unseen, if it is valid.
        3. A person has decided: their decision is applied, once the item is recorded.
        4. No one has decided: a person is asked, and the item waits.

        Raises:
            ItemWaits: case 4; or it is due, and the run asks no one.
            SkippedByReview: case 3: no one decided in time, and the item is skipped then.
            StepFailed: case 3: the answer was rejected. Case 2: what is known does not go with the
                model's answer. Or it is due, and the run was told to fail then.
        """
        step, item, store, mode = (
            attempt.step,
            attempt.item,
            self._reviews.store,
            self._reviews.mode,
        )
        assert step.review is not None
        if readings.names:
            outputs = {**outputs, "readings": readings.sources}
        # Where no one is asked, a sure answer is used as it would be without the share.
        is_sampled = mode == "ask" and is_drawn(step.review, step.id, item.shown_key or item.key)
        try:
            subject = self._subject(attempt, outputs, readings, is_sampled=is_sampled)
            due = readings.is_decided or bool(faults) or is_due(step.review, attempt.scope, outputs)
            question = self._question(attempt, subject)
            old = store.at(question.scope, question.key, question.step)
            old = None if old is None else asked_or_decided(question, old)
            if old is None or not old.is_decided or not stands(question, old):
                if due and mode == "skip":
                    raise ItemWaits(Why.REVIEW_SKIPPED(), None)
                if due and mode == "fail":
                    why = "a review is due (`--review fail`)"
                    raise StepFailed(step.id, why, cause=Cause.REVIEW)
                if not (due or is_sampled) or mode != "ask":
                    if old is not None and not old.is_decided:
                        await asyncio.to_thread(store.withdraw, old)
                    if not due:
                        return outputs  # 1
                    if faults:
                        raise StepFailed(step.id, " ".join(faults), cause=Cause.CHECK)
                    unseen = {"state": "accepted", "by": MODE_OPTION, "at": None}
                    return {**outputs, "review": unseen}  # 2
            question = await self._full_question(attempt, subject, tools, faults, is_sampled)
        except ExpressionError as error:
            raise StepFailed(step.id, f"`review.when`: {error}") from error
        review = await asyncio.to_thread(store.ask, question)
        if not review.is_decided:
            raise ItemWaits(waiting_reason(review))  # 4
        item.applied.append(review)
        if readings.names:
            seen = review.fields_seen
            by_person = dict.fromkeys(
                readings.names if seen is None else seen, Reading(None, "person").source
            )
            outputs = {**outputs, "readings": {**readings.sources, **by_person}}
        return await self._applied(step, review, outputs, tools)  # 3

    async def _applied(
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

    def _subject(
        self, attempt: StepAttempt, outputs: dict[str, Any], readings: Readings, *, is_sampled: bool
    ) -> Subject:
        step, scope, item = attempt.step, attempt.scope, attempt.item
        assert step.review is not None
        to_ask = readings.fields_to_ask(outputs.get("output"))
        why = {how.get("open") for how in readings.sources.values()}
        if to_ask == () and (is_sampled or is_due(step.review, scope, outputs)):
            to_ask = None  # for another reason
        return Subject(
            pipeline=self._context.bound.file.name,
            block=item.node.id if item.work.value is not None else "",
            item=item.shown_key or item.key,
            document=attempt.item_name.path or None,
            document_sha256=attempt.document_digest,
            around=item.outputs.items[:-1],
            answer=answer_of(outputs),
            evidence=outputs.get("evidence"),
            confidence=outputs.get("confidence"),
            outputs=outputs,
            when=step.review.when.source,
            by=tuple(step.review.by),
            on_expiry=step.review.on_expiry,
            prompt_vector=item.vectors.get(step.id),
            open=to_ask,
            offers=readings.offers,
            may_be_fraud=WhyOpen.OTHER_ACCOUNT.name.lower() in why,
        )

    def _question(self, attempt: StepAttempt, subject: Subject) -> Question:
        step, item = attempt.step, attempt.item
        assert step.review is not None
        return Question(
            scope=item.scope_id,
            key=item.key,
            step=step.id,
            run=self._context.stats.run,
            subject=Subject.of(self._context.stats.secrets.redacted(subject.as_json())),
            ttl_s=step.review.ttl_s,
            renamed_from=item.work.renamed_from,
            is_asked_again=self._context.options.retry_failed,
        )

    async def _full_question(
        self,
        attempt: StepAttempt,
        subject: Subject,
        tools: Tools,
        faults: Sequence[str],
        is_sampled: bool,
    ) -> Question:
        """Return a question with its reasons, and with the texts that its answer was made of."""
        step, scope, reply = attempt.step, attempt.scope, attempt.step.reply
        assert step.review is not None
        schema, second = None if reply is None else reply.schema, None
        if isinstance(tools.reply, ScopedReply) and tools.reply.finder is not None:
            second = await tools.reply.finder.located(second_answer(subject.outputs or {}))
        subject = with_reasons(
            subject, step.review, scope, is_drawn=is_sampled, schema=schema, second_evidence=second
        )
        why = (*subject.due, *(one_line(fault, MOST_REASON_CHARS) for fault in faults))
        subject = replace(subject, due=why[:MOST_REASONS])
        checks = () if reply is None else reply.checks.values()
        paths = {path for check in checks for path in check.references}
        prompt = SourceText("prompt", inserted_text(step.params.render(scope)))
        documents = document_spec(scope)
        cited = tools.reply.sources() if isinstance(tools.reply, ScopedReply) else ()
        if not cited and documents.sources:
            cited = read_sources(documents, scope, tools.files.roots.base)
        sources = [*cited, prompt]
        if len(sources) == 1 and prompt.text:  # the item has the text of what was read before
            path = subject.document or ""
            kind = mimetypes.guess_type(path)[0] or ""
            name = path or prompt.name
            sources.insert(0, replace(prompt, name=name, path=path, media_type=kind))
        ledger = self._context.ledger
        texts = await asyncio.to_thread(source_texts, sources, ledger, self._stored)
        node, read, ledger_objects = attempt.item.node, dict[str, str](), ledger.objects
        for name in document_readers(node) if isinstance(node, BoundBlock) else ():
            if name in scope["steps"] and not scope.is_skipped(name):
                data = canonical_json(scope["steps"][name]).encode()
                read[name] = await asyncio.to_thread(ledger_objects.put, data)
        spec = None if reply is None else reply.evidence
        key = None if step.model is None else await self._calibration_key(step)
        subject = replace(
            subject,
            model=None if step.model is None else step.model.ref,
            digest=None if key is None else key.model_digest,
            prompt_digest=None if key is None else key.prompt_digest,
            schema_digest=None if key is None else key.schema_digest,
            schema=None if tools.reply is None else tools.reply.schema,
            label_tables=self._label_tables(step),
            checks=tuple(check.source for check in checks),
            scope=values_read(sorted(paths), scope),
            evidence_only=() if spec is None else tuple(spec.only),
            evidence_language="" if spec is None else spec.language,
            sources=tuple(texts[:-1]),
            prompt_text=texts[-1],
            read=read,
        )
        return self._question(attempt, subject)

    def _label_tables(self, step: BoundStep) -> dict[str, Any]:
        """Return the CSV files below the pipeline's folder that are read as they are for labels."""
        nodes = {node.id: node for node in self._context.bound.nodes}
        found: dict[str, Any] = {}
        for choice in step.choices:
            source = nodes.get(choice.source.source.removeprefix("steps.").removesuffix(".rows"))
            if choice.keys.by is None or not isinstance(source, BoundStep):
                continue
            path = str(source.written.get("path"))
            stored = self._stored(path)
            is_below = not stored.startswith(("/", ".."))
            if source.has(InputContent) and source.written.keys() == {"path"} and is_below:
                keys = choice.keys.model_dump(exclude_none=True)
                found[choice.shown] = {"path": stored, "keys": keys}
        return found

    def _stored(self, path: str) -> str:
        """Return a document's path as the ledger writes it, without links."""
        try:
            return self._context.index.stored(self._context.bound.roots.resolve(path))
        except (OutsideRoots, OSError, RuntimeError, ValueError):
            return self._context.index.stored(path)
