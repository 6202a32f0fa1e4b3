"""Photograph the pages of a run for the README: the plan with its states, and the report.

    python tests/recording/pages.py          # next to this file, as the README has them
    python tests/recording/pages.py /tmp/x   # elsewhere

The run is real: eight documents of the example, and one that cannot be read. It needs Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.browser import Browser, browser
from tests.recording.models_page import smaller

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    "articles/spring-tea.zh.md", "council/bus-petition.txt", "letters/boiler.txt",
    "letters/reference.md", "notes/bees.md", "notes/signalman-interview.txt",
    "notes/visitor-book.csv", "reports/report.md",
)  # fmt: skip
SIZES = {"plan": (1000, 1190), "report": (1200, 1560)}


def ran(folder: Path) -> Path:
    """Run the example on some documents; gives the folder with the pages."""
    example = ROOT / "examples" / "folder-digest"
    work = folder / "folder-digest"
    left = shutil.ignore_patterns(".paddock", "summaries", "inbox")
    shutil.copytree(example, work, ignore=left)
    for name in DOCUMENTS:
        (work / "inbox" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(example / "inbox" / name, work / "inbox" / name)
    (work / "inbox" / "scan.pdf").write_bytes(b"%PDF-1.7 torn")
    paddock = str(Path(sys.executable).with_name("paddock"))
    for arguments in (
        ["run", str(work), "--local", "--report", str(work / "report.html")],
        ["graph", str(work), "-o", str(work / "plan.html")],
    ):
        done = subprocess.run([paddock, *arguments], check=False)
        assert done.returncode in (0, 3), "3: one document is quarantined, as it should be"
    return work


def photographed(chromium: Browser, page: Path, size: tuple[int, int]) -> bytes:
    shown = chromium.page(page.as_uri(), width=size[0], height=size[1])
    shown.prefer("light")
    return shown.photograph()


def main() -> None:
    to = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        work = ran(Path(folder))
        for name, size in SIZES.items():
            file = to / f"{name}.png"
            file.write_bytes(smaller(photographed(chromium, work / f"{name}.html", size)))
            print(f"{file}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
