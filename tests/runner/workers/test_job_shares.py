"""Which shares of a job are asked for, and when it is over."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from paddock.runner.progress.prefect_view import SENT_AWAY
from paddock.runner.workers.job_shares import JobEnd, JobShare, StartShare, decide_shares

INTERRUPTED = "Interrupted; the same command continues."


def share(number: int = 1, state: str = "", message: str = "", attempt: int = 1) -> JobShare:
    return JobShare(f"run{number}.{attempt}", number, attempt, "ended" if state else "running",
                 state or "Running", message)  # fmt: skip


def decided(*shares: JobShare, **fields: Any) -> JobEnd | list[StartShare]:
    given = {
        "n_requested": None,
        "online": ("a", "b", "c"),
        "is_early": True,
        "max_restarts": 3,
    } | fields
    return decide_shares(shares, **given)


def test_a_job_begins_on_one_machine_and_calls_the_others_when_it_takes_long() -> None:
    assert decided() == [StartShare(1, 1, "")]
    assert decided(share()) == []
    assert decided(share(), is_early=False) == [StartShare(2, 1, ""), StartShare(3, 1, "")]
    assert decided(share(), is_early=False, online=()) == []
    assert decided(n_requested=2) == [StartShare(1, 1, ""), StartShare(2, 1, "")]


def test_the_first_that_is_through_the_whole_plan_ends_the_job() -> None:
    assert decided(share(1), share(2, "Completed", "9 new")) == JobEnd("completed", "9 new")
    assert decided(share(1, "Failed", "no"), share(2, "Completed", "")) == JobEnd("completed", "")


def test_a_share_that_is_through_does_not_end_the_job_while_another_has_items() -> None:
    shares = [share(1), share(2, "Completed", "9 new")]
    assert decided(*shares, n_at_work=1, is_early=False) == []
    assert decided(*shares, n_at_work=0) == JobEnd("completed", "9 new")


def test_a_crashed_share_is_asked_for_again_until_that_is_enough() -> None:
    assert decided(share(1, "Crashed", "killed")) == [StartShare(1, 2, "run1.1", 5.0)]
    last = share(1, "Crashed", "killed", attempt=4)
    assert decided(share(1, "Crashed"), last) == JobEnd("failed", "it crashed 4 times: killed")
    assert decided(last, share(2)) == []


def test_a_share_that_gets_on_is_asked_for_again_however_often_it_crashed() -> None:
    last = replace(share(1, "Crashed", "killed", attempt=4), has_progressed=True)
    assert decided(last) == [StartShare(1, 2, "run1.4", 5.0)]


def test_a_share_whose_worker_was_ended_is_anothers_and_counts_no_attempt() -> None:
    for words in (INTERRUPTED, "A stop was requested. 3 items are left"):
        assert decided(share(1, SENT_AWAY, words)) == [StartShare(1, 1, "run1.1")]


def test_a_budget_that_is_used_up_is_that_of_all_and_no_one_else_is_asked() -> None:
    spent = share(1, "Budget", "The budget of 40 tokens is used up. 3 items are left.")
    assert decided(spent, is_early=False) == JobEnd("budget", spent.message)
    assert decided(spent, share(2), is_early=False) == []
    assert decided(spent, share(2, "Crashed", "killed")) == JobEnd("budget", spent.message)
    sent_away = share(2, SENT_AWAY, "A stop was requested. 3 items are left")
    assert decided(spent, sent_away, is_early=False) == JobEnd("budget", spent.message)


def test_how_it_failed_is_told_when_no_one_is_at_work_any_more() -> None:
    assert decided(share(1, "Failed", "no such file"), share(2)) == []
    failed = JobEnd("failed", "no such file")
    assert decided(share(1, "Failed", "no such file"), share(2, "Cancelled", "by hand")) == failed
    assert decided(share(1, "Cancelled", "by hand")) == JobEnd("interrupted", "by hand")
    assert decided(share(1, "Budget", "the time is up")) == JobEnd("budget", "the time is up")


def test_a_share_that_a_person_cancels_ends_the_whole_job() -> None:
    words = "It was cancelled in Prefect; the same command continues."
    assert decided(share(1, "Cancelled", words), share(2)) == JobEnd("interrupted", words)
    restarted = share(1, attempt=2)
    assert decided(share(1, "Cancelled", words), restarted, share(2)) == []


def test_a_machine_that_refuses_ends_only_its_own_share() -> None:
    refused = replace(share(1, "Refused", "on a: no such model"), machine="a")
    assert decided(refused) == [StartShare(1, 1, "run1.1")]
    assert decided(refused, share(2)) == [StartShare(1, 1, "run1.1")]
    waiting = replace(share(1), id="again", phase="waiting")
    assert decided(refused, waiting) == []
    assert decided(refused, share(2, "Completed", "9 new")) == JobEnd("completed", "9 new")


def test_a_job_that_all_machines_refuse_has_failed_with_all_their_reasons() -> None:
    refused = [
        replace(share(number, "Refused", f"on {name}: no"), machine=name)
        for number, name in enumerate("ab", 1)
    ]
    waiting = replace(share(1), id="again", phase="waiting")
    end = JobEnd("failed", "on a: no\non b: no")
    assert decided(*refused, waiting, online=("a", "b")) == end
    assert decided(*refused, waiting, online=("a", "b", "c")) == [StartShare(2, 1, "run2.1")]
    assert decided(*refused, waiting, online=()) == [StartShare(2, 1, "run2.1")]  # one may come
    assert decided(*refused, share(3), online=("a", "b")) != end  # another one is at work


@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),
            st.sampled_from(
                ["", "Completed", "Failed", "Cancelled", "Crashed", "Budget", "Refused"]
            ),
            st.integers(1, 6),
            st.sampled_from("abc"),
        ),
        max_size=8,
    ),
    st.sets(st.sampled_from("abc")),
    st.booleans(),
)
def test_a_job_is_over_is_going_on_or_something_is_begun(
    made: list[tuple[int, str, int, str]], online: set[str], is_early: bool
) -> None:
    shares = [
        replace(share(number, state, attempt=attempt), machine=machine)
        for number, state, attempt, machine in made
    ]
    found = decided(*shares, online=online, is_early=is_early)
    if found == []:
        assert any(share.phase != "ended" for share in shares)
    if isinstance(found, list):
        assert len({begin.number for begin in found}) == len(found)
        again = max((one.attempt for one in shares if one.state == "Refused"), default=0)
        assert all(begin.attempt <= max(4, again) for begin in found)
