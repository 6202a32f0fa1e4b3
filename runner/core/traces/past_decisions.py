"""Decisions of people about the answers of steps: what waits, and what teaches later prompts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from paddock.engine.system.records import Struct, replace
from paddock.pipelines.checking.schema_parts import SchemaParts
from paddock.runner import rules
from paddock.runner.answers.text_vectors import Matrix, Vector8, matrix_of
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.reviews.reviews import Review, SubjectText
from paddock.runner.progress.reasons import Reason

from .parts import part_digest
from .scopes import StepName, step_name

if TYPE_CHECKING:
    from paddock.runner.ledger.reviews.review_store import ReviewStore
    from paddock.runner.rules import Offers, Proposals, Rules, TaughtAnswer

MOST_TAUGHT = 20_000  # decisions of a step teach rules; the newest count
MOST_DECISIONS = 2_000
"""Of a step; the newest count, and a vector of each is held in memory."""


class PendingReview(Struct, frozen=True):
    """What is known of an item's reviews that are open, or decided and not applied yet."""

    is_open: bool
    why: Reason


class Decision(Struct, frozen=True):
    """An accepted or edited answer."""

    id: str
    document_sha256: str
    document: str
    """The path of the document; empty where the item has none."""
    item: str
    """The item's key, behind those of the items around it."""
    answer: Any
    text: SubjectText
    model: str = ""
    """Digest of the model that made `vector`; empty: there is none."""
    vector: Vector8 = ""

    @classmethod
    def of(cls, review: Review) -> Decision | None:
        """Return the decision of a review; None: it has no text, so that it teaches nothing."""
        subject = review.subject
        text = subject.prompt_text or next(iter(subject.sources), None)
        return None if text is None else cls(
            review.id,
            subject.document_sha256,
            subject.document or "",
            review.item,
            review.value,
            text,
            **subject.prompt_vector or {},
        )  # fmt: skip

    def is_of(self, document_sha256: str, document: str, item: str = "") -> bool:
        """Return whether it is about a document, a part of it or an earlier version.

        `item`: of a variant, which is the pipeline's item of that name.
        """
        is_same = document == self.document != "" or item == self.item != ""
        return is_same or document_sha256 == self.document_sha256

    @property
    def digest(self) -> str:
        return part_digest([self.text.content, self.answer])


class StepDecisions(Struct, frozen=True, dict=True):
    """What people decided about one step's answers, the newest first."""

    decisions: tuple[Decision, ...] = ()
    ids: frozenset[str] = frozenset()
    """The ids of all reviews with an accepted or edited answer, also of those that do not teach."""
    taught: tuple[TaughtAnswer, ...] = ()
    """What rules are made of, the oldest first."""
    taught_before: Mapping[str, TaughtAnswer] = {}
    """By the id of a decision, what that on its document's former content taught."""

    @cached_property
    def rules(self) -> Rules:
        return rules.Rules(self.taught)

    @cached_property
    def proposals(self) -> Proposals:
        return rules.Proposals(self.taught)

    def rules_before(self, id_: str, offers: Offers) -> Rules:
        """Return what was taught on the senders of a document before a decision on it was made."""
        before = [*takewhile(lambda taught: taught.id != id_, self.taught)]
        before += filter(None, [self.taught_before.get(id_)])
        cells = {*offers.names}
        return rules.Rules(t for t in before if not t.names or t.names[0][1] in cells)

    @cached_property
    def rules_digest(self) -> str:
        taught = ((t, sorted(t.fields), sorted(t.constants)) for t in self.taught)
        return part_digest([
            [t.id, t.answer, *of, t.packed, *filter(None, ({**t.places}, {**t.marks}))]
            for t, *of in taught
        ])  # fmt: skip

    @cached_property
    def digest(self) -> str:
        return part_digest({decision.id: decision.digest for decision in self.decisions})

    @cached_property
    def by_id(self) -> Mapping[str, Decision]:
        return {decision.id: decision for decision in self.decisions}

    def has(self, used: Mapping[str, str]) -> bool:
        return all(i in self.by_id and self.by_id[i].digest == was for i, was in used.items())

    @cached_property
    def with_vectors(self) -> Mapping[str, tuple[tuple[Decision, ...], Matrix | None]]:
        """The decisions that have vectors, and a unit row for each, by the digest of the model."""
        by_model: dict[str, list[Decision]] = {}
        for decision in self.decisions:
            if decision.model:
                by_model.setdefault(decision.model, []).append(decision)
        return {
            model: (tuple(some), matrix_of([decision.vector for decision in some]))
            for model, some in by_model.items()
        }


class DecisionsByStep(dict[StepName, StepDecisions]):
    """What people decided, by step; of any other step nothing."""

    def __missing__(self, _: StepName) -> StepDecisions:
        return StepDecisions()


def taught_answer(review: Review) -> TaughtAnswer | None:
    """Return what a decision teaches rules; None: nothing."""
    subject, answer = review.subject, review.value
    if not subject.offers or not isinstance(answer, Mapping):
        return None
    seen, schema = review.fields_seen, SchemaParts.of(subject.schema)
    parts = {name: schema.field(name).parts for name in answer}
    constants = {
        name
        for name, value in answer.items()
        if isinstance(value, bool) or any("enum" in p or "const" in p for p in parts[name])
    }
    fields = frozenset(answer) if seen is None else seen
    taught = review.id, answer, fields, frozenset(constants), subject.offers
    places = {name: (start, end) for name, (start, end) in subject.places.items()}
    return rules.TaughtAnswer(*taught, places, subject.marks)


def decisions_of(
    reviews: Sequence[Review],
    scopes: Mapping[str, tuple[str, str]],
    gone: Collection[tuple[str, str]] = (),
) -> DecisionsByStep:
    """Return the answers that people stand by, by step, the newest first.

    `scopes` has the file of each scope and the path of its step or block, such as `clean.each`;
    `gone` the scope and key of each item that was deleted. Answers that were accepted together with
    others do not count: no one has looked at them.
    """
    by_step: dict[StepName, list[Decision]] = {}
    ids: dict[StepName, set[str]] = {}
    taught: dict[StepName, list[TaughtAnswer]] = {}
    taught_before: dict[StepName, dict[str, TaughtAnswer]] = {}
    for review in reviews:
        file, node = scopes.get(review.scope, ("", ""))
        name = step_name(file, f"{node[: node.rfind('.') + 1]}{review.step}")
        of_step, of_ids = by_step.setdefault(name, []), ids.setdefault(name, set())
        if review.state in ("accepted", "edited"):
            of_ids.add(review.id)
        is_seen = review.state == "edited" or (review.state == "accepted" and not review.together)
        teaches = is_seen and not any(place in gone for place in review.places)
        decision = Decision.of(review) if teaches else None
        of_rules = taught_answer(review) if teaches else None
        if of_rules is not None:
            taught.setdefault(name, []).append(of_rules)
            former = None if review.before is None else taught_answer(review.before)
            if former is not None:
                taught_before.setdefault(name, {})[review.id] = former
        if decision is not None and len(of_step) < MOST_DECISIONS:
            of_step.append(decision)
    found = DecisionsByStep()
    for name, decisions in by_step.items():
        found[name] = StepDecisions(
            tuple(decisions),
            frozenset(ids[name]),
            tuple(reversed(taught.get(name, ())[:MOST_TAUGHT])),
            taught_before.get(name, {}),
        )
    return found


def known_decisions(store: ReviewStore, *, keeps_offers: bool = False) -> DecisionsByStep:
    """Return what people decided; what earlier versions kept of documents is made again, and kept.

    `keeps_offers`: the ledger may be written.
    """
    scopes = {scope: (file, step) for scope, file, step, _ in store.ledger.rows(queries.SCOPES)}
    gone, renewed = store.ledger.rows(queries.GONE_ITEMS), dict[str, str]()
    decided = store.standing(is_whole=True)
    for number, review in enumerate(decided):
        if (offers := renewed_offers(store, review)) is not None:
            renewed[review.id] = offers
            decided[number] = replace(review, subject=replace(review.subject, offers=offers))
    if keeps_offers and renewed:
        store.keep_offers(renewed)
    return decisions_of(decided, scopes, {*map(tuple, gone)})


def renewed_offers(store: ReviewStore, review: Review) -> str | None:
    """Return what a document offers, of the text that its decision keeps; None: it is known."""
    subject = review.subject
    if not subject.offers or rules.Offers.is_packed(subject.offers):
        return None
    sources = [store.source(own, store.source_text(own) or "") for own in subject.sources]
    offers, old = rules.offers_of(sources), rules.Offers.without_lines(subject.offers)
    stated = {name: getattr(old, name) for name in ("seller", "stated", "accounts")}
    return replace(offers, **stated).pack()
