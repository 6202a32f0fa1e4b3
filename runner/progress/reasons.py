"""Why an item has the state that it has, or an output no longer applies.

Reasons are values, by which programs decide. Their sentences are made here alone, for people and
for the JSON of reports.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, StrEnum, unique

from paddock.engine.system.records import Struct
from paddock.engine.system.text import listed

_MOST_NAMED = 3


@unique
class Why(Enum):
    """A kind of reason; the value is its sentence, with a place for each argument."""

    # What an item is, and what it read
    CONTENT = "content changed"
    KEY = "`key` changed"
    READ_OF_ITEM = "what it reads of the item changed"
    PLACE_IN_LIST = "its place in the list changed"
    PATH = "its path changed"
    TIME = "its time changed"
    SUFFIX = "the ending of its name changed"
    VALUE = "value changed: {}"
    FILE = "file changed: {}"
    FILE_GONE = "file is gone: {}"
    FOLDER = "folder changed: {}"
    STORE = "store changed: {}"
    THERE_AGAIN = "there again: {}"
    LABELS = "labels changed: {} (step '{}')"
    LABEL_GONE = "its label is gone: {} (step '{}')"
    LABEL_DESCRIPTION = "the description of its label changed: {} (step '{}')"
    LABEL_NEW = "new in {}: {} (step '{}')"
    LABEL_NEW_NEAR = "new in {} and near its text: {} (step '{}')"
    LABEL_UNDECIDED = "new in {}: {}; the nearest labels decide, during the run (step '{}')"
    EXAMPLES_GONE = "examples of step '{}' changed: a decision counts no more or is another one"
    READINGS = "decisions changed how {} of its document are read (step '{}')"
    EXAMPLES_NEARER = "examples of step '{}' changed: a decision on a text that is nearer"

    # The rule: the first argument is the step
    STEP_NEW = "step '{}' is new"
    STEP_REMOVED = "step '{}' was removed"
    PROMPT = "prompt changed (step '{}')"
    TEMPLATE = "template changed (step '{}')"
    SCHEMA = "schema changed (step '{}')"
    CHECKS = "checks changed (step '{}')"
    EVIDENCE = "sources of its evidence changed (step '{}')"
    EVIDENCE_RULES = "the rules by which evidence is found changed (step '{}')"
    CONFIDENCE = "`confidence` changed (step '{}')"
    ESCALATE = "`escalate` changed (step '{}')"
    ESCALATE_ALSO = "`escalate.also` changed (step '{}')"
    REVIEW_WHEN = "`review.when` changed (step '{}')"
    REVIEW_ALSO = "`review.also` changed (step '{}')"
    MODEL = "model changed (step '{}')"
    PARAMETERS = "parameters changed (step '{}')"
    PARAMETER = "`{1}` changed (step '{0}')"
    COLUMNS = "types of its columns changed (step '{}')"
    MODEL_PARAMETERS = "`params` of its model changed (step '{}')"
    CONTEXT = "`ctx` of its model changed (step '{}')"
    SERVERS = "what its servers are given changed (step '{}')"
    VERSION = "step version changed (step '{}')"
    CODE = "code of {1}, or of what it imports, changed (step '{0}')"
    TOOLS = "its tools changed (step '{}')"
    TOOL_FILE = "file changed: {1} (step '{0}')"
    READERS = "what reads documents here changed (step '{}')"

    # What it had made
    OUTPUT_LOST = "output is missing: {}"
    ROWS_LOST = "its rows are missing in the store: {}"
    OUTPUT_REPLACED = "output was written since by {1}: {0}"
    OUTPUT_HANDED_OVER = "output belongs to '{1}' since `--take`: {0}"
    OUTPUT_EDITED = "output was edited: {}"
    OUTPUT_NO_LONGER_EDITED = "output is not edited any more: {}"
    PATH_TAKEN = "'{}' is an output of {}"
    PATH_FREE = "its path is free: {}"
    IN_THE_WAY = "'{}' cannot be written: '{}' is in its way and is kept; move it away"
    IN_THE_WAY_OF_ITEM = "'{}' cannot be written: '{}', in its way, is an output of '{}'"
    IN_THE_WAY_OUTDATED = (
        "'{}' cannot be written: '{}', in its way, no longer applies, and `--prune` removes it"
    )
    PATH_WITHIN = "what waits within it for '{}' is tried again"
    PATH_SHARED = "'{}' would be written by {}, too"
    OUTPUTS_KEPT = "edited, or not ours, and kept: {}"
    FAILED_BEFORE = "it failed before: {}"
    FAILED_WITHIN = "what failed within it is tried again"
    DONE_WITHIN = "what is within it was done after it"

    # What a run is asked for, and people
    RETRIED = "what failed is tried again"
    FORCED = "forced"
    NOT_REQUESTED = "not asked for"
    NOT_SAMPLED = "not in the sample"
    NOT_AMONG_FIRST = "not among the first {:,}"
    WAITS_SINCE = "waits for review since {}"
    MAY_BE_FRAUD_SINCE = "waits for review since {}: possible fraud, another account"
    ONE_WAITS_WITHIN = "1 answer within it waits for review"
    WAIT_WITHIN = "{:,} answers within it wait for review"
    DECIDED = "{} by {}"
    DECIDED_SINCE = "{} by {}: {}"
    ITEM_WAITS_IN = "1 item of '{}' {}"
    ITEMS_WAIT_IN = "{1:,} items of '{0}' {2}"
    REVIEW_DUE_IN = "a review in '{}' is due"
    REVIEW_SKIPPED = "a review is due (`--review skip`)"
    NOT_DECIDED_IN_TIME = "no one decided in time"
    READS_UNDONE = "it reads '{}', which has work to do"
    CALLS_LEFT = "{} of its {} calls are to be made"
    RECORDED = "{}"  # in the words of a step, a person or a folder's owner

    # What is no longer in a block's list
    RENAMED_FROM = "renamed from '{}'"
    RENAMED_TO = "renamed to '{}'"
    KEY_FROM = "`key` changed: it was '{}'"
    KEY_TO = "`key` changed: it is '{}'"
    SOURCE_GONE = "its source is gone"
    UNLISTED = "no longer in the list"
    WHERE = "left out by `where`"
    FILED_AND_GONE = "it was filed, and is no longer there"

    # Why what is missing does not count as deleted
    OTHER_FOLDER = (
        "'{}' is not the folder in which {} seen: it was made again, or something is not mounted. "
        "Nothing counts as deleted. If it is the right one, run it with `--yes`."
    )
    NOT_MOUNTED = (
        "'{}' is not mounted as it was when documents were seen in it. Nothing there counts as "
        "deleted. If they were deleted, run it with `--yes`."
    )
    TEMPORARY_NAMES = (
        "scans leave out {} in '{}' with a temporary name. What was made of it is kept; if it may "
        "go, run it with `--yes`."
    )
    MOST_ARE_GONE = (
        "{:,} of {:,} documents of '{}' are gone at once, so what was made of them is kept. If "
        "they were deleted on purpose, run it with `{}`."
    )
    FILED_ARE_GONE = (
        "{:,} of {:,} documents of '{}' were filed and are no longer there, so what was made of "
        "them is kept. If that is right, run it with `--prune --yes`."
    )

    # Since an output was made, for `paddock why`
    DOCUMENT_CHANGED = "its document has changed: {}"
    DOCUMENT_GONE = "its document was deleted: {}"
    READ_CHANGED = "a file that {} read has changed: {}"
    READ_GONE = "a file that {} read was deleted: {}"
    LISTED_CHANGED = "a folder that {} listed has other content now: {}"
    LISTED_GONE = "a folder that {} listed was deleted: {}"
    SEARCHED_CHANGED = "a store that {} searched has other content now: {}"
    SEARCHED_GONE = "a store that {} searched was deleted: {}"
    ROWS_CHANGED = "a store that {} kept rows in no longer has all of them unchanged: {}"
    ROWS_GONE = "a store that {} kept rows in was deleted: {}"
    WRITTEN_NO_MORE = "it is no longer an output: its step does not write it any more"
    ITEM_ENDED = "it is no longer an output: run '{}' {} its item"
    ITEM_WRITES = "it is no longer an output: since run '{}' its item writes {}"
    ITEM_WRITES_NOTHING = "it is no longer an output: since run '{}' its item writes nothing here"
    EARLIER_ANSWER = "it is of an earlier answer: since run '{}' its item waits for review"
    EARLIER_TRY = "it is of an earlier try: run '{}' failed, and the next one tries again"
    OUTDATED = "it no longer applies: nothing makes it any more"
    OUTDATED_SKIPPED = "it no longer applies: its step is skipped now"
    OUTDATED_EXCLUDED = "it no longer applies: `where` leaves out its item now"
    OUTDATED_GONE = "it no longer applies: its item is gone"
    WRITTEN_OVER = "the next run writes it for item '{}'"
    PIPELINE_GONE = "the pipeline was deleted: {}"
    PIPELINE_INVALID = "the current pipeline is invalid: {}"
    PIPELINE_LACKS = "the pipeline no longer has '{}'"
    MODEL_UNUSABLE = "a model is no longer usable: {}"
    STEP = "the step changed"
    NEWER_RESULT = "'{}', which it reads, has a newer result"
    NEWER_RESULTS = "'{}', which it reads, has {:,} newer results"
    BEHIND = "'{}', which comes before it, is not up to date: {}"
    BEHIND_UNKNOWN = "the steps before it cannot be checked: {}"
    BEFORE_UNCHECKED = "whether the steps before it are up to date is not checked"
    MODELS_ELSEWHERE = "its models are on other servers: whether they changed is not checked"
    TOOLS_UNCHECKED = "what {} read then is not checked"

    def __call__(self, *about: str | int | tuple[str | Reason, ...]) -> Reason:
        """Return a reason of this kind; of a tuple of names or reasons the first are named."""
        return Reason(self, about)


class Reason(Struct, frozen=True):
    """One reason; `str` is its sentence."""

    why: Why
    about: tuple[str | int | tuple[str | Reason, ...], ...] = ()

    def __str__(self) -> str:
        names = (listed([*map(str, name)], _MOST_NAMED) if isinstance(name, tuple) else name
                 for name in self.about)  # fmt: skip
        return self.why.value.format(*names)

    @property
    def is_loss(self) -> bool:
        """Whether only outputs are not there as they were: they are made again without a call."""
        return self.why in _LOSSES

    def of_step(self, step: str) -> Reason:
        """Return a reason about the rule with its step."""
        return Reason(self.why, (step, *self.about))


_LOSSES = frozenset(
    (Why.OUTPUT_LOST, Why.ROWS_LOST, Why.OUTPUT_REPLACED, Why.OUTPUT_HANDED_OVER,
     Why.OUTPUT_EDITED, Why.OUTPUT_NO_LONGER_EDITED)
)  # fmt: skip


class Outdated(StrEnum):
    """Why an output no longer applies."""

    GONE = "what they were made of is gone"
    EXCLUDED = "`where` leaves out what they were made of"
    ELSEWHERE = "they are written elsewhere now"
    NOT_MADE = "their items no longer make them"
    SKIPPED = "their step is skipped"
    NO_STEP = "no step makes them any more"
    NO_PIPELINE = "their pipeline's file is gone"


def quoted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"'{name}'" for name in names)


def in_words(reasons: Iterable[Reason]) -> str | None:
    """Return reasons as one text; None: there are none.

    >>> in_words([Why.CONTENT(), Why.PARAMETER("sum", "top"), Why.OUTPUTS_KEPT(("a", "b"))])
    "content changed; `top` changed (step 'sum'); edited, or not ours, and kept: a, b"
    """
    return "; ".join(map(str, reasons)) or None
