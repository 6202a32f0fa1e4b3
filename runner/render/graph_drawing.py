"""Draw a pipeline's graph as SVG, HTML page, or Mermaid; layout included.

The SVG loads nothing, has light and dark colours, and can be used with the keyboard. All text is
escaped; a state has a word and a mark besides its colour. The page has the same facts in a table to
which the boxes link.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Literal

from paddock.engine.system.light_dataclasses import dataclass, replace
from paddock.pipelines.plan import Plan

from .graph_model import (
    GraphBox,
    PipelineGraph,
    all_boxes,
    box_text,
    element_id,
    outcome_text,
    pipeline_graph,
    read_last_run,
)
from .html_page import COLOUR_CSS, html_page, render_text

# --- layout: layers from top to bottom, order within a layer, coordinates of boxes and edges. Pure.

# Sugiyama's method: the longest path decides a box's layer; an edge over several layers gets a
# point in each of them, so that it avoids boxes; the order within a layer follows the median of the
# neighbours. A block is laid out separately and is then one box.

CHAR, BOLD_CHAR, PAD, GAP_X, GAP_Y = 7.3, 9.2, 14.0, 28.0, 44.0
"""Widths of a character and a bold one, padding, gaps between boxes."""
MIN_WIDTH, MAX_WIDTH = 132.0, 320.0
LINE, HEAD = 18.0, 56.0
BEND = 14.0
"""Width of an edge that passes a layer."""
SWEEPS = 6


@dataclass(frozen=True, slots=True)
class PlacedBox:
    """A box with its position; (0, 0) is the upper left corner of the picture."""

    box: GraphBox
    x: float
    y: float
    width: float
    height: float
    body: tuple[PlacedBox, ...] = ()
    arrows: tuple[PlacedEdge, ...] = ()

    def moved(self, by_x: float, by_y: float) -> PlacedBox:
        return replace(
            self,
            x=self.x + by_x,
            y=self.y + by_y,
            body=tuple(inner.moved(by_x, by_y) for inner in self.body),
            arrows=tuple(arrow.moved(by_x, by_y) for arrow in self.arrows),
        )


@dataclass(frozen=True, slots=True)
class PlacedEdge:
    """Edge between two boxes, through points."""

    source: str
    target: str
    points: tuple[tuple[float, float], ...]
    """The start, then alternately the end of a straight line and the end of a curve."""

    def moved(self, by_x: float, by_y: float) -> PlacedEdge:
        return replace(self, points=tuple((x + by_x, y + by_y) for x, y in self.points))


@dataclass(frozen=True, slots=True)
class GraphLayout:
    """Positions of all boxes and edges."""

    width: float
    height: float
    boxes: tuple[PlacedBox, ...]
    arrows: tuple[PlacedEdge, ...]


@dataclass(slots=True)
class _LayerSlot:
    """A box, or the point of a passing edge, in its layer."""

    name: str
    width: float
    height: float = 0.0
    x: float = 0.0
    """Centre."""
    top: float = 0.0
    """Of its layer."""
    bottom: float = 0.0
    """Of its layer: edges are straight down to it and curve below."""


def layout_graph(boxes: Sequence[GraphBox]) -> GraphLayout:
    sized = {box.id: _size_box(box) for box in boxes}
    layers: dict[str, int] = {}
    for box in boxes:  # in topological order: each is below its inputs
        layers[box.id] = max((layers[name] + 1 for name in box.reads if name in layers), default=0)
    # The points at which each edge passes layers
    chains: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for box in boxes:
        for source in box.reads:
            if source in layers:
                between = range(layers[source] + 1, layers[box.id])
                chains[source, box.id] = [(n, f"{source}→{box.id}@{n}") for n in between]
    rows: dict[int, list[str]] = {}
    slots: dict[str, _LayerSlot] = {}
    for name, placed_box in sized.items():
        slots[name] = _LayerSlot(name, placed_box.width, placed_box.height)
        rows.setdefault(layers[name], []).append(name)
    for layer, name in chain.from_iterable(chains.values()):
        slots[name] = _LayerSlot(name, BEND)
        rows[layer].append(name)
    links: dict[str, tuple[list[str], list[str]]] = {}
    for (source, target), points in chains.items():
        names = [source, *(name for _, name in points), target]
        for above, below in pairwise(names):
            links.setdefault(above, ([], []))[1].append(below)
            links.setdefault(below, ([], []))[0].append(above)
    ordered = _order_layers([rows[layer] for layer in sorted(rows)], links)
    # Assign x positions: side by side first, then moved towards the neighbours
    y = 0.0
    for row in ordered:
        height, x = max(slots[name].height for name in row), 0.0
        for slot in (slots[name] for name in row):
            slot.x, slot.top, slot.bottom = x + slot.width / 2, y, y + height
            x += slot.width + GAP_X
        y += height + GAP_Y
    for sweep in range(2 * SWEEPS):
        for row in ordered if sweep % 2 == 0 else reversed(ordered):
            targets = [
                _median([slots[o].x for side in links.get(n, ([], [])) for o in side], slots[n].x)
                for n in row
            ]
            _separate([slots[name] for name in row], targets)
    left = min((s.x - s.width / 2 for s in slots.values()), default=0.0)
    for slot in slots.values():
        slot.x -= left
    placed = tuple(
        box.moved(slots[name].x - box.width / 2, slots[name].top) for name, box in sized.items()
    )
    arrows = tuple(
        PlacedEdge(*ends, _edge_points(*ends, [name for _, name in points], slots))
        for ends, points in chains.items()
    )
    width = max((box.x + box.width for box in placed), default=0.0)
    bends = (x for arrow in arrows for x, _ in arrow.points)
    height = max((box.y + box.height for box in placed), default=0.0)
    return GraphLayout(max([width, *bends]), height, placed, arrows)


def _size_box(box: GraphBox) -> PlacedBox:
    if not box.is_block:
        texts = [box.kind, box.model, box_text(box)]
        n_lines = bool(box.label) + sum(bool(text) for text in texts)
        mark = 14.0 if box.last.state != "none" else 0.0
        label = text_width(box.label) * BOLD_CHAR + mark
        widest = max(label, *(text_width(text) * CHAR for text in texts))
        width = min(MAX_WIDTH, max(MIN_WIDTH, widest + 2 * PAD))
        return PlacedBox(box, 0, 0, width, n_lines * LINE + PAD + 6)
    inner = layout_graph(box.body)
    head = text_width(box.label) * BOLD_CHAR + text_width(box.kind) * CHAR
    widest = max(head, text_width(box_text(box)) * CHAR)
    least = min(MAX_WIDTH * 1.5, widest + 3 * PAD + 16)
    width = max(inner.width + 2 * PAD, least, MIN_WIDTH)
    left = (width - inner.width) / 2
    body = tuple(box.moved(left, HEAD) for box in inner.boxes)
    arrows = tuple(arrow.moved(left, HEAD) for arrow in inner.arrows)
    return PlacedBox(box, 0, 0, width, HEAD + inner.height + PAD, body, arrows)


def text_width(text: str) -> int:
    """Return a text's width in characters: Chinese, Japanese, Korean and emoji count double.

    >>> text_width("scan"), text_width("文書"), text_width("é"), text_width("e" + chr(0x301))
    (4, 4, 1, 1)
    """
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def _order_layers(
    rows: list[list[str]], links: Mapping[str, tuple[list[str], list[str]]]
) -> list[list[str]]:
    """Order each layer by the median of its neighbours, alternately downwards and upwards."""
    for sweep in range(SWEEPS):
        side = sweep % 2
        way = range(1, len(rows)) if side == 0 else range(len(rows) - 2, -1, -1)
        for number in way:
            beside = rows[number - 1] if side == 0 else rows[number + 1]
            place = {name: n for n, name in enumerate(beside)}
            own = {name: n for n, name in enumerate(rows[number])}
            rows[number].sort(
                key=lambda name, place=place, own=own, side=side: (  # type: ignore[misc]
                    _median([place[o] for o in links.get(name, ([], []))[side] if o in place],
                            own[name]),
                    own[name],
                )
            )  # fmt: skip
    return rows


def _median(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _separate(row: Sequence[_LayerSlot], targets: Sequence[float]) -> None:
    """Move slots as near to the wanted positions as their order and widths allow."""
    groups: list[tuple[list[_LayerSlot], float]] = []
    for slot, centre in zip(row, targets, strict=True):
        groups.append(([slot], centre))
        while len(groups) > 1:
            (before, at), (after, to) = groups[-2:]
            if _row_start(after, to) >= at + _row_width(before) / 2 + GAP_X:
                break
            n = len(before) + len(after)
            whole = _row_width(before) + GAP_X + _row_width(after)
            first = at - _row_width(before) / 2 + whole / 2
            second = to + _row_width(after) / 2 - whole / 2
            middle = (first * len(before) + second * len(after)) / n
            groups[-2:] = [(before + after, middle)]
    for slots, middle in groups:
        x = _row_start(slots, middle)
        for slot in slots:
            slot.x = x + slot.width / 2
            x += slot.width + GAP_X


def _row_width(slots: Sequence[_LayerSlot]) -> float:
    return sum(slot.width for slot in slots) + GAP_X * (len(slots) - 1)


def _row_start(slots: Sequence[_LayerSlot], middle: float) -> float:
    return middle - _row_width(slots) / 2


def _edge_points(
    source: str, target: str, between: Sequence[str], slots: Mapping[str, _LayerSlot]
) -> tuple[tuple[float, float], ...]:
    first = slots[source]
    points = [(first.x, first.top + first.height), (first.x, first.bottom)]
    for name in between:
        slot = slots[name]
        points += [(slot.x, slot.top), (slot.x, slot.bottom)]
    return (*points, (slots[target].x, slots[target].top))


# --- SVG

MARGIN, TITLE = 16.0, 46.0
_STATE_MARKS = {"none": "", "done": "✓", "fresh": "=", "failed": "✗", "running": "…", "left": "-"}


def graph_svg(scene: PipelineGraph, *, is_inline: bool = False) -> str:
    """Return the SVG; `is_inline` in a page has links to table rows, but no title and style."""
    picture = layout_graph(scene.boxes)
    top = MARGIN if is_inline else MARGIN + TITLE
    widths = (text_width(scene.name) * 10, text_width(scene.caption) * CHAR, 320.0)
    width = max([picture.width, *(() if is_inline else widths)]) + 2 * MARGIN
    height = picture.height + top + MARGIN
    sentences = [
        _box_title(box) + (f", after {', '.join(box.reads)}" if box.reads else "")
        for box, _ in all_boxes(scene.boxes)
    ]
    left = (width - picture.width) / 2
    drawn = render_text(
        "graph.svg",
        scene=scene,
        is_inline=is_inline,
        width=f"{width:.0f}",
        height=f"{height:.0f}",
        words=". ".join([*([scene.caption.rstrip(".")] if scene.caption else []), *sentences]),
        colours=COLOUR_CSS,
        margin=MARGIN,
        room=width,
        arrows=[arrow.moved(left, top) for arrow in picture.arrows],
        boxes=[placed.moved(left, top) for placed in picture.boxes],
        marks=_STATE_MARKS,
        pad=PAD,
        line=LINE,
        fitted=_fitted_text,
        path=_edge_path,
        title=_box_title,
        box_text=box_text,
        element_id=element_id,
        label_end=lambda label, room: min(text_width(label) * BOLD_CHAR, room) + 8,
    )
    return drawn + "\n"


def _box_title(box: GraphBox) -> str:
    return f"{box.label}: {box.kind}" if box.kind else box.label


def _fitted_text(text: str, room: float, is_bold: bool = False) -> str:
    """Return a text cut to a width; the box's title has the whole text."""
    n_most = int(room / (BOLD_CHAR if is_bold else CHAR) + 0.01)
    if text_width(text) <= n_most:
        return text
    shown = text[: max(0, n_most - 1)]
    while text_width(shown) >= max(n_most, 1):
        shown = shown[:-1]
    return f"{shown}…" if shown else ""


def _edge_path(arrow: PlacedEdge) -> str:
    # Downwards: straight next to boxes, curved between layers
    (x, y), *rest = arrow.points
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
    title = " ".join(scene.name.split()).replace("\\", "\\\\").replace('"', '\\"')
    lines = ["---", f'title: "{title}"', "---", "flowchart TD"]
    for box in scene.boxes:
        lines += _mermaid_box(box, "    ")
    for box in scene.boxes:
        lines += _mermaid_edges(box)
    lines += [f"    classDef {name} {style}" for name, style in _MERMAID_CLASSES.items()]
    return "\n".join(lines) + "\n"


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


def graph_page(scene: PipelineGraph) -> str:
    return html_page(
        scene.name,
        "pipeline_graph.html",
        scene=scene,
        picture=graph_svg(scene, is_inline=True),
        steps=list(all_boxes(scene.boxes)),
        element_id=element_id,
        outcome=outcome_text,
    )


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
