"""Who is told of the end of a run, when, and in which words."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.system.records import record_from, replace
from paddock.pipelines.errors import PipelineError
from paddock.runner.notify.due_notices import AGAIN_S, SentState, notices_of, without_ended_items
from paddock.runner.notify.notification import Notification, notification_of
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Why
from paddock.runner.progress.report import ItemReport, Report
from tests.fakes.pool import FakePool
from tests.runner.notify.receivers import Hook, ended, hook
from tests.runner.world import SUMMARIES, Notes, World

NOW = 1_795_194_240.0


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
        assert record_from(SentState, json.loads(json.dumps(sent.as_json()))) == sent
    return events


def test_a_failure_that_stays_is_told_once_a_day() -> None:
    broken = ended("failed", message="no model")
    runs = heard([broken] * 9, step_s=AGAIN_S / 4)
    assert [bool(events) for events in runs] == [*(True, False, False, False) * 2, True]


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


def test_a_possible_fraud_is_told_at_once_and_first() -> None:
    a, ab = waits("a"), waits("a", "b")
    since = Why.MAY_BE_FRAUD_SINCE("2027-03-28T10:00:00Z")
    suspected = replace(ab, items=(ab.items[0], replace(ab.items[1], reasons=(since,))))
    assert heard([a, ab, suspected, suspected]) == [["waiting"], [], ["waiting"], []]
    (notice,) = notices_of(suspected, SentState(), NOW)
    told = notification_of(notice, suspected, Path("/bills.yaml"), NOW, str)
    assert "2 answers wait for review; possible fraud: 1 account changed" in told.subject
    assert "\n\n  each: b (new): waits for review since 2027-03-28T10:00:00Z: possible" in told.text
    assert [item["may_be_fraud"] for item in told.data["items"]] == [True, False]


# --- words


HOST = socket.gethostname()
FILE = Path("/srv/digest/pipeline.yaml")


def notification(report: Report, before: SentState | None = None, secret: str = "") -> Notification:
    notice = notices_of(report, before or SentState(), NOW)[0]
    return notification_of(
        notice, report, FILE, NOW, lambda t: t.replace(secret, "***") if secret else t
    )


def bad(*keys: str, error: str = "it is damaged.") -> tuple[ItemReport, ...]:
    return tuple(ItemReport("each", key, ItemState.QUARANTINED, error=error) for key in keys)


def test_a_failure_says_why_where_and_what_to_do() -> None:
    report = Report("swift-otter", "digest", "failed", {}, message="the disk is full.")
    assert notification(report).subject == f"[paddock] digest: it failed ({HOST})"
    assert notification(report).text == (
        "Pipeline 'digest': it failed.\n"
        "\n"
        "the disk is full.\n"
        "\n"
        f"/srv/digest/pipeline.yaml, run swift-otter on {HOST}, 2026-11-20 17:04 UTC.\n"
        "Details: paddock logs swift-otter /srv/digest"
    )


def test_quarantined_items_come_in_one_message_the_new_ones_first() -> None:
    before = notices_of(Report("a", "p", "quarantined", {}, items=bad("a.pdf")), SentState(), NOW)[
        0
    ].after
    report = Report("swift-otter", "digest", "quarantined", {}, items=bad("a.pdf", "b.pdf"))
    assert notification(report, before).text == (
        "Pipeline 'digest': 2 items are quarantined, 1 of them new.\n"
        "\n"
        "  each: b.pdf (new): it is damaged.\n"
        "  each: a.pdf: it is damaged.\n"
        "\n"
        f"/srv/digest/pipeline.yaml, run swift-otter on {HOST}, 2026-11-20 17:04 UTC.\n"
        "Details: paddock logs swift-otter /srv/digest\n"
        "To retry them: paddock run /srv/digest/pipeline.yaml --retry-failed"
    )


def test_a_recovery_says_what_is_left() -> None:
    before = SentState(bad="failed", items=frozenset())
    report = Report("swift-otter", "digest", "completed", {"new": 3})
    assert notification(report, before).subject == f"[paddock] digest: it has recovered ({HOST})"
    left = Report("swift-otter", "digest", "quarantined", {}, items=bad("a.pdf"))
    assert notification(left, before).subject == (
        f"[paddock] digest: it has recovered; 1 item is still quarantined ({HOST})"
    )


def test_secrets_are_in_no_part_of_a_message() -> None:
    items = bad("s3cret.pdf", error="s3cret")
    made = notification(Report("a", "s3cret", "quarantined", {}, items=items), secret="s3cret")
    assert "s3cret" not in json.dumps(dict(made.data)) + made.text + made.subject


# --- runs


NOTIFY = """\
on:
  notify: {when: [failed, quarantined, recovered], webhook: "URL"}
"""
TWICE = """\
steps:
  - id: each
    for_each: n in [1, 1]
    key: n
    do: [{id: said, uses: prompt, with: {template: "{{ n }}"}}]
"""


def ran(world: World, noted: Notes | None = None, **options: Any) -> Report:
    return world.run(observer=noted, **{"allow": ["network"], **options})


def delivered(server: Hook) -> list[tuple[str, str]]:
    return [(got["event"], got["run"]) for got in server.got]


def test_a_run_by_schedule_tells_and_one_by_hand_when_asked(tmp_path: Path) -> None:
    with hook() as server:
        world = World(tmp_path, NOTIFY.replace("URL", server.url) + SUMMARIES)
        world.documents(2)
        bad = world.write("inbox/bad.pdf", "%PDF no")
        ran(world)
        assert delivered(server) == []
        report = ran(world, trigger="schedule")
        assert delivered(server) == [("quarantined", report.run)]
        bad.unlink()
        report = ran(world, notify=True)
        assert delivered(server)[1:] == [("recovered", report.run)]


def test_a_run_that_an_error_ends_tells_of_it(tmp_path: Path) -> None:
    with hook() as server:
        world = World(tmp_path, NOTIFY.replace("URL", server.url) + TWICE)
        with pytest.raises(PipelineError):
            ran(world, trigger="watch")
    ((event, _),) = delivered(server)
    assert event == "failed"
    assert "gives two items of block 'each' the same key '1'" in server.got[0]["message"]


def test_a_run_that_was_stopped_tells_nothing(tmp_path: Path) -> None:
    with hook() as server:
        world = World(tmp_path, NOTIFY.replace("URL", server.url) + SUMMARIES)
        world.documents(2)

        stop = asyncio.Event()
        stop.set()
        run = world.run_async(pool=FakePool(), stop=stop, trigger="watch", allow=["network"])
        assert asyncio.run(run).status == "interrupted"
        assert delivered(server) == []


def test_what_could_not_be_told_is_told_even_if_watched_and_the_run_is_as_it_was(
    tmp_path: Path,
) -> None:
    with hook(410) as server:
        world = World(tmp_path, NOTIFY.replace("URL", server.url) + SUMMARIES)
        world.write("inbox/bad.pdf", "%PDF no")
        noted = Notes()
        assert ran(world, noted, trigger="watch").status == "quarantined"
    assert noted.texts[-1] == (
        "the notification by webhook that it has quarantined items was not delivered: 127.0.0.1 "
        "answered 410."
    )


def test_a_mail_that_cannot_be_sent_is_known_before_the_run(tmp_path: Path) -> None:
    mail = "on:\n  notify: {when: [failed], email: a@b.org}\n"
    noted = Notes()
    world = World(tmp_path, mail + SUMMARIES)
    world.documents(1)
    assert ran(world, noted, trigger="watch").status == "completed"
    assert noted.texts[0] == (
        "`on.notify` names a mail address, and no mail server is set; "
        "set PADDOCK_SMTP, such as smtp://user:password@mail.example.org."
    )


def test_secrets_reach_the_address_and_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hook() as server:
        monkeypatch.setenv("HOOK_TOKEN", "t0p-s3cret-t0ken")
        address = server.url.replace("t0ken", "{{ secrets.token }}")
        head = "secrets: {token: {env: HOOK_TOKEN}}\n" + NOTIFY.replace("URL", address)
        world = World(tmp_path, head + SUMMARIES)
        world.write("inbox/t0p-s3cret-t0ken.pdf", "%PDF no")
        ran(world, trigger="watch", allow=["network", "secrets"])
    assert server.paths == ["/hook?token=t0p-s3cret-t0ken"]
    assert "s3cret" not in json.dumps(server.got)
