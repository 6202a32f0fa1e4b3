"""Photograph the page of a comparison for the guide: two prompts of `examples/choose-a-model`.

    python tests/recording/compare_page.py          # next to this file, as the guide has it
    python tests/recording/compare_page.py /tmp/x   # light, dark and narrow

The comparison is real, by the example's small model. It needs Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.browser import browser
from tests.recording.models_page import smaller

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "choose-a-model"
SIZES = {"compare-page": (1200, 1290), "narrow": (390, 1200)}


def compared(folder: Path) -> Path:
    """Compare the example's two prompts; return the page."""
    work = folder / "choose-a-model"
    shutil.copytree(EXAMPLE, work, ignore=shutil.ignore_patterns(".paddock", "out"))
    paddock = str(Path(sys.executable).with_name("paddock"))
    varied = "label=prompts/plain.md,prompts/turns.prompt.yml"
    report = work / "compare.html"
    command = [paddock, "compare", ".", "--prompt", varied, "--report", str(report)]
    subprocess.run(command, cwd=work, check=True)
    return report


def main() -> None:
    """Take the pictures."""
    is_for_guide = len(sys.argv) < 2
    to = Path(__file__).parent if is_for_guide else Path(sys.argv[1])
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        page = compared(Path(folder))
        for name, (width, height) in SIZES.items():
            shown = chromium.page(page.as_uri(), width=width, height=height)
            shown.ask("document.querySelector('details').open = true")
            for mode in ("light", "dark"):
                if is_for_guide and (name, mode) != ("compare-page", "light"):
                    continue
                shown.prefer(mode)
                file = to / (f"{name}.png" if is_for_guide else f"{name}-{mode}.png")
                file.write_bytes(smaller(shown.photograph()))
                print(f"{file}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
