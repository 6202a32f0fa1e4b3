"""Pages as files: of a run, of tests; bounded, escaped, without scripts, readable everywhere."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from lxml import html  # type: ignore[import-untyped]

from paddock.runner.cli.commands.run_history import write_named_run_report
from paddock.runner.ledger.entries import RunRow
from paddock.runner.ledger.run_history import LedgerFolder, PastRun
from paddock.runner.render.html_page import COLOUR_CSS, html_page
from paddock.runner.render.run_details import RunCall, RunDetails, RunItem
from paddock.runner.render.run_page import MAX_FAILURES, MAX_ITEMS, saved_run_page
from paddock.runner.testing.case_results import CaseProblem, CaseResult, SuiteResult
from paddock.runner.testing.results_page import suites_page
from tests.browser import Browser, needs_browser
from tests.runner.world import World

VOID = {"meta", "br", "link"}
EVIL = "<script>alert(1)</script>&\"'"


class Checked(HTMLParser):
    """Sees that every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "img", "iframe")
        self.open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag


def words(page: str) -> str:
    """Return the texts of a page that is well-formed."""
    Checked(page)
    return " ".join(" ".join(html.fromstring(page.split("</style>")[1]).itertext()).split())


def page_of(world: World, run: str, target: str = "run.html") -> str:
    write_named_run_report(world.file, run, world.folder / target)
    return (world.folder / target).read_text("utf-8")


def made_page(
    items: tuple[RunItem, ...] = (), calls: tuple[RunCall, ...] = (), *,
    status: str = "completed", ended: float | None = 9.0, summary: str | None = "{}",
) -> str:  # fmt: skip
    row = RunRow("r", "p", "p.yaml", 0.0, ended, status, summary)
    past = PastRun(LedgerFolder(Path(".paddock")), row, status)
    return saved_run_page(RunDetails(past, items, calls, 9.0, 0), Path("run.html"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.write("inbox/a & <b>.txt", "The ferry leaves at nine.")
    world.write("inbox/x:1.txt", "The pier is closed.")
    world.write("inbox/broken.pdf", "no PDF")
    return world


def test_a_run_is_told_failures_first_with_links_to_documents_and_outputs(world: World) -> None:
    report = world.run()
    page = page_of(world, report.run, "reports/run.html")
    text = words(page)
    failure = "broken.pdf : step 'text': 'broken.pdf' is damaged or not a PDF."
    assert text.index("1 item not done") < text.index(failure) < text.index("Calls and tokens")
    assert report.run in text and "digest" in text
    links = html.fromstring(page).xpath("//a/@href")
    assert len(links) == 6
    for link in links:
        assert (world.folder / "reports" / unquote(link)).exists(), link
    known = words(page_of(world, world.run().run))
    assert "1 item not done before, and not tried again" in known
    write_named_run_report(world.file, "nobody", world.folder / "none.html")
    assert not (world.folder / "none.html").exists()


def test_ten_thousand_documents_make_a_page_of_a_bounded_size() -> None:
    items = tuple(
        RunItem("each", f"folder/document-{n}.txt", "new" if n % 20 else "quarantined", n / 100,
             1 + n % 7 / 10, 1, 100, 20, "it is broken" if n % 20 == 0 else None,
             f"/in/{n}.txt", (f"/out/{n}.md",))
        for n in range(10_000)
    )  # fmt: skip
    calls = tuple(
        RunCall("", "chat", n % 3 == 0, n / 100, 0.5, 100, 50, 20, 0.1, step="sum", model="m")
        for n in range(len(items))
    )
    page = made_page(items, calls, status="quarantined")
    assert len(page) < 2_500_000
    links = html.fromstring(page).xpath("//a")
    assert len(links) == MAX_FAILURES + 2 * MAX_ITEMS
    assert "300 more; paddock logs r --failed lists them" in words(page)
    assert "1,000 items of 10,000." in words(page)


def test_numbers_of_a_run_without_a_summary_are_those_that_the_ledger_has() -> None:
    call = RunCall("a", "chat", False, 0.0, 1.0, 100, 40, 20, step="sum", model="m")
    known = RunCall("b", "chat", True, 0.0, 1.0, 70, 0, 20, step="sum", model="m")
    tool = RunCall("c", "tool", False, 0.0, 1.0, step="ask", model="")
    page = made_page((), (call, known, tool), status="died", ended=None, summary=None)
    assert "calls 1 known calls 1 tokens read 100 of them reused 40 tokens written 20" in words(
        page
    )
    assert "fresh 96" in words(made_page(summary='{"counts": {"fresh": 96}}'))


def page_of_tests(*cases: CaseResult, name: str = "bills") -> str:
    return suites_page([SuiteResult(name, "bills.yaml", cases, ("a note",))])


def test_of_tests_failures_stand_first_with_their_difference_and_all_is_escaped() -> None:
    page = page_of_tests(
        CaseResult("good", "bills", seconds=0.2, source="replay"),
        CaseResult("bad", EVIL, problems=(CaseProblem(EVIL, EVIL, f"-four{EVIL}\n+five"),),
                   notes=(EVIL,), changed_answers=(EVIL,)),
        CaseResult("left", "bills", skipped="not asked for"),
        CaseResult("set", "b", turns=(True,), rows=(EVIL,)),
    )  # fmt: skip
    text = words(page)
    assert text.index("Failed (1)") < text.index("good")
    assert "bad of bills.yaml, failed" in text
    for part in ("passed 2", "skipped 1", "a note", EVIL):
        assert part in text
    tree = html.fromstring(page)
    assert [element.text for element in tree.iter("del", "ins")] == [f"-four{EVIL}", "+five"]
    assert "default-src 'none'" in page


def test_marks_that_turn_the_direction_of_a_name_are_seen_but_stay_in_attributes() -> None:
    page = html_page("a\u202etxt.exe", "notes.html", notes=["b\u2067c", "\u05e9\u05dc\u05d5\u05dd"])
    assert "<title>a\\u202etxt.exe</title>" in page
    assert ">b\\u2067c</p>" in page and ">\u05e9\u05dc\u05d5\u05dd</p>" in page
    page = page_of_tests(name="gpj\u202eexe")
    assert ">gpj\\u202eexe</h2>" in page and 'aria-label="gpj\u202eexe"' in page


def luminance(colour: str) -> float:
    digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_what_is_written_can_be_told_from_what_is_behind_it(scheme: int) -> None:
    named = re.findall(r"--([a-z]+):#([0-9a-f]+)", COLOUR_CSS.split("@media")[scheme])
    colours = {name: luminance(colour) for name, colour in named}
    texts = {"ink", "soft", "done", "fresh", "failed", "running", "left", "work"}
    for behind in ("paper", "box"):
        for name in (*texts, "line"):
            dark, light = sorted((colours[name], colours[behind]))
            least = 4.5 if name in texts else 3.0
            assert (light + 0.05) / (dark + 0.05) >= least, (name, behind)


@needs_browser
def test_a_report_fits_a_telephone_in_both_colours_and_asks_no_one(
    world: World, tmp_path: Path, chromium: Browser
) -> None:
    report = world.run()
    page_of(world, report.run)
    file = (tmp_path / "run.html").as_uri()
    page = chromium.page(file, width=390, height=800)
    assert page.text("h2") == "1 item not done"
    link = (tmp_path / "inbox/broken.pdf").as_uri()
    assert page.ask("document.querySelector('li a').href") == link
    wide = "[...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)"
    assert not page.ask(wide)
    assert page.ask("document.documentElement.scrollWidth <= innerWidth")
    seen = set()
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        seen.add(page.ask("getComputedStyle(document.body).backgroundColor"))
    assert seen == {"rgb(255, 255, 255)", "rgb(13, 17, 23)"}
    asked_for = {url for url in page.asked_for() if not url.startswith("data:")}
    assert (page.complaints(), asked_for) == ([], {file})
