"""Photograph the review page for README and guides: what waits after the first run.

    python tests/recording/review_page.py          # next to this file, as they have it
    python tests/recording/review_page.py /tmp/x   # light, dark, narrow and while editing

The run is that of `examples/first-run`, by its small model. It needs Chromium.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.runner.api import run
from paddock.runner.core.run_options import RunOptions
from tests.browser import Page, browser
from tests.recording.models_page import smaller
from tests.runner.review.served_page import ServedPage

OUT = Path(__file__).with_name("review-page.png")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples/first-run"
SHOWN = "tides.csv"
WIDE, NARROW = (1240, 560), (390, 1080)


def ran(folder: Path) -> ServedPage:
    """Run the example in an empty folder."""
    left = shutil.ignore_patterns(".paddock", "out")
    shutil.copytree(EXAMPLE, folder, ignore=left, dirs_exist_ok=True)
    run(folder / "pipeline.yaml", options=RunOptions(local=True))
    return ServedPage(folder)


def photograph(page: Page, scheme: str, size: tuple[int, int]) -> bytes:
    page.prefer(scheme)
    page.resize(*size)
    page.wait("document.getElementById('text-parts').textContent")
    page.ask("new Promise((done) => setTimeout(done, 400))")
    return page.photograph()


def main() -> None:
    to = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with (
        tempfile.TemporaryDirectory() as folder,
        browser() as chromium,
        ran(Path(folder)).served() as address,
    ):
        page = chromium.page(address, width=WIDE[0], height=WIDE[1])
        page.wait("document.querySelectorAll('.field').length")
        names = "[...document.querySelectorAll('.row')]"
        page.ask(f"{names}.find((one) => one.textContent.includes('{SHOWN}')).click()")
        page.wait(f"document.getElementById('document-name').textContent === '{SHOWN}'")
        page.press("ArrowUp")
        pictures = {"review-page": photograph(page, "light", WIDE)}
        if to:
            pictures["dark"] = photograph(page, "dark", WIDE)
            pictures["narrow"] = photograph(page, "light", NARROW)
            page.press("e", text="e")
            pictures["editing"] = photograph(page, "light", WIDE)
    for name, picture in pictures.items():
        file = to / f"{name}.png" if to else OUT
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(smaller(picture))
        print(f"{file}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
