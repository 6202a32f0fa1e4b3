import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.runner.notify.due_notices import AGAIN_S, SentState, notices_of, without_ended_items
from paddock.runner.notify.notification import notification_of
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.report import ItemReport, Report
from tests.runner.notify.receivers import ended

NOW = 1_000_000.0


def heard(
    reports: list[Report], sent: SentState | None = None, step_s: float = 60
) -> list[list[str]]:
    """Return the events of each run in a row, for a receiver who wants all and gets all."""
    sent = sent or SentState()
    events: list[list[str]] = []
    for number, report in enumerate(reports):
        sent = without_ended_items(report, sent)
        found = notices_of(report, sent, NOW + number * step_s)
        events.append([notice.event for notice in found])
        sent = found[-1].after if found else sent
        assert SentState.of_json(json.loads(json.dumps(sent.as_json()))) == sent
    return events


def test_a_failure_that_stays_is_told_once_a_day() -> None:
    broken = ended("failed", message="no model")
    runs = heard([broken] * 9, step_s=AGAIN_S / 4)
    assert [bool(events) for events in runs] == [*(True, False, False, False) * 2, True]


def test_a_clock_that_was_set_back_does_not_silence_a_failure() -> None:
    broken = ended("failed", message="no model")
    assert heard([broken, broken], step_s=-3600) == [["failed"], ["failed"]]


def test_a_block_of_which_nothing_is_done_is_told_of_once_a_day() -> None:
    broken = ended("quarantined", "a", "b")
    runs = heard([broken] * 9, step_s=AGAIN_S / 4)
    assert [bool(events) for events in runs] == [*(True, False, False, False) * 2, True]
    some = replace(broken, items=(*broken.items, ItemReport("each", "c", ItemState.FRESH)))
    assert [bool(events) for events in heard([some] * 9, step_s=AGAIN_S / 4)] == [
        True,
        *[False] * 8,
    ]


def test_the_new_ones_among_the_quarantined_are_known() -> None:
    (first,) = notices_of(ended("quarantined", "a"), SentState(), NOW)
    (second,) = notices_of(ended("quarantined", "a", "b"), first.after, NOW)
    assert (len(second.new_items), len(second.after.items)) == (1, 2)


def test_a_receiver_that_was_told_nothing_yet_hears_of_the_recovery_from_what_was_before() -> None:
    assert heard([ended("completed")], SentState(bad="failed")) == [["recovered"]]


@pytest.mark.parametrize("data", [None, 3, "x", [], {}, {"items": 3}, {"bad": "failed"}])
def test_a_memory_that_cannot_be_read_counts_as_none(data: object) -> None:
    assert SentState.of_json(data) == SentState()


REPORTS = st.one_of(
    st.sampled_from([ended("completed"), ended("interrupted"), ended("budget")]),
    st.sampled_from(["x", "y"]).map(lambda text: ended("failed", message=text)),
    st.sets(st.sampled_from("abc"), min_size=1).map(lambda keys: ended("quarantined", *keys)),
)


@given(st.lists(REPORTS, max_size=30))
def test_the_same_news_is_never_told_twice_and_no_bad_end_is_missed(reports: list[Report]) -> None:
    is_bad, known, failure = False, set[str](), ""
    for report, events in zip(reports, heard(reports), strict=True):
        if report.status in ("interrupted", "budget"):
            assert not events
            continue
        now = {item.key for item in report.items}
        if report.status == "failed":
            assert events == ([] if failure == report.message else ["failed"])
            is_bad, failure = True, report.message or ""
            continue
        was_failed, failure = bool(failure), ""
        assert ("quarantined" in events) == bool(now - known)
        assert ("recovered" in events) == (was_failed or (is_bad and not now))
        is_bad, known = bool(now), now


def waits(*keys: str) -> Report:
    items = tuple(ItemReport("each", key, ItemState.WAITING) for key in keys)
    return Report("swift-otter", "digest", "completed", {}, items=items)


def test_of_what_waits_one_message_tells_until_it_is_decided_or_a_day_is_over() -> None:
    a, ab, c = waits("a"), waits("a", "b"), waits("c")
    assert heard([a, a, ab, ab, c, waits(), c]) == [
        ["waiting"], [], [], [], ["waiting"], [], ["waiting"],
    ]  # fmt: skip
    assert heard([a, ab, ab], step_s=AGAIN_S) == [["waiting"], ["waiting"], []]


def test_the_message_about_what_waits_counts_it_and_says_what_to_do() -> None:
    report = waits(*(f"{n}.txt" for n in range(25)))
    (notice,) = notices_of(report, SentState(), NOW)
    notification = notification_of(notice, report, Path("/bills.yaml"), NOW, str)
    assert "25 answers wait for review" in notification.subject
    assert "each: 0.txt (new)\n" in notification.text
    assert "To decide: paddock review /bills.yaml" in notification.text
    assert (notification.data["event"], notification.data["n_items"]) == ("waiting", 25)
