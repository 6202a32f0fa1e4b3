"""What follows the end of a run's process."""

from datetime import UTC, datetime, timedelta

from paddock.runner.schedule.run_endings import NoRestart, RestartRun, RunEnding, after_ending

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def after(ending: RunEnding) -> NoRestart | RestartRun:
    return after_ending(ending, NOW, max_restarts=3)


def test_a_run_that_crashed_is_started_again_later_and_later_and_not_for_ever() -> None:
    died = "its process was killed by SIGKILL"
    first = after(RunEnding(1, died))
    assert first == RestartRun(NOW + timedelta(seconds=5), 2, f"{died}; start 2 of at most 4")
    pauses = [after(RunEnding(n, died)) for n in (2, 3)]
    assert [pause.at - NOW for pause in pauses if isinstance(pause, RestartRun)] == [
        timedelta(seconds=15),
        timedelta(seconds=45),
    ]
    assert after(RunEnding(4, died)) == NoRestart(is_given_up=True)


def test_a_run_that_gets_on_is_started_again_however_often_it_crashed() -> None:
    died = "its process was killed by SIGKILL"
    again = RestartRun(NOW + timedelta(seconds=5), 2, f"{died}; start 2 of at most 4")
    assert after(RunEnding(4, died, has_progressed=True)) == again


def test_a_run_that_said_how_it_ended_is_done() -> None:
    for status in ("completed", "quarantined", "failed", "budget", "interrupted"):
        assert after(RunEnding(1, status=status)) == NoRestart()


def test_a_run_whose_window_closed_waits_for_it_again_as_the_same_attempt() -> None:
    ending = RunEnding(2, status="budget", stopped="window")
    assert after(ending) == RestartRun(NOW, 2, "continues in its window")
    assert after(RunEnding(2, status="completed", stopped="window")) == NoRestart()


def test_a_run_that_was_cancelled_stays_so_even_when_it_had_to_be_killed() -> None:
    assert after(RunEnding(1, "its process is gone", stopped="cancelled")) == NoRestart()


def test_what_was_at_work_when_up_ended_goes_on_at_the_next_start() -> None:
    ending = RunEnding(1, status="interrupted", stopped="shutdown")
    assert after(ending) == RestartRun(NOW, 1, "continues after the end of `paddock up`")
