"""Whether an order is started again when its run has ended."""

from datetime import UTC, datetime, timedelta

from paddock.runner.schedule.run_endings import Restart, restart_after_crash, restart_after_stop

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_a_run_that_crashed_is_started_again_later_and_later_and_not_for_ever() -> None:
    starts = [restart_after_crash("killed", n, NOW, max_restarts=3) for n in (1, 2, 3, 4)]
    assert starts == [
        Restart(NOW + timedelta(seconds=5), 2, "killed; start 2 of at most 4"),
        Restart(NOW + timedelta(seconds=15), 3, "killed; start 3 of at most 4"),
        Restart(NOW + timedelta(seconds=45), 4, "killed; start 4 of at most 4"),
        None,
    ]


def test_only_a_run_that_its_window_or_the_end_of_up_has_stopped_goes_on() -> None:
    in_window = Restart(NOW, 2, "continues in its window")
    assert restart_after_stop("budget", "window", 2, NOW) == in_window
    at_next_start = Restart(NOW, 1, "continues after the end of `paddock up`")
    assert restart_after_stop("interrupted", "shutdown", 1, NOW) == at_next_start
    ended = ("completed", "quarantined", "failed")
    assert {restart_after_stop(status, "window", 1, NOW) for status in ended} == {None}
    stopped = ("budget", "interrupted", "suspended")
    assert {restart_after_stop(status, "cancelled", 1, NOW) for status in stopped} == {None}
    assert {restart_after_stop(status, None, 1, NOW) for status in stopped} == {None}
