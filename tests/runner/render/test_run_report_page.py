"""A run as one page: failures first, bounded, honest about what it leaves out."""

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from paddock.runner.cli.commands.runs_logs import write_named_run_report
from paddock.runner.ledger.entries import RunRow
from paddock.runner.ledger.run_history import LedgerFolder, PastRun, recent_runs
from paddock.runner.render.run_details import RunCall, RunDetails, RunItem, read_run_details
from paddock.runner.render.run_report_page import MAX_FAILURES, MAX_ITEMS, run_report_page
from paddock.runner.render.timelines import calls_chart, items_chart, look_of, occupancy_chart
from tests.fakes.pool import FakePool
from tests.runner.world import World

VOID = {"meta", "path", "rect", "br", "link"}


class Checked(HTMLParser):
    """Sees that every tag is closed, and keeps links and texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page.split("</style>")[1]).split())


def page_of(world: World, run: str) -> str:
    target = world.folder / "run.html"
    write_named_run_report(world.file, run, target)
    return target.read_text("utf-8")


def item(key: str, began: float, seconds: float = 9.0, state: str = "new") -> RunItem:
    return RunItem("each", key, state, began, seconds, 1, 0, 1, 1, None, None, ())


def call(key: str, began: float, seconds: float, **fields: Any) -> RunCall:
    known = RunCall("sum", key, "chat", "m", began, seconds, 0.0, 100, 0, 20, is_known=False)
    return replace(known, **fields)


def drawn_page(
    items: Sequence[RunItem] = (), calls: Sequence[RunCall] = (), seconds: float = 100.0, *,
    status: str = "quarantined", ended: float | None = 100.0, summary: str | None = "{}",
) -> str:  # fmt: skip
    row = RunRow("r", "p", "p.yaml", 0.0, ended, status, summary)
    past = PastRun(LedgerFolder(Path(".paddock")), row, status)
    story = RunDetails(past, tuple(items), tuple(calls), seconds, 0)
    return run_report_page(story, Path("run.html"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.write("inbox/a & <b>.txt", "The ferry leaves at nine.")
    world.write("inbox/x:1.txt", "The pier is closed.")
    world.write("inbox/broken.pdf", "no PDF")
    return world


def test_a_page_tells_failures_first_and_leads_to_documents_and_outputs(world: World) -> None:
    report = world.run()
    target = world.folder / "reports" / "run.html"
    write_named_run_report(world.file, report.run, target)
    page = target.read_text("utf-8")
    checked = Checked(page)
    text = words(page)
    assert text.index("Failed (1)") < text.index("Items over time") < text.index("Items Item")
    assert "step 'text': 'broken.pdf' is damaged or not a PDF." in text.replace("&#39;", "'")
    for link in checked.links:
        assert (target.parent / unquote(link)).exists(), link
    assert len(checked.links) == 6
    assert "script" not in checked.tags
    assert report.run in text


def test_the_story_of_a_run_has_its_items_and_calls_with_their_times(world: World) -> None:
    report = world.run()
    (past,) = recent_runs([LedgerFolder(world.folder / ".paddock")], limit=1).runs
    story = read_run_details(past)
    assert {(item.key, item.state) for item in story.items} == {
        ("a & <b>.txt", "new"), ("x:1.txt", "new"), ("broken.pdf", "quarantined"),
        ("digest", "new"),
    }  # fmt: skip
    assert len(story.calls) == report.calls == 3
    assert all(0 <= call.began <= story.seconds + 0.1 for call in story.calls)
    assert sum(call.prompt for call in story.calls) == report.tokens["prompt"]
    assert story.n_taken_over == 0


def test_an_item_that_later_runs_did_again_is_on_the_page_once_with_what_became_of_it(
    world: World,
) -> None:
    first = world.run()
    world.write("inbox/broken.pdf", "Still no PDF.")
    second = world.run()
    world.edit("Sum up:", "In short:")
    (world.folder / "inbox/x:1.txt").unlink()
    third = world.run()
    text = words(page_of(world, first.run))
    assert "Failed (1) broken.pdf of each, quarantined step" in text
    assert f"Run {third.run} retried it: quarantined." in text
    assert second.run not in text, "the latest run alone"
    items = text.split("Items Item")[1]
    assert items.count("broken.pdf") == items.count("a &amp; &lt;b&gt;.txt") == 1
    assert f"a &amp; &lt;b&gt;.txt each done Redone by run {third.run}." in items
    assert f"x:1.txt each done Run {third.run} found that its document was deleted." in items
    assert "3 calls are not drawn: later runs redid their items." in text


def test_what_neither_ledger_nor_journal_keeps_is_counted(world: World) -> None:
    first = world.run()
    world.edit("Sum up:", "In short:")
    world.run()
    (world.folder / ".paddock/runs" / f"{first.run}.jsonl").unlink()
    lost = "3 were redone by later runs; their details in this run are gone."
    assert lost in words(page_of(world, first.run))


def test_a_deleted_document_is_told_as_deleted_and_has_no_bar(world: World) -> None:
    world.run()
    (world.folder / "inbox/x:1.txt").unlink()
    page = page_of(world, world.run().run)
    assert "x:1.txt each deleted" in words(page)
    assert "each: x:1.txt" not in page


def test_a_bar_for_several_says_how_many_and_a_long_name_is_cut_in_its_middle() -> None:
    short = [item(f"{n}.txt", n / 50, 0.01) for n in range(40)]
    page = drawn_page([*short, item("a-very-long-name-" * 20 + "the-end.txt", 20.0, 80.0)])
    labels = re.findall(r'class="label \w+"[^>]*>([^<]+)<', page)
    assert labels[0].startswith("40 \N{MULTIPLICATION SIGN} ")
    (cut,) = (label for label in labels if "…" in label)
    assert cut.startswith("a-very-long-name-") and cut.endswith("the-end.txt, 1 min 20 s")
    assert "several short ones together" in words(page)
    assert "point at a bar without a label" not in words(page)
    dense = drawn_page([item(f"{n}.txt", n, 0.9) for n in range(100)])
    assert "point at a bar without a label" in words(dense)


def test_known_replies_are_told_apart(world: World) -> None:
    world.run()
    (world.folder / "out/x:1.txt").unlink()
    report = world.run()
    (past, _) = recent_runs([LedgerFolder(world.folder / ".paddock")], limit=2).runs
    calls = read_run_details(past).calls
    assert [call.is_known for call in calls] == [True]
    assert report.cached_calls == 1


def test_a_tool_that_was_called_is_not_shown_as_known(tmp_path: Path) -> None:
    tool = "{id: style, uses: tool, with: {name: files.search, options: {root: inbox}}}"
    world = World(tmp_path, n_documents=1)
    world.edit("      - {id: sum,", f"      - {tool}\n      - {{id: sum,")
    world.run()
    (past,) = recent_runs([LedgerFolder(world.folder / ".paddock")], limit=2).runs
    calls = read_run_details(past).calls
    assert [call.is_known for call in calls if call.kind == "tool"] == [False]


def test_a_run_that_is_not_there_writes_nothing(world: World) -> None:
    world.run()
    write_named_run_report(world.file, "nobody", world.folder / "run.html")
    assert not (world.folder / "run.html").exists()


def test_ten_thousand_documents_make_a_page_of_a_bounded_size() -> None:
    items = tuple(
        RunItem("each", f"folder/document-{n}.txt", "new" if n % 20 else "quarantined", n / 100,
             1 + n % 7 / 10, 1, 0, 100, 20, "it is broken" if n % 20 == 0 else None,
             f"/in/{n}.txt", (f"/out/{n}.md",))
        for n in range(10_000)
    )  # fmt: skip
    calls = tuple(
        RunCall("sum", item.key, "chat", "m", item.began or 0, 0.5, 0.1, 100, 50, 20, n % 3 == 0)
        for n, item in enumerate(items * 3)
    )
    page = drawn_page(items, calls)
    assert len(page) < 2_500_000
    Checked(page)
    assert page.count('<div class="error">') == MAX_FAILURES
    assert (
        page.count('<td data-head="Item" class="name"><a')
        + page.count('<td data-head="Wrote" class="name"><a')
        == 2 * MAX_ITEMS
    )
    assert "300 more; paddock logs r --failed lists them." in words(page).replace(" ;", ";")
    assert "9,000 more, all done and faster than these." in words(page)


def test_a_run_without_anything_to_do_has_a_page() -> None:
    page = drawn_page(seconds=0.1, summary='{"counts": {"fresh": 96}}')
    assert "96 were fresh: nothing had to be done." in words(page)
    Checked(page)


def test_a_run_that_was_ended_before_an_item_was_done_does_not_claim_that_all_was() -> None:
    text = words(drawn_page(seconds=3.0, status="interrupted", ended=3.0, summary='{"counts": {}}'))
    assert "No item was finished." in text and "Nothing had to be done." not in text


def test_the_most_calls_at_once_is_whole_on_the_page() -> None:
    # Six long ones, and a seventh for too short a time to fill a part of the picture.
    page = drawn_page(calls=[call(str(n), 0.0, 50.0 if n else 0.1) for n in range(7)])
    text = words(page)
    assert "At most 7; 6.0 on average while there were any." in text
    chart = page.split("Concurrent calls: ")[1].split("</svg>")[0]
    assert chart.startswith("at most 7")
    assert re.findall(r'level"[^>]*>([^<]+)<', chart) == ["0", "3", "7"]


def test_numbers_of_a_run_without_a_summary_are_those_that_the_ledger_has() -> None:
    calls = [
        call("a", 0.0, 1.0, reused=40),
        call("b", 1.0, 0.0, prompt=70, is_known=True),
        call("b", 1.0, 0.0, step="ask", kind="tool", prompt=0, completion=0),
    ]
    text = words(drawn_page((), calls, 2.0, status="died", ended=None, summary=None))
    chips = "calls 1 known calls 1 tokens read 100 of them reused 40 tokens written 20"
    assert chips in text


def test_what_was_known_to_fail_is_told_though_no_one_tried_it(world: World) -> None:
    world.run()
    text = words(page_of(world, world.run().run))
    assert "Failed (1) 1 of them known to fail and not retried" in text


def test_a_step_that_failed_the_run_is_told_once_and_first(world: World) -> None:
    world.edit('text: "{{ steps.digest.text }}"', 'text: "{{ steps.digest.text.nothing.more }}"')
    report = world.run()
    (world.folder / "inbox/broken.pdf").unlink()
    world.run()
    page = page_of(world, report.run)
    assert words(page).count("step 'report'".replace("'", "&#39;")) == 1
    assert page.index("step &#39;report&#39;") < page.index('<ul class="chips"')
    assert "<h2>Failed" not in page_of(world, world.run().run)


def test_charts_are_well_formed(world: World) -> None:
    world.run(pool=FakePool())
    (found,) = recent_runs([LedgerFolder(world.folder / ".paddock")], limit=1).runs
    story = read_run_details(found)
    for chart in (items_chart(story)[0], calls_chart(story)[0], occupancy_chart(story)[0]):
        assert ElementTree.fromstring(chart).get("role") == "img"


KINDS = ("new", "changed", "stale", "failed", "quarantined", "skipped", "held", "waiting")


def test_every_bar_has_a_label_and_every_look_an_entry_in_the_legend() -> None:
    items = [item(kind[:6], 10.0 * n, state=kind) for n, kind in enumerate(KINDS)]
    calls = [
        call("a", 0.0, 30.0, queue_s=10.0),
        call("b", 40.0, 9.0, is_known=True),
        call("c", 50.0, 9.0, step="ask", kind="tool"),
    ]
    page = drawn_page(items, calls, 80.0)
    Checked(page)
    labels = re.findall(r'class="label \w+"[^>]*>([^<]+)<', page)
    assert labels[: len(KINDS)] == [f"{kind[:6]}, 9.0 s" for kind in KINDS]
    assert labels[len(KINDS) :] == ["sum, a, 20 s", "sum, b, 9.0 s", "ask, c, 9.0 s"]
    charts = re.sub(r'<ul class="legend">.*?</ul>', "", page)
    drawn = set(re.findall(r'<(?:rect|path) class="(?:bar )?(\w+)"', charts)) - {"over"}
    shown = set(re.findall(r'aria-hidden="true"><rect class="(?:bar )?(\w+)"', page))
    assert drawn == shown == {*map(look_of, KINDS), "call", "known", "tool", "waited", "area"}
    patterns = set(re.findall(r'id="over-(\w+)"', page))
    assert patterns == set(re.findall(r'class="over (\w+)"', page))
