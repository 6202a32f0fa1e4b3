"""Photograph a run as Prefect's own page shows it, for README.

    python tests/recording/prefect_page.py          # next to this file, as README has it
    python tests/recording/prefect_page.py /tmp/x   # into a folder

The run is that of `examples/first-run`, by its small model. It needs Chromium.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.runner.daemon.prefect_auth import own_auth_string
from paddock.runner.daemon.prefect_server import running_server
from tests.browser import Browser, Page, browser
from tests.prefect_server import seed
from tests.recording.models_page import smaller
from tests.recording.review_page import EXAMPLE
from tests.residence import Home, ended

OUT = Path(__file__).with_name("prefect-page.png")
WIDE = (1240, 860)


@contextmanager
def ran(root: Path) -> Iterator[tuple[Home, dict[str, Any]]]:
    """Run the example as a flow on a server that the command starts; yield its home and report."""
    folder = root / "first-run"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".paddock", "out"))
    home = Home(root)
    seed(home.state_dir / "prefect")
    try:
        done = ended(home.started("run", "--json", "--prefect", str(folder)), within_s=200.0)
        assert done.returncode == 0, done.stderr
        yield home, json.loads(done.stdout)
    finally:
        home.end()


def run_page(chromium: Browser, home: Home, run: str) -> Page:
    """Sign in and open the page of a run."""
    address = running_server(home.state_dir).removesuffix("/api")
    page = chromium.page(address, width=WIDE[0], height=WIDE[1])
    page.wait("!!document.querySelector('input[type=password]')")
    page.ask("document.querySelector('input[type=password]').focus()")
    page.type(own_auth_string(home.state_dir))
    page.press("Enter", text="\r")
    page.wait("location.pathname.endsWith('/dashboard')")
    flow_runs = home.api("flow_runs/filter", {"limit": 200})
    (shown,) = [one["id"] for one in flow_runs if one["name"] == run]
    page.open(f"{address}/v2/runs/flow-run/{shown}?tab=TaskRuns")
    page.wait(f"document.body.innerText.includes('{run}')")
    page.wait("document.body.innerText.includes('digest')")
    return page


def main() -> None:
    out = Path(sys.argv[1]) / OUT.name if len(sys.argv) > 1 else OUT
    with (
        tempfile.TemporaryDirectory() as root,
        ran(Path(root)) as (home, report),
        browser() as chromium,
    ):
        page = run_page(chromium, home, report["run"])
        page.ask("new Promise((done) => setTimeout(done, 4000))")  # its chart is drawn after it
        out.write_bytes(smaller(page.photograph()))
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
