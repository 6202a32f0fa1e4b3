"""Draw pipelines, and write pictures and pages to files, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from paddock.pipelines.plan import Plan
from paddock.steps.aside import Aside

from .graph_page import graph_page
from .last_run import last_run
from .mermaid import mermaid_of
from .scene import scene_of
from .svg import svg_of

Format = Literal["svg", "html", "mermaid"]
FORMATS: dict[str, Format] = {
    ".svg": "svg", ".html": "html", ".htm": "html", ".mmd": "mermaid", ".mermaid": "mermaid",
}  # fmt: skip
"""By a file's ending."""


def graph(
    plan: Plan, file: Path, format_: Format, within: Mapping[Path, Plan] | None = None
) -> str:
    """Give a pipeline's picture, with the states and times of its last run.

    `within` are the pipelines that its steps run, by their files: they are drawn in the steps.
    """
    last = last_run(file)
    scene = scene_of(plan, last.steps, last.otherwise, last.words, within)
    if format_ == "svg":
        return svg_of(scene)
    return graph_page(scene) if format_ == "html" else mermaid_of(scene)


def write(target: Path, text: str) -> None:
    """Write a file aside and rename it.

    Raises:
        OSError: it cannot be written; names the file that was asked for.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Aside.written(target, text.encode("utf-8", "backslashreplace"))
        try:
            aside.replace(target)
        finally:
            aside.close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
