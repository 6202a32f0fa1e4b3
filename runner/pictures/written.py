"""Write pictures and reports to files, whole or not at all. The door of this closet."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from paddock.pipelines.plan import Plan
from paddock.runner.history.past import Past, named
from paddock.runner.history.places import STATE_FOLDER, Place
from paddock.runner.ledger.entries import LedgerError
from paddock.steps.aside import Aside

from .graph_page import graph_page
from .last_run import last_run
from .mermaid import mermaid_of
from .report_page import report_page
from .scene import scene_of
from .story import story_of
from .svg import svg_of

Format = Literal["svg", "html", "mermaid"]
FORMATS: dict[str, Format] = {
    ".svg": "svg", ".html": "html", ".htm": "html", ".mmd": "mermaid", ".mermaid": "mermaid",
}  # fmt: skip
"""By a file's ending."""


def graph(plan: Plan, file: Path, format_: Format) -> str:
    """Give a pipeline's picture, with the states and times of its last run."""
    last, caption = last_run(file)
    scene = scene_of(plan, last, caption)
    if format_ == "svg":
        return svg_of(scene)
    return graph_page(scene) if format_ == "html" else mermaid_of(scene)


def write_report(file: Path, run: str, target: Path) -> None:
    """Write a run of a pipeline as one page.

    Raises:
        LedgerError: the ledger cannot be read.
        OSError: the file cannot be written.
    """
    found = named([Place(file.absolute().parent / STATE_FOLDER)], run)
    if found.faults and not found.runs:
        raise LedgerError(found.faults[0])
    for past in found.runs[:1]:
        write_story(past, target)


def write_story(past: Past, target: Path) -> None:
    """Write a run as one page."""
    write(target, report_page(story_of(past), target))


def write(target: Path, text: str) -> None:
    """Write a file aside and rename it.

    Raises:
        OSError: it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Aside.written(target, text.encode("utf-8", "backslashreplace"))
    try:
        aside.replace(target)
    finally:
        aside.close()
