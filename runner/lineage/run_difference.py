"""The difference between two runs of a pipeline: which items, which states, which answers.

The ledger keeps the latest state of each item; what an earlier run said is in the calls that it was
the first to make, and in those that its journal names, until `paddock clean` removes them or a
later run replaces them. What an item without model calls held is only on record in the latest run
that did it. What is not on record never counts as alike.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, get_args

from markupsafe import Markup, escape

from paddock.engine.system.records import Struct
from paddock.engine.system.text import shorten
from paddock.runner.core.run_records import read_lineage
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.ledger.run_history import PastRun, open_for_reading
from paddock.runner.progress.events import LONGEST_TEXT
from paddock.runner.progress.item_states import WORK
from paddock.runner.progress.journal import JournalTail
from paddock.runner.render.run_details import RunItem, outer_keys, read_run_details

StepAndKey = tuple[str, str]
"""Of an item."""
ChangeKind = Literal["changed", "added", "left", "unknown", "made_again", "alike"]
"""Of items of both runs: another state or answer; of the later run only; of the earlier run only
(fresh since, or gone); of both with the same state: an answer is not on record, or, without model
calls, what they held; or nothing else."""
_MOST_ANSWER_CHARS = 20_000
_MOST_COMPARED_WORDS = 2_000
"""Of each of two answers; longer ones stand without marks."""
MOST_EQUAL_PAIRS = 60_000
"""Of words of two answers that are alike: 0.5 s where they are periodic, 0.02 s of prose."""
_WORDS = re.compile(r"\s*\S+")
_NOT_COMPARED = Markup(
    '<p class="soft">Too much to compare word by word here.</p><del>{}</del><br><ins>{}</ins>'
)


class RunItemChange(Struct, frozen=True):
    """An item of either run; its state is empty where a run did not do it."""

    step: str
    key: str
    before: str
    after: str
    answer_before: str | None = ""
    answer_after: str | None = ""
    """Its error or result where no model was asked. None: it is not on record."""
    has_answers: bool = True

    @property
    def states(self) -> Iterable[str]:
        return dict.fromkeys(filter(None, (self.before, self.after)))

    @property
    def kind(self) -> ChangeKind:
        if not self.before or not self.after:
            return "left" if self.before else "added"
        if self.before != self.after:
            return "changed"
        if self.answer_before is None or self.answer_after is None:
            return "unknown" if self.has_answers else "made_again"
        return "alike" if self.answer_before == self.answer_after else "changed"


RunDifference = Mapping[ChangeKind, Sequence[RunItemChange]]
"""What became of the items of two runs of one ledger, in the order of their names."""


def run_difference(before: PastRun, after: PastRun) -> RunDifference:
    """Read the difference between two runs of one ledger.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    old, new = _items(before), _items(after)
    found: dict[ChangeKind, list[RunItemChange]] = {kind: [] for kind in get_args(ChangeKind)}
    with open_for_reading(after.place) as ledger:
        last_made = {hash_: (run, at) for hash_, run, at in ledger.rows(queries.CHATS)}
        runs = (
            _RunAnswers(ledger, before, last_made, _answers(ledger, before)),
            _RunAnswers(ledger, after, last_made, _answers(ledger, after)),
        )
        for name in sorted(old.keys() | new.keys()):
            change = _change(runs, name, old.get(name), new.get(name))
            found[change.kind].append(change)
    return found


def _items(past: PastRun) -> dict[StepAndKey, RunItem]:
    items = read_run_details(past, with_calls=False).items
    return {(item.step, item.key): item for item in items}


def _state(item: RunItem | None) -> str:
    if item is None:
        return ""
    return "done" if item.state in WORK else item.state


class _RunAnswers(Struct, frozen=True):
    ledger: Ledger
    past: PastRun
    made: Mapping[str, tuple[str, float]]
    """Hash of each chat on record → the run that made it last, and when."""
    hashes: Mapping[StepAndKey, Sequence[str]]
    """Hashes of the chats behind each item, as far as they are on record."""

    def are_on_record(self, hashes: Sequence[str] | None) -> bool:
        """Return whether the ledger has these answers as the run had them."""
        row = self.past.row
        until = row.started if row.ended is None else row.ended
        found = [self.made.get(hash_) for hash_ in hashes or ()]
        is_whole = all(
            entry is not None and (entry[0] == row.run or entry[1] <= until) for entry in found
        )
        return hashes is not None and is_whole

    def answer(self, hashes: Sequence[str] | None) -> str | None:
        if hashes is None or not self.are_on_record(hashes):
            return None
        found = [call for hash_ in hashes if (call := self.ledger.call(hash_)) is not None]
        return "\n\n".join(call.reply.decode("utf-8", "replace") for call in found)

    def content(self, item: RunItem | None) -> str | None:
        """Return the error of an item without chats, or its result; None: it is not on record."""
        if item is None:
            return None
        if item.is_bad or item.state == "skipped":
            return shorten(item.error or "", LONGEST_TEXT)
        if item.place is None or item.calls:
            return None
        scope, key = item.place
        entry = self.ledger.entries(scope, [key]).get(key)
        sums = [row.sha256 or "" for row in self.ledger.outputs(scope, [key])]
        if entry is None or entry.run != self.past.row.run or not all(sums):
            return None
        return "\n".join([entry.returns or entry.returns_object or "", *sorted(sums)])


def _change(
    runs: tuple[_RunAnswers, _RunAnswers],
    name: StepAndKey,
    before: RunItem | None,
    after: RunItem | None,
) -> RunItemChange:
    """Return the change of an item, by the first of these that can be compared.

    1. Its chats, where either run has some, or has made some that are no longer on record. The
       same ones are alike without a look at their texts.
    2. Its errors, where its states differ.
    3. Its contents.
    """
    old, new = (run.hashes.get(name) for run in runs)
    states = _state(before), _state(after)
    n_calls = sum(item.calls for item in (before, after) if item is not None)
    if old or new or (old is None and new is None and n_calls):  # 1
        if old == new and all(run.are_on_record(old) for run in runs):
            return RunItemChange(*name, *states, "", "")
        return RunItemChange(*name, *states, runs[0].answer(old), runs[1].answer(new))
    texts: tuple[str | None, str | None]
    if states[0] != states[1]:  # 2
        texts = before.error if before else None, after.error if after else None
    else:  # 3
        content = runs[0].content(before)
        texts = content, None if content is None else runs[1].content(after)
    return RunItemChange(*name, *states, *texts, has_answers=False)


def _answers(ledger: Ledger, past: PastRun) -> Mapping[StepAndKey, Sequence[str]]:
    """Return the hashes of the chats behind each item, by the first of these that has the item.

    1. Its lineage, unless a later run redid it.
    2. The run's journal.
    3. The calls that the run was the first to make, unless fewer are left than it made: the others
       were removed or replaced then.
    """
    noted: dict[StepAndKey, list[str]] = {}  # 2
    n_made: Counter[StepAndKey] = Counter()
    for line in JournalTail(past.journal).new_lines():
        name = str(line.get("step")), str(line.get("key", line.get("step")))
        if isinstance(line.get("chats"), list):
            noted[name] = line["chats"]
        if line.get("event") == "item":
            n_made[name] = int(line.get("calls", 0))
    first_made: dict[StepAndKey, list[str]] = defaultdict(list)  # 3
    embedding = set()
    for step, key, hash_, kind in ledger.rows(queries.CALLS_OF_RUN, run=past.row.run):
        name = step, key or step
        if kind == "embed":
            embedding.add(name)
        elif kind == "chat":
            first_made[name].append(hash_)
    whole = {
        name: hashes
        for name, hashes in first_made.items()
        if len(hashes) >= n_made[name] or name in embedding
    }
    steps = {str(scope): str(step) for scope, _, step, _ in ledger.rows(queries.SCOPES)}
    outers, of_lineage = outer_keys(ledger), defaultdict[StepAndKey, list[str]](list)  # 1
    for row in LineageStore(ledger).of_run(past.row.run):
        calls = [call for step in read_lineage(row).steps for call in step.calls]
        name = steps.get(row.scope, ""), f"{outers.get(row.scope, '')}{row.key}"
        of_lineage[name] += [call.hash for call in calls if call.kind == "chat"]
    return {**whole, **noted, **of_lineage}


def change_rows(changes: Sequence[RunItemChange]) -> Iterator[tuple[RunItemChange, Markup]]:
    """Yield each change with its answer, in which the words that differ are marked.

    Answers of more words than a page may compare, or that repeat too many, are not compared.
    """
    n_left = MOST_EQUAL_PAIRS
    for change in changes:
        old, new = change.answer_before or "", change.answer_after or ""
        n_pairs = n_equal_pairs(old, new)
        if not old or not new:
            yield change, escape(shorten(new or old, _MOST_ANSWER_CHARS))
        elif n_pairs <= n_left:
            n_left -= n_pairs
            yield change, word_differences(old, new)
        else:
            was, now = (shorten(text, _MOST_ANSWER_CHARS) for text in (old, new))
            yield change, _NOT_COMPARED.format(was, now)


def word_differences(before: str, after: str) -> Markup:
    """Return a text as HTML, with the words that another one does not have, or has besides.

    >>> word_differences("a red cat", "a big red dog")
    Markup('a<ins> big</ins> red<del> cat</del><ins> dog</ins>')
    """
    if n_equal_pairs(before, after) > MOST_EQUAL_PAIRS:
        return escape(after)
    spaced_words, other = _WORDS.findall(before), _WORDS.findall(after)
    words, others = ([word.strip() for word in found] for found in (spaced_words, other))
    matcher = difflib.SequenceMatcher(None, words, others, False)
    parts: list[str] = []
    for kind, i, i_end, j, j_end in matcher.get_opcodes():
        old, new = escape("".join(spaced_words[i:i_end])), escape("".join(other[j:j_end]))
        if kind == "equal":
            parts.append(new)
        else:
            parts += [Markup("<del>{}</del>").format(old)] if old else []
            parts += [Markup("<ins>{}</ins>").format(new)] if new else []
    return Markup("".join(parts))


def n_equal_pairs(before: str, after: str) -> int:
    """Return the number of equal pairs of words, which is the cost of a comparison.

    Too many, where a text has more words than are compared.

    >>> n_equal_pairs("so so so", "so it is so")
    6
    """
    words, other = before.split(), after.split()
    if max(len(words), len(other)) > _MOST_COMPARED_WORDS:
        return MOST_EQUAL_PAIRS + 1
    counts = Counter(other)
    return sum(n * counts[word] for word, n in Counter(words).items())
