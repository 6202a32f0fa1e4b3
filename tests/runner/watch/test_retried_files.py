"""Which files of an ended order are tried again, and when: the ledger counts, runs for ever."""

import math

import pytest

from paddock.runner.folders.file_versions import FileVersion
from paddock.runner.watch.handled_files import BatchOutcome
from paddock.runner.watch.next_batch import MOST_PAUSE_S, FilesToRetry

A, B = FileVersion("a", 1, 1), FileVersion("b", 2, 2)
FAILED = {"a": "empty", "b": "busy"}


def retried_files() -> FilesToRetry:
    return FilesToRetry(max_attempts=3, batch_s=10, reconcile_s=600)


def take(files: FilesToRetry, outcome: BatchOutcome, *, claimed: str = "") -> dict[str, float]:
    """Take the end of an order of both files; return until when each waits."""
    again = files.to_retry((A, B), outcome, claimed)
    files.delay([seen for seen in (A, B) if seen.relpath in again], outcome, 0)
    untils: dict[str, float] = {}
    while len(files):
        at = files.next_at()
        assert at is not None
        untils |= {seen.relpath: at for seen in files.take_due(at)}
    return untils


@pytest.mark.parametrize(
    ("outcome", "claimed", "untils"),
    [
        (BatchOutcome("r", "completed"), "", {}),
        (BatchOutcome("r", "quarantined", FAILED), "", {}),
        (BatchOutcome("r", "quarantined", FAILED, {"b": 1}), "", {"b": 10}),
        (BatchOutcome("r", "quarantined", FAILED, {"b": 2}), "", {"b": 20}),
        (BatchOutcome("r", "quarantined", FAILED, {"b": 3}), "", {}),
        # It lacks a program, say, which the ledger does not count
        (BatchOutcome("r", "quarantined", FAILED, {"b": 0}), "", {"b": 600}),
        # A document waits for a person, in a hot folder and elsewhere
        (BatchOutcome("r", "completed", waiting="ab"), "b", {"b": 600}),
        # The run failed, or died: of the files only those count that failed themselves
        (BatchOutcome("r", "failed"), "", {"a": 10, "b": 10}),
        (BatchOutcome("r", "failed", {"a": "empty"}), "", {"b": 10}),
        (BatchOutcome("r", "failed", {"a": "empty"}, {"a": 2}), "", {"a": 10, "b": 10}),
        (BatchOutcome("r", "failed", {"a": "empty"}, {"a": 3}), "", {"b": 10}),
        (BatchOutcome("r", "crashed"), "", {"a": 10, "b": 10}),
        (BatchOutcome("r", "crashed", {"a": "it died of it"}), "", {"b": 10}),
        # It was stopped before its end
        (BatchOutcome("r", "budget"), "", {"a": 600, "b": 600}),
        (BatchOutcome("r", "suspended"), "", {"a": 600, "b": 600}),
        (BatchOutcome("r", "interrupted", FAILED), "", {"a": 10, "b": 10}),
        (BatchOutcome("r", "skipped"), "", {"a": 10, "b": 10}),
        # A person cancelled it
        (BatchOutcome("r", "cancelled"), "", {}),
        (BatchOutcome("r", "cancelled"), "b", {"b": math.inf}),
    ],
)
def test_an_end_tells_which_files_are_tried_again_and_when(
    outcome: BatchOutcome, claimed: str, untils: dict[str, float]
) -> None:
    assert take(retried_files(), outcome, claimed=claimed) == untils


def test_a_run_that_fails_as_a_whole_is_tried_again_for_ever_and_ever_more_seldom() -> None:
    files, failed = retried_files(), BatchOutcome("r", "failed", message="the share is away")
    waits = [take(files, failed)["a"] for _ in range(12)]
    assert waits[:4] == [10, 20, 40, 80]
    assert waits[-1] == MOST_PAUSE_S
