"""`paddock run --prefect examples/first-run` as a person sees it on Prefect's own page."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.browser import browser, needs_browser
from tests.recording.photographs import page_of_prefect, prefect_run

pytestmark = [
    needs_browser,
    pytest.mark.may_take(280, "Prefect's server is started, and its page drawn"),
]
BLOCKED = "violates the following Content Security Policy directive"


def test_prefect_shows_each_step_and_its_page_asks_nothing_elsewhere(tmp_path: Path) -> None:
    with prefect_run(tmp_path) as (home, run_name), browser() as chromium:
        page = page_of_prefect(chromium, home, run_name)
        shown = str(page.ask("document.body.innerText"))
        asked = {url for url in page.asked_for() if urlsplit(url).hostname != "127.0.0.1"}
        blocked = [said for said in page.complaints() if BLOCKED in said]
    assert {"Completed", "docs", "each", "table", "bills"} <= set(shown.split("\n"))
    assert "Prefect Cloud" not in shown
    for url in asked:  # it tries, and the browser refuses
        assert url.startswith(("data:", "blob:")) or any(url in said for said in blocked), url
