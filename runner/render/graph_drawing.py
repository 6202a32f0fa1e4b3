"""Draw a pipeline's graph as SVG, HTML page, or Mermaid.

The SVG loads nothing, has light and dark colours, and can be used with the keyboard. All text is
escaped; a state has a word and a mark besides its colour. The page has the same facts in a table to
which the boxes link.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Literal

from paddock.pipelines.plan import Plan

from .graph_layout import (
    BOLD_CHAR,
    CHAR,
    LINE,
    PAD,
    PlacedBox,
    PlacedEdge,
    layout_graph,
    text_width,
)
from .graph_model import (
    GraphBox,
    PipelineGraph,
    all_boxes,
    box_text,
    element_id,
    outcome_text,
    pipeline_graph,
    read_last_run,
    seconds_text,
)
from .html_page import COLOUR_CSS, html_cell, html_page, html_table, number_cell

MARGIN, TITLE = 16.0, 46.0
_STATE_MARKS = {"none": "", "done": "✓", "fresh": "=", "failed": "✗", "running": "…", "left": "-"}


def graph_svg(scene: PipelineGraph, *, is_inline: bool = False) -> str:
    """Return the SVG; `is_inline` in a page has links to table rows, but no title and style."""
    picture = layout_graph(scene.boxes)
    top = MARGIN if is_inline else MARGIN + TITLE
    width = max(picture.width + 2 * MARGIN, 0.0 if is_inline else _min_width(scene))
    height = picture.height + top + MARGIN
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="graph" {size} role="group" '
        f'aria-labelledby="graph-title graph-words">',
        f'<title id="graph-title">{escape(scene.name)}</title>',
        f'<desc id="graph-words">{escape(_graph_text(scene))}</desc>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path class="tip" d="M0 0 8 4 0 8z"/></marker></defs>',
    ]
    if not is_inline:
        lines.append(f"<style>{COLOUR_CSS}</style>")
        lines.append(f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>')
        title = _fitted_text(scene.name, width)
        lines.append(f'<text class="name" x="{MARGIN}" y="{MARGIN + 16}">{title}</text>')
        caption = _fitted_text(scene.caption, width)
        lines.append(f'<text class="caption" x="{MARGIN}" y="{MARGIN + 36}">{caption}</text>')
    left = (width - picture.width) / 2
    for arrow in picture.arrows:
        lines.append(_svg_edge(arrow.moved(left, top)))
    for placed in picture.boxes:
        lines += _svg_box(placed.moved(left, top), is_inline=is_inline)
    lines.append("</svg>")
    return "\n".join(lines) + "\n"


def _min_width(scene: PipelineGraph) -> float:
    return max(text_width(scene.name) * 10, text_width(scene.caption) * CHAR, 320.0) + 2 * MARGIN


def _graph_text(scene: PipelineGraph) -> str:
    said = [
        _box_title(box) + (f", after {', '.join(box.reads)}" if box.reads else "")
        for box in all_boxes(scene.boxes)
    ]
    return ". ".join([*([scene.caption.rstrip(".")] if scene.caption else []), *said])


def _box_title(box: GraphBox) -> str:
    return f"{box.label}: {box.kind}" if box.kind else box.label


def _svg_box(placed: PlacedBox, *, is_inline: bool) -> Iterator[str]:
    box = placed.box
    kind = "block" if box.is_block else "step"
    words = _box_title(box)
    words += f", model {box.model}" if box.model else ""
    words += f". {box_text(box)}" if box_text(box) else ""
    link = f'href="#row-{element_id(box.id)}"' if is_inline else 'tabindex="0"'
    tag = "a" if is_inline else "g"
    conditional = " conditional" if box.is_conditional else ""
    role = "" if is_inline else ' role="img"'
    if not box.is_block or is_inline:
        yield f'<{tag} {link}{role} class="{kind} {box.last.state}{conditional}" ' + (
            f'aria-label="{escape(words)}">'
        )
    else:  # a role would hide its content from screen readers
        yield f'<g class="{kind} {box.last.state}{conditional}" aria-label="{escape(words)}">'
    yield f"<title>{escape(words)}</title>"
    yield (
        f'<rect x="{placed.x:.1f}" y="{placed.y:.1f}" width="{placed.width:.1f}" '
        f'height="{placed.height:.1f}" rx="8"/>'
    )
    yield from _svg_texts(placed)
    if is_inline:
        yield "</a>"
    for arrow in placed.arrows:
        yield _svg_edge(arrow)
    for inner in placed.body:
        yield from _svg_box(inner, is_inline=is_inline)
    if not is_inline:
        yield "</g>"


def _svg_texts(placed: PlacedBox) -> Iterator[str]:
    box = placed.box
    room = placed.width - 2 * PAD
    mark = _STATE_MARKS[box.last.state]
    x, y = placed.x + PAD, placed.y + LINE + 3
    if box.is_block:
        at = x + min(text_width(box.label) * BOLD_CHAR, room) + 8
        yield _svg_text("id", x, y, box.label, room)
        yield _svg_text("kind", at, y, box.kind, room - (at - x) - (14 if mark else 0))
        lines = [("state", box_text(box))]
    else:
        yield _svg_text("id", x, y, box.label, room - (14 if mark else 0))
        lines = [("kind", box.kind), ("model", box.model), ("state", box_text(box))]
    if mark:
        right = placed.x + placed.width - PAD
        yield f'<text class="mark" x="{right:.1f}" y="{y:.1f}">{mark}</text>'
    for name, text in lines:
        if text:
            y += LINE
            yield _svg_text(name, x, y, text, room)


def _svg_text(name: str, x: float, y: float, text: str, room: float) -> str:
    cut = _fitted_text(text, room, BOLD_CHAR if name == "id" else CHAR)
    return f'<text class="{name}" x="{x:.1f}" y="{y:.1f}">{cut}</text>' if cut else ""


def _fitted_text(text: str, room: float, char: float = CHAR) -> str:
    """Return a text cut to a width, escaped; the box's title has the whole text."""
    n_most = int(room / char + 0.01)
    if text_width(text) <= n_most:
        return escape(text)
    shown = text[: max(0, n_most - 1)]
    while text_width(shown) >= max(n_most, 1):
        shown = shown[:-1]
    return escape(f"{shown}…") if shown else ""


def _svg_edge(arrow: PlacedEdge) -> str:
    return f'<path class="arrow" marker-end="url(#tip)" d="{_svg_path(arrow.points)}"/>'


def _svg_path(points: Sequence[tuple[float, float]]) -> str:
    """Return a path downwards: straight next to boxes, curved between layers."""
    (x, y), *rest = points
    path = f"M{x:.1f} {y:.1f}"
    for number, (to_x, to_y) in enumerate(rest):
        if number % 2 == 0:
            path += f"V{to_y:.1f}"
        else:
            middle = (y + to_y) / 2
            path += f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"
        x, y = to_x, to_y
    return path


_MERMAID_CLASSES = {
    "done": "stroke:#1a7f37,stroke-width:2px",
    "fresh": "stroke:#0969da,stroke-width:2px",
    "failed": "stroke:#cf222e,stroke-width:3px",
    "running": "stroke:#9a6700,stroke-width:2px",
    "left": "stroke:#656d76,stroke-dasharray:5 3",
}


def graph_mermaid(scene: PipelineGraph) -> str:
    """Return the graph as a flow chart, from top to bottom."""
    lines = ["---", f"title: {_mermaid_title(scene.name)}", "---", "flowchart TD"]
    for box in scene.boxes:
        lines += _mermaid_box(box, "    ")
    for box in scene.boxes:
        lines += _mermaid_edges(box)
    lines += [f"    classDef {name} {style}" for name, style in _MERMAID_CLASSES.items()]
    return "\n".join(lines) + "\n"


def _mermaid_title(name: str) -> str:
    return '"' + " ".join(name.split()).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _mermaid_box(box: GraphBox, indent: str) -> Iterator[str]:
    texts = map(_mermaid_text, (box.kind, box.model, box_text(box)))
    words = "<br/>".join(filter(None, (f"<b>{_mermaid_text(box.label)}</b>", *texts)))
    yield f'{indent}{"subgraph " if box.is_block else ""}{_mermaid_id(box.id)}["{words}"]'
    if box.is_block:
        for inner in box.body:
            yield from _mermaid_box(inner, indent + "    ")
        yield f"{indent}end"
    if box.last.state in _MERMAID_CLASSES:
        yield f"{indent}class {_mermaid_id(box.id)} {box.last.state}"


def _mermaid_edges(box: GraphBox) -> Iterator[str]:
    for source in box.reads:
        yield f"    {_mermaid_id(source)} --> {_mermaid_id(box.id)}"
    for inner in box.body:
        yield from _mermaid_edges(inner)


def _mermaid_id(name: str) -> str:
    """Return an id that is not a Mermaid keyword such as `end`."""
    return f"n_{element_id(name)}"


def _mermaid_text(text: str) -> str:
    return "".join(
        char if char.isalnum() or char in " .,:=·_-/()" else f"#{ord(char)};"
        for char in " ".join(text.split())
    )


_TABLE_HEADS = (
    "Step", "Does", "Model", "After", "Last run", "#Times", "#Took", "#Calls", "#Tokens",
)  # fmt: skip


def graph_page(scene: PipelineGraph) -> str:
    """Return the graph and a table of its steps as an HTML page."""
    return html_page(scene.name, _page_parts(scene))


def _page_parts(scene: PipelineGraph) -> Iterator[str]:
    yield f"<h1>{escape(scene.name)}</h1>"
    if scene.description:
        yield f"<p>{escape(scene.description)}</p>"
    yield f'<p class="soft">{escape(scene.caption)}</p>'
    yield '<h2 id="picture">The plan</h2>'
    yield (
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="picture">'
        f"{graph_svg(scene, is_inline=True)}</div>"
    )
    yield "<h2>Its steps</h2>"
    note = "Times of concurrent items are added up."
    yield html_table("Steps", _TABLE_HEADS, _table_rows(scene.boxes, 0), note=note)


def _table_rows(boxes: Iterable[GraphBox], depth: int) -> Iterator[str]:
    for box in boxes:
        yield _table_row(box, depth)
        yield from _table_rows(box.body, depth + 1)


def _table_row(box: GraphBox, depth: int) -> str:
    last = box.last
    cells = (
        f'<th scope="row" style="padding-left:{0.6 + 1.2 * depth:.1f}rem">{escape(box.label)}</th>',
        html_cell(box.kind),
        html_cell(box.model),
        html_cell(", ".join(box.reads)),
        html_cell(outcome_text(last), f"s-{last.state}"),
        number_cell(last.n),
        html_cell(seconds_text(last.seconds) if last.seconds >= 0.05 else "", "n"),
        number_cell(last.calls),
        number_cell(last.tokens),
    )
    return f'<tr id="row-{element_id(box.id)}">{"".join(cells)}</tr>'


GraphFormat = Literal["svg", "html", "mermaid"]
FORMAT_OF_SUFFIX: dict[str, GraphFormat] = {
    ".svg": "svg", ".html": "html", ".htm": "html", ".mmd": "mermaid", ".mermaid": "mermaid",
}  # fmt: skip
"""Format by the file's suffix."""


def draw_graph(
    plan: Plan, file: Path, format_: GraphFormat, within: Mapping[Path, Plan] | None = None
) -> str:
    """Return a pipeline's graph with states and times of its last run.

    `within` are sub-pipelines by file, which are drawn in the steps that run them.
    """
    last = read_last_run(file)
    scene = pipeline_graph(plan, last.steps, last.otherwise, last.words, within)
    if format_ == "svg":
        return graph_svg(scene)
    return graph_page(scene) if format_ == "html" else graph_mermaid(scene)
