"""What is tried again, how often, and when: files a bounded number of times, runs for ever."""

import pytest

from paddock.runner.folders.file_versions import FileVersion
from paddock.runner.watch.batches import BatchOutcome, WatchBatch
from paddock.runner.watch.watch_retries import MOST_BACKOFF_S, WatchRetries

A, B = FileVersion("a", 1, 1), FileVersion("b", 2, 2)
BATCH = WatchBatch("w", (A, B))


def retries() -> WatchRetries:
    return WatchRetries(max_attempts=3, batch_s=10, reconcile_s=600)


def test_what_was_done_is_not_tried_again() -> None:
    verdict = retries().judge(BATCH, BatchOutcome("r", "completed"), 0)
    assert (verdict.is_through, verdict.held, verdict.given_up) == (True, frozenset(), {})


def test_a_quarantined_document_is_seen_through_but_one_that_failed_in_passing_is_not() -> None:
    outcome = BatchOutcome("r", "quarantined", {"a": "empty", "b": "busy"}, again=("b",))
    waiting = retries()
    verdict = waiting.judge(BATCH, outcome, 100)
    assert (verdict.held, verdict.given_up) == (frozenset("b"), {})
    assert waiting.next_at() == 110
    assert list(waiting.released(109)) == []
    assert list(waiting.released(110)) == [B]


def test_a_document_that_fails_in_passing_is_given_up_after_a_number_of_runs() -> None:
    outcome = BatchOutcome("r", "quarantined", {"b": "busy"}, again=("b",))
    waiting, waits = retries(), []
    for _ in range(2):
        assert waiting.judge(BATCH, outcome, 0).held == frozenset("b")
        waits.append(waiting.next_at())
        list(waiting.released(1e9))
    assert waits == [10, 20]
    verdict = waiting.judge(BATCH, outcome, 0)
    assert (verdict.held, verdict.given_up) == (frozenset(), {"b": "busy"})


def test_a_document_of_a_hot_folder_stays_while_it_waits_for_a_person() -> None:
    outcome = BatchOutcome("r", "completed", waiting=frozenset("ab"))
    waiting = retries()
    assert waiting.judge(BATCH, outcome, 0).held == frozenset()  # no hot folder: it stays anyway
    waiting.claimed["b"] = B
    for at in (0, 1000, 2000, 3000):  # as long as it takes
        assert waiting.judge(BATCH, outcome, at).held == frozenset("b")
        assert list(waiting.released(at + 600)) == [B]
    assert waiting.judge(BATCH, BatchOutcome("r", "completed"), 4000).held == frozenset()


def test_another_version_of_a_file_is_tried_as_often_again() -> None:
    outcome = BatchOutcome("r", "quarantined", {"b": "busy"}, again=("b",))
    waiting = retries()
    for _ in range(2):
        waiting.judge(BATCH, outcome, 0)
    assert not waiting.holds(FileVersion("b", 3, 3))
    assert waiting.judge(WatchBatch("w", (FileVersion("b", 3, 3),)), outcome, 0).held == frozenset(
        "b"
    )


def test_a_run_that_fails_as_a_whole_is_tried_again_for_ever_and_ever_more_seldom() -> None:
    waiting, waits = retries(), []
    for _ in range(12):
        verdict = waiting.judge(BATCH, BatchOutcome("r", "failed", message="the share is away"), 0)
        assert (verdict.held, verdict.given_up) == (frozenset("ab"), {})
        waits.append(verdict.not_before)
        list(waiting.released(1e9))
    assert waits[:4] == [10, 20, 40, 80]
    assert waits[-1] == MOST_BACKOFF_S


def test_a_run_that_died_counts_against_no_document_but_those_that_the_ledger_quarantined() -> None:
    waiting = retries()
    for _ in range(10):
        assert waiting.judge(BATCH, BatchOutcome("r", "crashed"), 0).held == frozenset("ab")
    verdict = waiting.judge(BATCH, BatchOutcome("r", "crashed", {"a": "it died of it"}), 0)
    assert (verdict.held, verdict.given_up) == (frozenset("b"), {"a": "it died of it"})


@pytest.mark.parametrize(
    ("status", "wait"), [("budget", 600), ("suspended", 600), ("interrupted", 10), ("skipped", 10)]
)
def test_a_run_that_stopped_before_its_end_counts_against_no_document(
    status: str, wait: float
) -> None:
    waiting = retries()
    for _ in range(10):
        verdict = waiting.judge(BATCH, BatchOutcome("r", status), 0)  # type: ignore[arg-type]
        assert (verdict.held, verdict.given_up) == (frozenset("ab"), {})
        assert waiting.next_at() == wait
