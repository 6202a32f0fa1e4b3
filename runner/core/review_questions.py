"""When an answer waits for a person, what is asked, and what the decision makes of the answer.

`RunReviews` belongs to one run. It knows what waits and what was decided since, asks new questions,
and never asks one twice: the ledger decides that in one transaction (`runner.ledger.reviews`).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import SequenceMatcher
from functools import partial
from typing import Any

from paddock.engine.system.samples import SEED, draw
from paddock.engine.system.text import canonical_json, counted, one_line, path_text
from paddock.pipelines.expressions import Expression, ExpressionError, Reference
from paddock.pipelines.model import EvidenceSpec, ReviewSpec
from paddock.runner.bind.bound import BoundPlan, all_plans, steps_with_blocks
from paddock.runner.bind.evidence_sources import EvidenceSource
from paddock.runner.bind.inputs_and_parameters import evidence_of_whole, review_names
from paddock.runner.ledger.calibration import CalibrationKey, StepCalibration, calibrations_of
from paddock.runner.ledger.ledger import INLINE_CHARS, Ledger
from paddock.runner.ledger.reviews import (
    Question,
    Review,
    ReviewStore,
    ReviewTerms,
    is_same_value,
    stands,
)
from paddock.runner.progress.report import ReviewMode
from paddock.steps.llm.confidence import is_confidence

MODE_OPTION = "--review accept"
"""Who decided, where a run was told to accept everything."""


class AwaitingReview(Exception):
    """An item waits for a decision: nothing behind the step is carried out."""

    def __init__(self, why: str, *, is_asked: bool = True) -> None:
        self.why = why
        self.is_asked = is_asked
        """False: the run was told to leave such items (`--review skip`)."""
        super().__init__(why)


class NobodyAsked(Exception):
    """A review is due, and the run was told to fail then."""


def refuse_waiting(block: str, n_waiting: int, *, has_unasked: bool) -> None:
    """Raise `AwaitingReview` where an item of a nested block waits: the item around it does too."""
    if n_waiting:
        verb = "waits" if n_waiting == 1 else "wait"
        raise AwaitingReview(f"{counted(n_waiting, 'item')} of '{block}' {verb} for review")
    if has_unasked:
        raise AwaitingReview(f"a review in '{block}' is due", is_asked=False)


@dataclass(frozen=True, slots=True)
class PendingReview:
    """What is known of an item's reviews that are open, or decided and not applied yet."""

    is_open: bool
    why: str


# --- when a review is due


def is_due(spec: ReviewSpec, scope: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
    """Return whether a person has to look at a step's answer.

    Raises:
        ExpressionError: `when` cannot be evaluated.
    """
    return bool(spec.when.evaluate({**scope, **review_names(outputs)}))


def is_drawn(spec: ReviewSpec, step: str, item: str) -> bool:
    """Return whether an item belongs to the random share that is asked about: always the same."""
    return spec.also is not None and draw(SEED, f"review\n{step}\n{item}") < spec.also


def asked_because(
    spec: ReviewSpec, scope: Mapping[str, Any], outputs: Mapping[str, Any], *, is_drawn: bool
) -> dict[str, Any]:
    """Return why an answer is asked about, as its question keeps it.

    `share` is None for an answer that was decided on before, and would not be asked about now.
    """
    due = is_due(spec, scope, outputs)
    why = due_reasons(spec.when, {**scope, **review_names(outputs)}, outputs) if due else []
    if spec.also is not None and is_drawn and not due:
        why = [f"a random check: {100 * spec.also:g}% of those that are sure"]
    return {
        "due": why,
        "least": least_sure(outputs),
        "share": spec.also if due or is_drawn else None,
        "is_sampled": is_drawn and not due,
    }


# --- why it is due: of the parts of `when` that `or` joins, those that hold, and of what. Where
# `when` is always true, what is most in doubt about the answer.


def least_sure(outputs: Mapping[str, Any]) -> float | None:
    """Return the least probability of an answer's fields; None where none is known."""
    return min((p for _, p in _leaves(outputs.get("confidence"))), default=None)


MOST_REASONS = 6
MOST_REASON_CHARS = 120
_MOST_NAMED = 4
_IN_DOUBT = 0.85
"""Probability below which a field is named where `when` says nothing: the page's own mark."""
_MOST_CHARS = 40
"""Of a value."""
_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\w+|\s+|.""", re.DOTALL)
_LEAST = re.compile(r"\s*confidence\.min\s*(<=?)\s*(\d*\.?\d+)\s*")
_MISSING = re.compile(
    r"\s*evidence\.missing\s*(?:\|\s*(?:length|count)\s*(?:>\s*0|!=\s*0|>=\s*1)?)?\s*"
)


def due_reasons(
    when: Expression, scope: Mapping[str, Any], outputs: Mapping[str, Any]
) -> list[str]:
    """Return why an answer is due, a short sentence each; `scope` has the names of `when`."""
    found: list[str] = []
    for part in split_at(when.source, "or"):
        if _holds(part, scope):
            found += _of_part(part, scope, outputs)
    found = found or list(doubts(outputs))
    return [one_line(one, MOST_REASON_CHARS) for one in dict.fromkeys(found)][:MOST_REASONS]


def doubts(outputs: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is in doubt about an answer: values that stand nowhere, and unsure ones."""
    missing = evidence_of_whole(outputs.get("evidence"))["missing"]
    if missing:
        yield _missing_text(missing)
    yield from _unsure(outputs, _IN_DOUBT)


def split_at(source: str, word: str) -> list[str]:
    """Split an expression at `or` or `and`, but not within brackets, texts or a choice.

    >>> split_at("a < 1 or (b or c) or d == ' or '", "or")
    ['a < 1', '(b or c)', "d == ' or '"]
    """
    source = _without_brackets(source.strip())
    parts, depth = [""], 0
    for token in _TOKEN.findall(source):
        depth += (token in "([{") - (token in ")]}")
        if depth == 0 and token in ("if", "else"):
            return [source]
        if depth == 0 and token == word:
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts]


def _without_brackets(source: str) -> str:
    """Return an expression without brackets around the whole."""
    while source.startswith("(") and source.endswith(")"):
        depth = 0
        tokens = _TOKEN.findall(source)
        for number, token in enumerate(tokens):
            depth += (token in "([{") - (token in ")]}")
            if depth == 0 and number + 1 < len(tokens):
                return source
        source = source[1:-1].strip()
    return source


def _holds(part: str, scope: Mapping[str, Any]) -> bool:
    try:
        return bool(Expression.of(part).evaluate(scope))
    except ExpressionError:  # one that a part before it guards
        return False


def _of_part(part: str, scope: Mapping[str, Any], outputs: Mapping[str, Any]) -> Iterator[str]:
    for one in split_at(part, "and"):
        if len(split_at(one, "or")) > 1:
            yield from (
                words
                for inner in split_at(one, "or")
                if _holds(inner, scope)
                for words in _of_part(inner, scope, outputs)
            )
        elif found := _LEAST.fullmatch(one):
            yield from _unsure(outputs, float(found[2]), is_equal_too=found[1] == "<=")
        elif _MISSING.fullmatch(one):
            yield _missing_text(evidence_of_whole(outputs.get("evidence"))["missing"])
        else:
            yield from _values_read(one, scope)


def _missing_text(paths: Sequence[str]) -> str:
    verb = "stands" if len(paths) == 1 else "stand"
    return f"{_listed([path or 'the answer' for path in paths])} {verb} nowhere"


def _unsure(
    outputs: Mapping[str, Any], least: float, *, is_equal_too: bool = False
) -> Iterator[str]:
    """Yield the fields with a probability below `least`, the least sure first."""
    confidence = outputs.get("confidence")
    if confidence is None:
        if outputs.get("output") is not None and least < 1 and is_equal_too:
            yield "no confidence is known"
        return
    found = sorted(
        (p, path_text(path))
        for path, p in _leaves(confidence)
        if p < least or (is_equal_too and p == least)
    )
    for p, path in found[:_MOST_NAMED]:
        yield f"{path or 'the answer'} has {p:.0%}"
    if len(found) > _MOST_NAMED:
        yield f"{len(found) - _MOST_NAMED} more are below {least:.0%}"


def _leaves(
    confidence: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], float]]:
    if is_confidence(confidence):
        if confidence["raw"] is not None:
            yield path, float(confidence["p"] or 0.0)
    elif isinstance(confidence, Mapping | list):
        pairs = confidence.items() if isinstance(confidence, Mapping) else enumerate(confidence)
        for name, inner in pairs:
            yield from _leaves(inner, (*path, name))


def _values_read(part: str, scope: Mapping[str, Any]) -> Iterator[str]:
    """Yield a part with the values that it reads; nothing of a constant."""
    named = []
    for path in sorted(Expression.of(part).references):
        value: Any = scope
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping | list):
            shown = value if isinstance(value, str) else _number_text(value)
            named.append(f"{'.'.join(path)} is {one_line(shown, _MOST_CHARS)}")
        else:
            named.append("")
    if named:
        told = _listed([one for one in named if one])
        yield f"{one_line(part, 2 * _MOST_CHARS)}" + (f": {told}" if told else "")


def _number_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(words: Sequence[str]) -> str:
    some = list(words[:_MOST_NAMED])
    if len(words) > _MOST_NAMED:
        some.append(f"{len(words) - _MOST_NAMED} more")
    return " and ".join(filter(None, (", ".join(some[:-1]), some[-1]))) if some else ""


# --- what is asked


def values_read(references: Sequence[Reference], scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a scope that some expressions read, in its own shape.

    >>> values_read([("inputs", "most")], {"inputs": {"most": 3, "least": 1}, "steps": {}})
    {'inputs': {'most': 3}}
    """
    found: dict[str, Any] = {}
    for path in sorted(references, key=len):
        value: Any = scope
        at = found
        for number, name in enumerate(path):
            if not isinstance(value, Mapping) or name not in value:
                break
            value = value[name]
            is_last = number + 1 == len(path) or not isinstance(value, Mapping)
            if is_last:
                at[name] = value
                break
            at = at.setdefault(name, {})
            if at is value:  # a shorter path has taken all of it
                break
    return found


def source_texts(
    sources: Iterable[EvidenceSource], ledger: Ledger, stored: Callable[[str], str]
) -> list[dict[str, Any]]:
    """Return the texts that an answer was made of, long ones as objects of the ledger.

    `stored` returns a path as the ledger writes it.
    """
    found = []
    for one in sources:
        path = stored(one.path) if one.path else None
        told = {"name": one.name, "path": path, "media_type": one.media_type or None}
        if len(one.text) > INLINE_CHARS:
            text = {"text_object": ledger.objects.put(one.text.encode())}
        else:
            text = {"text": one.text}
        found.append({**told, **text, "page_starts": list(one.page_starts)})
    return found


def document_spec(scope: Mapping[str, Any]) -> EvidenceSpec:
    """Return the outputs of `files.read` in a scope as sources of evidence.

    >>> scope = {"steps": {"text": {"text": "a", "pages": []}, "(prompt)": {"text": "b"}}}
    >>> [source.source for source in document_spec(scope).sources]
    ['steps.text']
    """
    read = (
        name
        for name, outputs in scope.get("steps", {}).items()
        if name.isidentifier() and isinstance(outputs.get("text"), str) and "pages" in outputs
    )
    return EvidenceSpec(tuple(Expression.of(f"steps.{name}") for name in read))


def answer_of(outputs: Mapping[str, Any]) -> Any:
    """Return what a person decides on: the value by the schema, else the text."""
    value = outputs.get("output")
    return outputs.get("text") if value is None else value


# --- what a decision makes of an answer


def decided_outputs(
    outputs: Mapping[str, Any], review: Review, has_schema: bool, evidence: Any = None
) -> dict[str, Any]:
    """Return a step's outputs after an accepted or edited answer; `evidence`: of the new values."""
    told: dict[str, Any] = {
        "state": review.state,
        "by": review.by,
        "at": iso_time(review.decided_at),
    }
    if review.state != "edited":
        return {**outputs, "review": told}
    value = review.value
    answer = {"text": value, "output": None}
    if has_schema:
        answer = {"text": json.dumps(value, ensure_ascii=False), "output": value}
    told["value"] = value
    was = answer_of(outputs)
    mirrors = {
        "evidence": _after_edit(outputs.get("evidence"), evidence, was, value),
        "confidence": _after_edit(
            outputs.get("confidence"), _of_person(outputs.get("confidence"), value), was, value
        ),
    }
    return {**outputs, **answer, **mirrors, "review": told}


_FROM_PERSON = {"p": None, "raw": None, "second": None, "second_p": None, "is_calibrated": False}
"""The confidence of a value that a person wrote: no model was asked."""


def _of_person(confidence: Any, value: Any) -> Any:
    """Return the confidence of a value that a person wrote; None where there was none before."""
    if confidence is None:
        return None
    if isinstance(value, Mapping):
        return {name: _of_person(confidence, one) for name, one in value.items()}
    if isinstance(value, list):
        return [_of_person(confidence, one) for one in value]
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
    if all(isinstance(one, Mapping) for one in (before, was, value)):
        held = new if isinstance(new, Mapping) else {}
        return {
            name: _after_edit(before.get(name), held.get(name), was[name], one)
            if name in was
            else held.get(name)
            for name, one in value.items()
        }
    if all(isinstance(one, list) for one in (before, was, value)) and len(before) == len(was):
        others = [*new, *[None] * len(value)] if isinstance(new, list) else [None] * len(value)
        return [
            other if origin is None else _after_edit(before[origin], other, was[origin], one)
            for origin, other, one in zip(_origins(was, value), others, value, strict=False)
        ]
    return new


def _origins(was: Sequence[Any], now: Sequence[Any]) -> list[int | None]:
    """Return for each element of a list where it was before; None: it is new."""
    found: list[int | None] = [None] * len(now)
    before, after = ([canonical_json(one) for one in items] for items in (was, now))
    same = SequenceMatcher(None, before, after, autojunk=False)
    for kind, i, i_end, j, j_end in same.get_opcodes():
        if kind == "equal" or (kind == "replace" and i_end - i == j_end - j):
            found[j:j_end] = range(i, i_end)
    return found


def accepted_unseen(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's outputs where the run was told to accept what no one has seen."""
    return {**outputs, "review": {"state": "accepted", "by": MODE_OPTION, "at": None}}


def iso_time(at: float | None) -> str | None:
    """Return a time as expressions see it.

    >>> iso_time(0.0)
    '1970-01-01T00:00:00Z'
    """
    return None if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def decision_text(review: Review) -> str:
    """Return what was decided, in words."""
    if review.state == "expired":
        return "no one decided in time"
    words = f"{review.state} by {review.by}"
    return f"{words}: {review.reason}" if review.reason else words


def n_rejections(review: Review | None, document: str, *, is_tried_again: bool) -> int:
    """Return how many rejected answers about an unchanged document were tried again.

    `is_tried_again`: another answer is wanted in place of the present one, too.
    """
    if review is None:
        return 0
    told = [(one.get("state"), one.get("document_sha256")) for one in review.earlier]
    if is_tried_again:
        told.append((review.state, review.subject.get("document_sha256")))
    return told.count(("rejected", document))


def terms_of(bound: BoundPlan) -> dict[tuple[str, str, str], ReviewTerms]:
    """Return who may decide, and for how long, by file, block and step; of sub-pipelines too.

    Files of one name in two folders may say different things: of those nothing is known.
    """
    found: dict[tuple[str, str, str], set[ReviewTerms]] = {}
    for plan in all_plans(bound):
        for block, step in steps_with_blocks(plan.nodes):
            if step.review is not None:
                spec = step.review
                terms = ReviewTerms(tuple(spec.by), spec.ttl_s, spec.on_expiry)
                found.setdefault((plan.file.name, block, step.id), set()).add(terms)
    return {place: terms.pop() for place, terms in found.items() if len(terms) == 1}


# --- the reviews of a run

Place = tuple[str, str]
"""Scope and key of an item."""


class RunReviews:
    """The reviews of one run or plan. Lives in one loop."""

    def __init__(self, ledger: Ledger, bound: BoundPlan, mode: ReviewMode = "ask") -> None:
        """With a ledger that is only read nothing is asked and nothing is closed."""
        self._bound = bound
        self.mode = mode
        self.is_dry = ledger.is_readonly
        self._ledger = ledger
        self._store = ReviewStore(ledger)
        self._pending: dict[Place, list[Review]] | None = None
        self._calibrations: dict[CalibrationKey, StepCalibration] | None = None
        self._loading = asyncio.Lock()

    async def calibrations(self) -> Mapping[CalibrationKey, StepCalibration]:
        """Return what people had decided about each step's fields as the run first asked."""
        async with self._loading:
            if self._calibrations is None:
                decided = await self._ledger.ask(partial(self._store.decided, is_whole=True))
                waiting = await self._ledger.ask(partial(self._store.waiting, is_whole=True))
                self._calibrations = calibrations_of([*decided, *waiting])
        return self._calibrations

    async def load(self) -> None:
        """Read what waits and what was decided since, once; close what is late."""
        async with self._loading:
            if self._pending is not None:
                return
            terms = terms_of(self._bound)
            if not self.is_dry:
                await asyncio.to_thread(self._store.renew, terms)
                await asyncio.to_thread(self._store.expire)
            found: dict[Place, list[Review]] = {}
            for review in await self._ledger.ask(self._store.pending, terms):
                for place in (
                    (review.scope, review.key),
                    *(tuple(one) for one in review.subject.get("around") or ()),
                ):
                    found.setdefault(place, []).append(review)
            self._pending = found

    def of_item(self, scope: str, key: str) -> PendingReview | None:
        """Return what of an item waits, or was decided since the last run; after `load`."""
        reviews = (self._pending or {}).get((scope, key), ())
        decided = [one for one in reviews if one.is_decided]
        if decided:
            return PendingReview(False, decision_text(decided[0]))
        if not reviews:
            return None
        own = [one for one in reviews if (one.scope, one.key) == (scope, key)]
        if own:
            since = iso_time(own[0].asked_at)
            return PendingReview(True, f"waits for review since {since}")
        verb = "waits" if len(reviews) == 1 else "wait"
        return PendingReview(True, f"{counted(len(reviews), 'answer')} within it {verb} for review")

    async def at(self, scope: str, key: str, step: str) -> Review | None:
        """Return the review of a step's answer for an item, whole."""
        return await self._ledger.ask(self._store.at, scope, key, step)

    async def rejected(self, scope: str) -> set[str]:
        """Return the keys of the items of which a person rejected an answer."""
        found = await self._ledger.ask(self._store.of_scope, scope)
        return {key for (key, _), review in found.items() if review.state == "rejected"}

    async def settle(
        self, light: Question, whole: Callable[[], Awaitable[Question]], *, is_due: bool
    ) -> Review | None:
        """Return the decision on an answer; None: it needs none. Asks where no one has decided.

        `light` has only what tells questions apart; `whole` returns everything that a person sees.

        Raises:
            AwaitingReview: a person has to decide first.
            NobodyAsked: a person would have to, and the run was told to fail then.
        """
        old = await self.at(light.scope, light.key, light.step)
        is_decided = old is not None and old.is_decided and stands(light, old)
        if not is_decided and not is_due:
            if old is not None and not old.is_decided:
                await self._withdraw(old)
            return None
        if not is_decided and self.mode != "ask":
            await self._without_asking(old)
            return None
        review = await asyncio.to_thread(self._store.ask, await whole())
        if not review.is_decided:
            raise AwaitingReview(f"waits for review since {iso_time(review.asked_at)}")
        return review

    async def _without_asking(self, old: Review | None) -> None:
        if self.mode == "skip":
            raise AwaitingReview("a review is due (`--review skip`)", is_asked=False)
        if self.mode == "fail":
            raise NobodyAsked("a review is due (`--review fail`)")
        if old is not None and not old.is_decided:
            await self._withdraw(old)

    async def apply(self, review: Review) -> bool:
        """Mark that the run goes on with a decision; return False if it was undone meanwhile."""
        return await asyncio.to_thread(self._store.apply, review) is not None

    async def _withdraw(self, review: Review) -> None:
        await asyncio.to_thread(self._store.withdraw, review)

    async def forget(self, scope: str, keys: Collection[str]) -> None:
        """Remove the open questions of items that are deleted, or ended without asking them.

        Those of the items within them go too; what this run asked stays.
        """
        found = [one for key in keys for one in (self._pending or {}).get((scope, key), ())]
        for one in found:
            if not one.is_decided:
                await self._withdraw(one)
