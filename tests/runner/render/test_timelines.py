"""Timelines lose no span, and mark a failure."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as examined
from hypothesis import strategies as st

from paddock.runner.render.timelines import (
    TimeSpan,
    bars_of,
    concurrency_stats,
    lanes_of,
    mean_concurrency,
)

SPANS = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 20)).map(
        lambda pair: TimeSpan(pair[0], pair[0] + pair[1], "a", "done")
    ),
    max_size=60,
)


@examined(max_examples=60, deadline=None)
@given(SPANS)
def test_spans_of_a_lane_follow_one_another_and_none_is_lost(spans: list[TimeSpan]) -> None:
    lanes = lanes_of(spans)
    assert sum(map(len, lanes)) == len(spans)
    for lane in lanes:
        assert all(earlier.end <= other.start for earlier, other in pairwise(lane))
        bars = bars_of(lane, 1.0)
        assert sum(bar.n for bar in bars) == len(lane)
        assert len(bars) <= 2 * 121
    busy = sum(level * 120 / 50 for level in mean_concurrency(spans, 120.0, 50))
    assert busy == pytest.approx(sum(span.end - span.start for span in spans), abs=1e-6)


@examined(max_examples=60, deadline=None)
@given(SPANS)
def test_the_most_at_once_is_a_number_of_spans_that_were_under_way_together(
    spans: list[TimeSpan],
) -> None:
    most, mean = concurrency_stats(spans)
    long = [span for span in spans if span.end - span.start > 0.01]
    together = [sum(s.start <= call.start < s.end - 0.001 for s in long) for call in long]
    assert isinstance(most, int)
    assert max(together, default=0) <= most <= len(spans)
    assert 0 <= mean <= most + 1e-9


def test_what_follows_one_another_is_one_at_once_however_short_the_run() -> None:
    one_by_one = [TimeSpan(n * 0.01, n * 0.01 + 0.0104, "a", "call") for n in range(100)]
    assert concurrency_stats(one_by_one) == (1, 1.0)
    assert concurrency_stats([]) == (0, 0.0)
    waits = [TimeSpan(0, 10, "a", "call"), TimeSpan(0, 12, "b", "call", waited=10)]
    assert concurrency_stats(waits)[0] == 1


def test_a_failure_is_not_lost_among_what_is_drawn_as_one() -> None:
    spans = [
        TimeSpan(0, 0.1, "a", "new"),
        TimeSpan(0.1, 0.2, "b", "failed"),
        TimeSpan(0.2, 0.3, "c", "new"),
    ]
    (bar,) = bars_of(spans, 1.0)
    assert (bar.kind, bar.label, bar.n) == ("failed", "b", 3)
