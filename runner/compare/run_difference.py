"""The difference between two runs of a pipeline: which items, which states, which answers.

The ledger keeps the latest state of each item; what an earlier run said is in the calls that it was
the first to make, and in those that its journal names, until `paddock clean` removes them or a
later run replaces them. What an item without model calls held is only on record in the latest run
that did it. What is not on record never counts as alike.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from paddock.engine.system.text import shorten
from paddock.runner.core.run_records import read_lineage
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage import LineageStore
from paddock.runner.ledger.run_history import PastRun, open_for_reading
from paddock.runner.progress.events import LONGEST_TEXT, JournalTail
from paddock.runner.progress.report import MADE_STATES
from paddock.runner.render.html_page import state_html
from paddock.runner.render.run_details import RunItem, outer_keys, read_run_details

from .comparison_page import MOST_EQUAL_PAIRS, n_equal_pairs, word_differences

ItemName = tuple[str, str]
"""Step and key."""
_MOST_ANSWER_CHARS = 20_000
_NOT_COMPARED = '<p class="soft">Too much to compare word by word here.</p>'


@dataclass(frozen=True, slots=True)
class RunItemChange:
    """An item of either run; its state is empty where a run did not do it."""

    step: str
    key: str
    before: str
    after: str
    answer_before: str | None = ""
    answer_after: str | None = ""
    """Its error or result where no model was asked. None: it is not on record."""
    has_answers: bool = True
    """Whether a model was asked."""

    @property
    def is_known(self) -> bool:
        return self.before != self.after or None not in (self.answer_before, self.answer_after)

    @property
    def is_alike(self) -> bool:
        return self.before == self.after and self.answer_before == self.answer_after


@dataclass(frozen=True, slots=True)
class RunDifference:
    """What became of the items of two runs of one ledger, in the order of their names."""

    changed: tuple[RunItemChange, ...]
    """Of both runs, with another state or answer."""
    added: tuple[RunItemChange, ...]
    """Of the later run only."""
    left: tuple[RunItemChange, ...]
    """Of the earlier run only: fresh since, or gone."""
    unknown: tuple[RunItemChange, ...]
    """Of both runs, with the same state; an answer is not on record."""
    made_again: tuple[RunItemChange, ...]
    """The same without model calls; what they held is not on record."""
    n_alike: int


def run_difference(before: PastRun, after: PastRun) -> RunDifference:
    """Read the difference between two runs of one ledger.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    old, new = _items(before), _items(after)
    with open_for_reading(after.place) as ledger:
        query = "select hash, run, at from calls where kind = 'chat'"
        made = {hash_: (run, at) for hash_, run, at in ledger.rows(query)}
        runs = (
            _RunAnswers(ledger, before, made, _answers(ledger, before)),
            _RunAnswers(ledger, after, made, _answers(ledger, after)),
        )
        changes = [
            _change(runs, name, old.get(name), new.get(name))
            for name in sorted(old.keys() | new.keys())
        ]
    both = [one for one in changes if one.before and one.after]
    unknown = [one for one in both if not one.is_known]
    changed = tuple(one for one in both if one.is_known and not one.is_alike)
    return RunDifference(
        changed,
        tuple(one for one in changes if not one.before),
        tuple(one for one in changes if not one.after),
        tuple(one for one in unknown if one.has_answers),
        tuple(one for one in unknown if not one.has_answers),
        len(both) - len(changed) - len(unknown),
    )


def _items(past: PastRun) -> dict[ItemName, RunItem]:
    items = read_run_details(past, with_calls=False).items
    return {(item.step, item.key): item for item in items}


def _state(item: RunItem | None) -> str:
    """Return the state of an item, empty if there is none; why one was done does not count."""
    if item is None:
        return ""
    return "done" if item.state in MADE_STATES else item.state


@dataclass(frozen=True, slots=True)
class _RunAnswers:
    """What is on record of the items of one run."""

    ledger: Ledger
    past: PastRun
    made: Mapping[str, tuple[str, float]]
    """Hash of each chat on record → the run that made it last, and when."""
    hashes: Mapping[ItemName, Sequence[str]]
    """Hashes of the chats behind each item, as far as they are on record."""

    def are_on_record(self, hashes: Sequence[str] | None) -> bool:
        """Return whether the ledger has these answers as the run had them."""
        row = self.past.row
        until = row.started if row.ended is None else row.ended
        found = [self.made.get(hash_) for hash_ in hashes or ()]
        is_whole = all(one is not None and (one[0] == row.run or one[1] <= until) for one in found)
        return hashes is not None and is_whole

    def answer(self, hashes: Sequence[str] | None) -> str | None:
        """Return the texts of chats; None: one is not on record."""
        if hashes is None or not self.are_on_record(hashes):
            return None
        found = [call for hash_ in hashes if (call := self.ledger.call(hash_)) is not None]
        return "\n\n".join(call.reply.decode("utf-8", "replace") for call in found)

    def content(self, item: RunItem | None) -> str | None:
        """Return the error of an item without chats, or its result; None: it is not on record."""
        if item is not None and (item.is_bad or item.state == "skipped"):
            return shorten(item.error or "", LONGEST_TEXT)
        if item is None or item.place is None or item.calls:
            return None
        scope, key = item.place
        entry = self.ledger.entries(scope, [key]).get(key)
        sums = [row.sha256 or "" for row in self.ledger.outputs(scope, [key])]
        if entry is None or entry.run != self.past.row.run or not all(sums):
            return None
        return "\n".join([entry.returns or entry.returns_object or "", *sorted(sums)])


def _change(
    runs: tuple[_RunAnswers, _RunAnswers],
    name: ItemName,
    before: RunItem | None,
    after: RunItem | None,
) -> RunItemChange:
    """Return what became of an item: its answers are compared if a model was asked."""
    old, new = (run.hashes.get(name) for run in runs)
    n_calls = sum(item.calls for item in (before, after) if item is not None)
    has_answers = bool(old or new) or (old is None and new is None and n_calls > 0)
    texts: tuple[str | None, str | None] = "", ""
    if not has_answers and _state(before) != _state(after):
        texts = getattr(before, "error", None), getattr(after, "error", None)
    elif not has_answers:
        content = runs[0].content(before)
        texts = content, None if content is None else runs[1].content(after)
    elif old != new or not all(run.are_on_record(old) for run in runs):
        texts = runs[0].answer(old), runs[1].answer(new)
    return RunItemChange(*name, _state(before), _state(after), *texts, has_answers)


def _answers(ledger: Ledger, past: PastRun) -> Mapping[ItemName, Sequence[str]]:
    """Return the hashes of the chats behind each item of a run, as far as they are on record."""
    run = past.row.run
    steps = {str(scope): str(step) for scope, step in ledger.rows("select scope, step from scopes")}
    outers = outer_keys(ledger)
    found: dict[ItemName, list[str]] = defaultdict(list)
    for row in LineageStore(ledger).made_in(run):
        name = steps.get(row.scope, ""), f"{outers.get(row.scope, '')}{row.key}"
        calls = [call for step in read_lineage(row.made)[1] for call in step.calls]
        found[name] += [call.hash for call in calls if call.kind == "chat"]
    made = frozenset(found)
    n_made: Counter[ItemName] = Counter()
    for line in JournalTail(past.journal).more():  # of items that a later run redid
        name = str(line.get("step")), str(line.get("key", line.get("step")))
        if isinstance(line.get("chats"), list) and name not in made:
            found[name] = line["chats"]
        if line.get("event") == "item":
            n_made[name] = int(line.get("calls", 0))
    query = "select step, key, hash, kind from calls where run = :run order by at"
    known = frozenset(found)
    embedding = set()
    for step, key, hash_, kind in ledger.rows(query, run=run):
        name = step, key or step
        if name not in known and kind == "chat":
            found[name].append(hash_)
        elif kind == "embed":
            embedding.add(name)
    for name in found.keys() - known - embedding:
        if len(found[name]) < n_made[name]:  # the others were removed or replaced
            del found[name]
    return found


def change_rows(changes: Sequence[RunItemChange]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each: item, step, states, answer with the words that differ.

    Answers of more words than a page may compare, or that repeat too many, are not compared.
    """
    n_left = MOST_EQUAL_PAIRS
    for one in changes:
        state = state_html(one.after or one.before)
        if one.before and one.after and one.before != one.after:
            state = f"{state_html(one.before)} → {state}"
        old, new = one.answer_before or "", one.answer_after or ""
        answer = escape(shorten(new or old, _MOST_ANSWER_CHARS))
        n_pairs = n_equal_pairs(old, new)
        if old and new and n_pairs <= n_left:
            n_left -= n_pairs
            answer = word_differences(old, new)
        elif old and new:
            was = escape(shorten(old, _MOST_ANSWER_CHARS))
            answer = f"{_NOT_COMPARED}<del>{was}</del><br><ins>{answer}</ins>"
        yield (
            f'<td class="name">{escape(one.key)}</td>',
            f"<td>{escape(one.step)}</td>",
            f"<td>{state}</td>",
            f'<td class="name answer">{answer}</td>',
        )
