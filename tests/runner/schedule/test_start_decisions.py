"""Who starts, who waits, who is left out, who stops: windows, groups, limits."""

from datetime import UTC, datetime, time, timedelta

from hypothesis import given
from hypothesis import strategies as st

from paddock.runner.schedule.start_decisions import (
    ActiveRun,
    DueRun,
    RunRule,
    StartDecision,
    dispatch,
)
from paddock.runner.schedule.time_windows import TimeWindow

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOURLY = "schedule 0 * * * *"
OPEN, SHUT = TimeWindow(time(9), time(17), UTC), TimeWindow(time(22), time(7), UTC)


def due(
    id_: str, *, minutes: int = 0, trigger: str = "watch", group: str = "g", pipeline: str = "p"
) -> DueRun:
    return DueRun(id_, pipeline, trigger, NOW - timedelta(minutes=minutes), group)


def decide(waiting: list[DueRun], active: list[ActiveRun] | None = None, *, max_runs: int = 2,
           **rules: RunRule) -> list[StartDecision]:  # fmt: skip
    return dispatch(waiting, active or [], rules or {"p": RunRule()}, NOW, max_runs)


def test_the_oldest_of_a_group_starts_and_the_others_wait_for_it() -> None:
    assert decide([due("b"), due("a", minutes=5)]) == [
        StartDecision("start", "a"),
        StartDecision("hold", "b", "waits for a run of its group"),
    ]


def test_only_the_next_of_a_group_names_the_run_that_it_waits_for() -> None:
    running = [ActiveRun("x", "calm-owl", "p", "g")]
    waiting = [due("a", minutes=9), due("b", minutes=8), due("c", minutes=7), due("d", group="h")]
    rest = "waits for the runs of its group before it"
    assert decide(waiting, running) == [
        StartDecision("hold", "a", "waits for run 'calm-owl'"),
        StartDecision("hold", "b", rest),
        StartDecision("hold", "c", rest),
        StartDecision("start", "d"),
    ]


def test_a_group_that_a_run_by_hand_holds_is_busy_and_takes_no_slot() -> None:
    by_hand = [ActiveRun("g", "calm-owl", "", "g", is_ours=False)]
    waiting = [due("a"), due("b", group="h")]
    skip, cancel = (RunRule(on_conflict=rule) for rule in ("skip", "cancel_running"))
    busy = StartDecision("hold", "a", "waits for run 'calm-owl'")
    assert decide(waiting, by_hand, max_runs=1) == [busy, StartDecision("start", "b")]
    words = "run 'calm-owl' was running, and `on_conflict` is `skip`"
    assert decide(waiting[:1], by_hand, p=skip) == [StartDecision("skip", "a", words)]
    gives_way = StartDecision("cancel", "g", "a newer run of its group takes its place")
    assert decide(waiting[:1], by_hand, p=cancel) == [gives_way, busy]


def test_a_conflict_may_skip_the_newcomer() -> None:
    running = [ActiveRun("x", "calm-owl", "p", "g")]
    words = "run 'calm-owl' was running, and `on_conflict` is `skip`"
    assert decide([due("a")], running, p=RunRule(on_conflict="skip")) == [
        StartDecision("skip", "a", words)
    ]


def test_a_conflict_may_stop_the_running_one_once() -> None:
    rule = RunRule(on_conflict="cancel_running")
    running = ActiveRun("x", "calm-owl", "p", "g")
    assert decide([due("a")], [running], p=rule) == [
        StartDecision("cancel", "x", "a newer run of its group takes its place"),
        StartDecision("hold", "a", "waits for run 'calm-owl'"),
    ]
    ending = ActiveRun("x", "calm-owl", "p", "g", is_ending=True)
    assert decide([due("a")], [ending], p=rule) == [
        StartDecision("hold", "a", "waits for run 'calm-owl'")
    ]


def test_of_several_that_would_replace_one_another_only_the_newest_is_left() -> None:
    rule = RunRule(on_conflict="cancel_running")
    assert decide([due("a", minutes=3), due("b", minutes=1)], p=rule) == [
        StartDecision("skip", "a", "the run of 2026-11-20 11:59 UTC takes its place"),
        StartDecision("start", "b"),
    ]


def test_the_latest_of_a_schedules_missed_runs_stands_for_all() -> None:
    waiting = [due(str(n), minutes=60 * n, trigger=HOURLY) for n in (3, 2, 1)]
    assert decide(waiting, p=RunRule(latest_only=frozenset({HOURLY}))) == [
        StartDecision("skip", "3", "the run of 2026-11-20 11:00 UTC takes its place"),
        StartDecision("skip", "2", "the run of 2026-11-20 11:00 UTC takes its place"),
        StartDecision("start", "1"),
    ]
    assert decide(waiting, p=RunRule())[0] == StartDecision("start", "3")


def test_outside_its_window_everything_waits_for_the_opening() -> None:
    words = "waits for its window 22:00-07:00"
    assert decide([due("a")], p=RunRule(SHUT)) == [StartDecision("hold", "a", words)]
    assert decide([due("a")], p=RunRule(OPEN)) == [StartDecision("start", "a")]


def test_what_runs_when_its_window_closes_stops_and_goes_on_later() -> None:
    running = ActiveRun("x", "calm-owl", "p", "g")
    words = "its window 22:00-07:00 is over"
    assert decide([], [running], p=RunRule(SHUT)) == [StartDecision("pause", "x", words)]


def test_no_more_run_than_may_and_urgent_ones_come_first() -> None:
    rules = {"p": RunRule(rank=2), "q": RunRule(rank=0)}
    waiting = [due("a", minutes=9, group="1"), due("b", group="2", pipeline="q")]
    assert dispatch(waiting, [], rules, NOW, 1) == [
        StartDecision("start", "b"),
        StartDecision("hold", "a", "waits for a free slot: 1 run at a time"),
    ]


rules_ = st.builds(
    RunRule,
    window=st.sampled_from([None, OPEN, SHUT]),
    on_conflict=st.sampled_from(["queue", "skip", "cancel_running"]),
    rank=st.integers(0, 2),
    latest_only=st.frozensets(st.just(HOURLY)),
)
dues = st.lists(
    st.builds(
        DueRun,
        id=st.uuids().map(str),
        pipeline=st.sampled_from("pqr"),
        trigger=st.sampled_from(["watch", HOURLY]),
        at=st.integers(0, 300).map(lambda minutes: NOW - timedelta(minutes=minutes)),
        group=st.sampled_from("gh"),
    ),
    max_size=8,
    unique_by=lambda run: run.id,
)
actives = st.lists(
    st.builds(
        ActiveRun,
        id=st.uuids().map(str),
        name=st.just("calm-owl"),
        pipeline=st.sampled_from("pq"),
        group=st.sampled_from("gh"),
        is_ending=st.booleans(),
    ),
    max_size=2,
    unique_by=lambda run: run.group,
)


@given(dues, actives, st.dictionaries(st.sampled_from("pq"), rules_), st.integers(1, 3))
def test_whatever_is_due_gets_one_decision_and_no_group_is_owned_twice(
    waiting: list[DueRun], running: list[ActiveRun], rules: dict[str, RunRule], max_runs: int
) -> None:
    decisions = dispatch(waiting, running, rules, NOW, max_runs)
    about = [decision.id for decision in decisions if decision.act not in ("cancel", "pause")]
    assert sorted(about) == sorted(run.id for run in waiting)
    started = [run for run in waiting if StartDecision("start", run.id) in decisions]
    groups = [run.group for run in started] + [run.group for run in running]
    assert len(groups) == len(set(groups))
    assert len(started) <= max(0, max_runs - len(running))
    closed = [decision.id for decision in decisions if decision.act in ("cancel", "pause")]
    assert len(closed) == len(set(closed))
    assert not set(closed) & {run.id for run in running if run.is_ending}
    for run in started:
        window = rules[run.pipeline].window
        assert window is None or window.is_open(NOW)
