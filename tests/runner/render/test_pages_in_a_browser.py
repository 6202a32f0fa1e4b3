"""Reports in a real Chromium: nothing refused, nothing fetched, both colours."""

from pathlib import Path

from paddock.runner.cli.commands.runs_logs import write_named_run_report
from tests.browser import Browser, Page, needs_browser
from tests.runner.world import World

BACKGROUND = "getComputedStyle(document.body).backgroundColor"
WHOLE = (
    "[...document.querySelectorAll('.scroll>svg.chart')]"
    ".every(e => e.clientWidth <= e.parentElement.clientWidth)"
)
"""Whether the charts are seen without scrolling, however narrow the window."""
NARROW = "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"
"""Whether a telephone shows each cell of a table without scrolling sideways."""


def addresses(page: Page) -> set[str]:
    return {url.partition("?")[0] for url in page.asked_for() if not url.startswith("data:")}


@needs_browser
def test_a_report_fits_a_telephone_in_both_colours_and_asks_no_one(
    world: World, tmp_path: Path, chromium: Browser
) -> None:
    world.documents(12)
    world.write("inbox/broken <1>.pdf", "no PDF")
    report = world.run()
    write_named_run_report(world.file, report.run, tmp_path / "run.html")
    page = chromium.page((tmp_path / "run.html").as_uri(), width=390, height=800)
    assert page.text("h2") == "Failed (1)"
    assert page.text(".error a") == "broken <1>.pdf"
    assert page.ask("document.querySelectorAll('.scroll>svg.chart').length") == 3
    assert page.ask(WHOLE)
    assert page.ask("document.documentElement.scrollWidth <= innerWidth")
    assert page.ask(NARROW)
    link = (tmp_path / "inbox/broken <1>.pdf").as_uri()
    assert page.ask("document.querySelector('.error a').href") == link
    seen = set()
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        seen.add(page.ask(BACKGROUND))
    assert seen == {"rgb(255, 255, 255)", "rgb(13, 17, 23)"}
    assert (page.complaints(), addresses(page)) == ([], {(tmp_path / "run.html").as_uri()})
