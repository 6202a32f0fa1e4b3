"""What a changed list of labels makes stale: its mark on an item, and how it differs now.

The mark of an item (`LABELS`, among its dependencies) has the digest of the list and the labels of
its answer; the recorded spec has the whole list. So a changed list makes only those items stale
whose label is gone, or has another description, or that a new label may fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddock.engine.sampling.json_schema import json_pointer
from paddock.engine.system.text import listed
from paddock.pipelines.label_choices import UNDECIDED, Choice, FieldPath, LabelList, chosen_labels
from paddock.runner.ledger.entries import Entry

from .bound import BoundStep
from .reply import NearestLabels, OfferedLabels
from .text_vectors import Matrix, similarities

LABELS = "labels"
"""First word of the mark of a field that was chosen from a list."""
_SHOWN_LABELS = 3
NEAREST = "nearest"
"""First word of the mark of a text for which the nearest labels of a list were offered."""
_SAME = 1e-3
"""Similarities that differ by less may be the same: texts are embedded in other batches."""

BORDER_SHARE = 0.1
"""Of the nearest labels: an answer among the last of them says that `narrow` may be too small."""
BORDER = "at the border of `narrow`: a label among the farthest tenth of those that were offered"

Labels = Mapping[str, str]
"""Each label of a list, with its description."""


def label_texts(labels: Labels) -> list[str]:
    """Return what is embedded of labels."""
    return [f"{label}: {words}" if words else label for label, words in labels.items()]


def choices_of(step: BoundStep) -> tuple[Choice, ...]:
    return () if step.reply is None else step.reply.choices


def list_name(prefix: str, step: str, field: FieldPath) -> str:
    """Return the name of a list in marks and specs; `prefix`: the steps that lead to its step."""
    return f"{prefix}{step}{json_pointer(field)}"


def label_mark(name: str, found: LabelList, answer: Any, field: FieldPath) -> dict[str, list[Any]]:
    """Mark the list of a field, and the labels that an answer has of it; None: no answer yet."""
    chosen = None if answer is None else sorted({*chosen_labels(answer, field)})
    return {f"{LABELS} {name}": [LABELS, found.recorded_digest, chosen]}


def nearest_mark(name: str, found: NearestLabels) -> dict[str, list[Any]]:
    """Mark the text of an item that was offered the nearest labels of a list."""
    return {f"{NEAREST} {name}": [NEAREST, found.least, found.model, found.vector]}


@dataclass(frozen=True, slots=True)
class LabelVectors:
    """Labels that are new to a list, each with its vector."""

    labels: Sequence[str]
    model: str
    """Identity of the model that made the vectors."""
    rows: Matrix

    def near(self, mark: Sequence[Any]) -> frozenset[str] | None:
        """Return which are among the nearest to an item's text; None: that is not known."""
        _, least, model, vector = mark
        near = similarities(vector, self.rows) if model == self.model else None
        if near is None:
            return None
        pairs = zip(self.labels, near, strict=True)
        return frozenset(label for label, similarity in pairs if similarity > least - _SAME)


@dataclass(frozen=True, slots=True)
class CurrentLabels:
    """The lists that are known before any item, by name, and what is known of their new labels."""

    lists: Mapping[str, LabelList]
    vectors: Mapping[str, LabelVectors] = field(default_factory=dict)
    """Of the lists of which items were offered the nearest labels."""

    def difference(self, entry: Entry, then: Mapping[str, Labels]) -> str | None:
        """Return why an item must be labelled again, or None; `then` are its lists, by name."""
        nearest = entry.marks(NEAREST)
        for key, (_, digest, chosen) in entry.marks(LABELS).items():
            name = key.removeprefix(f"{LABELS} ")
            found, before = self.lists.get(name), then.get(name)
            if found is None or digest in (found.digest, found.ordered_digest):
                continue
            if before is None or chosen is None:
                return f"labels changed: {found.source} (step '{_step_of(name)}')"
            reasons = self._differences(name, before, chosen, nearest.get(f"{NEAREST} {name}"))
            reason = next(reasons, None)
            if reason is None and found.relabels_all:
                reason = f"labels changed: {found.source}"
            if reason is not None:
                return f"{reason} (step '{_step_of(name)}')"
        return None

    def _differences(
        self, name: str, before: Labels, chosen: Sequence[str], mark: Sequence[Any] | None
    ) -> Iterator[str]:
        found = self.lists[name]
        gone = [label for label in chosen if label in before and label not in found.labels]
        if gone:
            yield f"its label is gone: {_quoted(gone)}"
        other = [label for label in chosen if before.get(label, "") != found.labels.get(label, "")]
        if other:
            yield f"the description of its label changed: {_quoted(other)}"
        # New labels; with `mark` only those that are among the nearest to an item's text
        near, vectors = None, self.vectors.get(name)
        if mark is not None and vectors is not None:
            near = vectors.near(mark)
        how = "" if near is None else " and near its text"
        new = [label for label in found.labels if label not in before]
        new = [label for label in new if near is None or label in near]
        if new:
            is_undecided = mark is not None and near is None and not found.relabels_all
            undecided = f"; {UNDECIDED}" if is_undecided else ""
            yield f"new in {found.source}{how}: {_quoted(new)}{undecided}"


def _step_of(name: str) -> str:
    return name.partition("/")[0]


def _quoted(labels: Sequence[str]) -> str:
    return listed([f"'{label}'" for label in labels], _SHOWN_LABELS)


def n_at_border(offered: OfferedLabels, answer: Any) -> int:
    """Return how many labels of an answer are among the last of the nearest ones."""
    n = 0
    for name, found in offered.nearest.items():
        nearest = found.labels
        border = nearest[-max(1, round(BORDER_SHARE * len(nearest))) :]
        n += sum(label in border for label in chosen_labels(answer, name))
    return n
