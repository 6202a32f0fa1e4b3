import json
import socket
from pathlib import Path

from paddock.runner.notify.due_notices import SentState, notices_of
from paddock.runner.notify.notification import Notification, notification_of
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.report import ItemReport, Report

HOST = socket.gethostname()
FILE = Path("/srv/digest/pipeline.yaml")
NOW = 1_795_194_240.0


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


def test_ten_thousand_bad_items_make_a_short_message() -> None:
    items = bad(*(f"{n}.pdf" for n in range(10_000)), error="e" * 10_000)
    made = notification(Report("a", "p", "quarantined", {"quarantined": 10_000}, items=items))
    assert "  and 9,980 more" in made.text
    assert made.data["n_items"] == 10_000
    assert len(made.data["items"]) == 100
    assert len(json.dumps(dict(made.data))) < 100_000


def test_secrets_are_in_no_part_of_a_message() -> None:
    items = bad("s3cret.pdf", error="s3cret")
    made = notification(Report("a", "s3cret", "quarantined", {}, items=items), secret="s3cret")
    assert "s3cret" not in json.dumps(dict(made.data)) + made.text + made.subject


def test_names_with_line_breaks_and_lone_surrogates_make_no_other_message() -> None:
    made = notification(Report("a", "p\nBcc: x@y.z", "quarantined", {}, items=bad("\udcff\n.pdf")))
    assert "\n" not in made.subject
    assert "each:   .pdf (new)" in made.data["text"]
    json.dumps(dict(made.data), ensure_ascii=False).encode()
