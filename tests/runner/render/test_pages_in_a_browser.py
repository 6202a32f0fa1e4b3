"""Pictures and pages in a real Chromium: nothing refused, nothing fetched, keys and colours."""

from pathlib import Path

from paddock.engine.system.files import write_output
from paddock.pipelines.plan import Plan, read_plan
from paddock.runner.cli.commands.runs_logs import write_named_run_report
from paddock.runner.render.graph_drawing import draw_graph
from tests.browser import Browser, Page, needs_browser
from tests.runner.world import World

BACKGROUND = "getComputedStyle(document.body).backgroundColor"
WHOLE = (
    "[...document.querySelectorAll('.scroll>svg.chart')]"
    ".every(e => e.clientWidth <= e.parentElement.clientWidth)"
)
"""Whether the charts are seen without scrolling, however narrow the window."""
NARROW = "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"
"""Whether a telephone shows the graph and each cell of a table without scrolling sideways."""
FILL = "getComputedStyle(document.querySelector('rect.paper')).fill"


def addresses(page: Page) -> set[str]:
    return {url.partition("?")[0] for url in page.asked_for() if not url.startswith("data:")}


@needs_browser
def test_pages_work_by_keyboard_in_both_colours_and_ask_no_one(
    world: World, tmp_path: Path, chromium: Browser
) -> None:
    world.documents(12)
    world.write("inbox/broken <1>.pdf", "no PDF")
    report = world.run()
    plan: Plan = read_plan(world.file)
    for name, kind in (("g.html", "html"), ("g.svg", "svg")):
        write_output(tmp_path / name, draw_graph(plan, world.file, kind))  # type: ignore[arg-type]
    write_named_run_report(world.file, report.run, tmp_path / "run.html")
    page = chromium.page((tmp_path / "g.html").as_uri(), width=390, height=800)
    assert page.ask("document.querySelectorAll('svg.graph rect').length") == 7
    page.press("Tab")  # the picture itself, which scrolls where it is wider than the screen
    page.press("Tab")
    assert page.ask("document.activeElement.getAttribute('aria-label')").startswith("docs:")
    page.press("Enter", text="\r")
    page.wait("location.hash === '#row-docs'")
    assert page.ask("document.documentElement.scrollWidth <= innerWidth")
    assert page.ask(NARROW)
    seen = set()
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        seen.add(page.ask(BACKGROUND))
    assert seen == {"rgb(255, 255, 255)", "rgb(13, 17, 23)"}
    assert (page.complaints(), addresses(page)) == ([], {(tmp_path / "g.html").as_uri()})

    picture = chromium.page((tmp_path / "g.svg").as_uri())
    assert picture.ask("document.documentElement.tagName") == "svg"
    assert picture.ask(FILL) in ("rgb(255, 255, 255)", "rgb(13, 17, 23)")
    assert picture.ask("document.querySelectorAll('[tabindex]').length") == 6
    assert picture.complaints() == []

    page = chromium.page((tmp_path / "run.html").as_uri(), width=390, height=800)
    assert page.text("h2") == "Failed (1)"
    assert page.text(".error a") == "broken <1>.pdf"
    assert page.ask("document.querySelectorAll('.scroll>svg.chart').length") == 3
    assert page.ask(WHOLE)
    assert page.ask("document.documentElement.scrollWidth <= innerWidth")
    assert page.ask(NARROW)
    link = (tmp_path / "inbox/broken <1>.pdf").as_uri()
    assert page.ask("document.querySelector('.error a').href") == link
    assert (page.complaints(), addresses(page)) == ([], {(tmp_path / "run.html").as_uri()})
