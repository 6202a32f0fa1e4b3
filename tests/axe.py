"""axe-core of npm in the tests' Chromium: faults of accessibility that a machine can find."""

from pathlib import Path

import pytest

from tests.browser import CHROMIUM, Page

_FILE = Path(__file__).parent / "conformance/javascript/node_modules/axe-core/axe.min.js"
_RUN = """\
axe.run(document, {resultTypes: ["violations"]}).then((found) => found.violations.map(
  (one) => `${one.impact} ${one.id}: ${one.nodes.map((node) => node.html.slice(0, 200))}`
))
"""

needs_axe = pytest.mark.skipif(
    CHROMIUM is None or not _FILE.is_file(),
    reason=f"ACCESSIBILITY WAS NOT TRIED: install Chromium and Node.js, then npm install --prefix "
    f"{_FILE.parents[2]}",
)


def faults(page: Page) -> list[str]:
    """Return what breaks a rule on a page as it is shown now, the gravest first."""
    if not page.ask("'axe' in window"):
        page.ask(_FILE.read_text("utf-8") + ";0")
    found: list[str] = page.ask(_RUN)
    return sorted(found)
