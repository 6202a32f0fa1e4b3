"""Photograph the review page for the guide: an invoice, its values with their places, decisions.

    python tests/recording/review_page.py          # next to this file, as the guide has it
    python tests/recording/review_page.py /tmp/x   # light, dark, narrow and while editing

The documents are those of `examples/invoices-reviewed`; a stand-in for the model says what a small
one might. It needs Chromium; with `pngquant` installed the pictures are a third as large.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.runner.api import run
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from tests.browser import Page, browser
from tests.fakes.clerk import Said, clerk, pipeline
from tests.recording.status_page import smaller
from tests.runner.review.served_page import ServedPage
from tests.runner.world import settings

OUT = Path(__file__).with_name("review-page.png")
INBOX = Path(__file__).resolve().parents[2] / "examples/invoices-reviewed/inbox"
WIDE, NARROW = (1240, 720), (390, 1250)
ANSWERS = {
    "2024-118": Said({"number": "2024-118", "total": 1320.0, "pay_by": "2024-07-16"},
                     {"total": (0.71, "1100.0"), "pay_by": (0.38, "2024-06-17")}),
    "HC-0457": Said({"number": "HC-0457", "total": 1234.5, "pay_by": "2024-03-05"},
                    {"pay_by": (0.52, "2024-05-03")}),
    "S 88": Said({"number": "S 88", "total": 84.0, "pay_by": "2024-04-11"}, {"total": (0.6, "48")}),
    "T-5512": Said({"number": "T-5512", "total": 61.4, "pay_by": "2024-01-01"}),
}  # fmt: skip
DOCUMENTS = ("boatyard.pdf", "chandlery.pdf", "sailmaker.pdf", "tides.csv")


def ran(folder: Path) -> ServedPage:
    """Run the guide's pipeline on the example's invoices."""
    (folder / "inbox").mkdir()
    for name in DOCUMENTS:
        shutil.copy(INBOX / name, folder / "inbox" / name)
    own = replace(settings(folder), allow=frozenset(["network"]))
    with clerk(ANSWERS) as model:
        (folder / "bills.yaml").write_text(pipeline(model.url))
        run(folder / "bills.yaml", None, RunOptions(local=True), RunEnvironment(settings=own))
    return ServedPage(folder)


def photograph(page: Page, scheme: str, size: tuple[int, int]) -> bytes:
    page.prefer(scheme)
    page.resize(*size)
    page.wait("document.getElementById('image').naturalWidth > 0")
    page.wait("!document.getElementById('picture').hidden")
    page.ask("new Promise((done) => setTimeout(done, 400))")
    return page.photograph()


def main() -> None:
    """Take the pictures."""
    to = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with (
        tempfile.TemporaryDirectory() as folder,
        browser() as chromium,
        ran(Path(folder)).served() as address,
    ):
        page = chromium.page(address, width=WIDE[0], height=WIDE[1])
        page.wait("document.querySelectorAll('.field').length")
        names = "[...document.querySelectorAll('.row')]"
        page.ask(f"{names}.find((one) => one.textContent.includes('boatyard')).click()")
        page.wait("document.getElementById('document-name').textContent === 'boatyard.pdf'")
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
