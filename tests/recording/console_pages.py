"""Photograph a run and an item of it as the console shows them, for README and guide.

    python tests/recording/console_pages.py          # next to this file, as they have them
    python tests/recording/console_pages.py /tmp/x   # light, dark and narrow

The run is that of `examples/first-run`, by its small model. It needs Chromium.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from urllib.parse import urljoin

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.browser import browser
from tests.recording.models_page import smaller
from tests.recording.review_page import SHOWN, ran
from tests.runner.cli.test_web_console import go, links, opened, served, signed_in

SIZES = {"": (1180, 800), "narrow-": (390, 1300)}


def main() -> None:
    is_for_guide = len(sys.argv) < 2
    to = Path(__file__).parent if is_for_guide else Path(sys.argv[1])
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as parent, browser() as chromium:
        folder = Path(parent) / "first-run"
        ran(folder)
        with served(folder) as address, signed_in(address) as client:
            (run,) = links(client, "/ui/runs", "/ui/runs/")
            item = next(one for one in links(client, run, "/item") if SHOWN in one)
            page = opened(chromium, address)
            for name, path, heading in (("run", run, "first-run"), ("item", item, SHOWN)):
                go(page, urljoin(address, path), heading)
                for size, (width, height) in SIZES.items():
                    for scheme in ("light", "dark"):
                        if is_for_guide and (size, scheme) != ("", "light"):
                            continue
                        page.prefer(scheme)
                        page.resize(width, height)
                        kind = "" if is_for_guide else f"-{size}{scheme}"
                        file = to / f"console-{name}{kind}.png"
                        file.write_bytes(smaller(page.photograph()))
                        print(f"{file}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
