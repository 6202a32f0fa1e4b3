"""Draw a pipeline in the form that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from paddock.pipelines.plan import Plan

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
