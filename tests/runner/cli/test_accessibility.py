"""Every page in a real Chromium, wide and narrow, in both colours: axe-core finds no fault."""

import json
from pathlib import Path
from urllib.parse import urljoin

import pytest

from paddock.engine.system.files import write_output
from paddock.runner.cli.commands.run_history import write_named_run_report
from paddock.runner.cli.console_run_pages import pipeline_address
from paddock.runner.compare.comparison_page import comparison_page
from tests.axe import faults, needs_axe
from tests.browser import Browser, Page
from tests.runner.cli.test_web_console import go, links, opened, served, signed_in
from tests.runner.compare.bills import Bills
from tests.runner.review.served_page import KINDS, ServedPage
from tests.runner.world import World

pytestmark = needs_axe

SIZES = ((1600, 900), (390, 844))


def check(page: Page, name: str) -> None:
    for width, height in SIZES:
        page.resize(width, height)
        assert page.ask("document.documentElement.scrollWidth <= innerWidth"), (name, width)
        for scheme in ("light", "dark"):
            page.prefer(scheme)
            assert (name, width, scheme, faults(page)) == (name, width, scheme, [])


def unreached(page: Page) -> list[str]:
    """Return what can be used by the pointer alone: Tab does not lead there."""
    page.open(str(page.ask("location.href")))
    page.ask("for (let n = setTimeout(() => 0); n; n -= 1) clearTimeout(n)")  # it stays as it is
    wish = "a[href], button:not([disabled]), input, select, textarea, summary, [tabindex='0']"
    n = page.ask(
        f"window.all = [...document.querySelectorAll({json.dumps(wish)})]"
        ".filter((node) => node.checkVisibility()); all.length"
    )
    page.ask("window.scrollTo(0, 0), document.activeElement.blur(), window.reached = new Set(), 0")
    for _ in range(n + 5):
        page.press("Tab")
        page.ask("window.reached.add(document.activeElement), 0")
    left: list[str] = page.ask(
        "all.filter((node) => !reached.has(node)).map((node) => node.outerHTML.slice(0, 150))"
    )
    return left


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.documents(3)
    world.write("inbox/bad.pdf", "%PDF no")
    world.write("broken.yaml", "steps: [")
    world.run()
    world.write("kinds.csv", "kind,note\ninvoice,\ncredit note,\n")
    ServedPage(tmp_path).ask("a.txt", "b.txt", label_tables=KINDS, due=["The total is odd"])
    return world


def test_pages_of_the_console_have_no_fault(world: World, chromium: Browser) -> None:
    with served(world.folder) as address, signed_in(address) as client:
        page = chromium.page(address.partition("?")[0])
        page.wait("document.getElementById('token') !== null")
        check(page, "sign in")
        page = opened(chromium, address)
        (run,) = links(client, "/ui/runs", "/ui/runs/")
        item = next(link for link in links(client, run, "/item") if "0.txt" in link)
        for path, heading in (
            ("/ui/pipelines", "Pipelines"), ("/ui/runs", "Runs"), (run, "summaries"),
            (item, "0.txt"), ("/ui/models", "Models"), ("/ui/requests", "Requests"),
            ("/ui/settings", "Settings"),
            (f"{run}x", "Runs"),
        ):  # fmt: skip
            go(page, path, heading)
            check(page, path)
            assert (path, unreached(page)) == (path, [])
        page.open(urljoin(address, "/review"))
        page.wait("document.querySelectorAll('.field').length > 0")
        check(page, "review")
        page.press("e", text="e")
        page.wait("document.querySelectorAll('#inputs select + button').length > 0")
        check(page, "edit of the review")
        page.ask("document.querySelector('#inputs select + button').click()")
        check(page, "row of the review")
        page.press("Escape")
        page.ask("document.getElementById('help-open').click()")
        check(page, "keys of the review")


def test_pages_where_something_is_done_have_no_fault(world: World, chromium: Browser) -> None:
    text = world.text.replace("{type: str, default: plain}", "{type: str, description: How.}")
    wants = text.replace("steps:", "steps:\n  - {id: log, uses: run, with: {command: [ls]}}")
    wanting = world.write("wanting.yaml", wants.replace("name: summaries", "name: wanting"))
    world.edit("Sum up:", "Sum it up:")
    world.run()
    pages = [(world.file, "summaries"), (wanting, "wanting")]
    with served(world.folder) as address, signed_in(address) as client:
        page = opened(chromium, address)
        run = links(client, "/ui/runs", "/ui/runs/")[0]
        for path, heading in (
            *((pipeline_address(file.resolve()), name) for file, name in pages),
            (f"{run}/difference", "summaries: what changed"),
        ):  # fmt: skip
            go(page, path, heading)
            check(page, path)
            assert (path, unreached(page)) == (path, [])


def test_a_fault_is_found(tmp_path: Path, chromium: Browser) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><html lang=en><title>x</title><main><h1>x</h1><img src='data:,'>"
    )
    (found,) = faults(chromium.page(bad.as_uri()))
    assert found.startswith("critical image-alt: ")


def test_offline_pages_have_no_fault(
    world: World, tmp_path_factory: pytest.TempPathFactory, chromium: Browser
) -> None:
    folder = world.folder
    (run,) = (folder / ".paddock/runs").glob("*.jsonl")
    write_named_run_report(world.file, run.stem, folder / "report.html")
    bills = Bills(tmp_path_factory.mktemp("bills"))
    write_output(
        folder / "compare.html", comparison_page(bills.compare(models=("clerk=small,big",)))
    )
    for name in ("report", "compare"):
        page = chromium.page((folder / f"{name}.html").as_uri())
        page.ask("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
        check(page, name)
