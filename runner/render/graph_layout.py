"""Graph layout: layers from top to bottom, order within a layer, coordinates of boxes and edges.

Pure. Sugiyama's method: the longest path decides a box's layer; an edge over several layers gets a
point in each of them, so that it avoids boxes; the order within a layer follows the median of the
neighbours. A block is laid out separately and is then one box.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from .graph_model import GraphBox, box_text

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
    layers = _assign_layers(boxes)
    chains = _edge_chains(boxes, layers)
    slots = {box.id: _LayerSlot(box.id, sized[box.id].width, sized[box.id].height) for box in boxes}
    rows: dict[int, list[str]] = {}
    for box in boxes:
        rows.setdefault(layers[box.id], []).append(box.id)
    for points in chains.values():
        for layer, name in points:
            slots[name] = _LayerSlot(name, BEND)
            rows[layer].append(name)
    links = _slot_neighbours(chains)
    ordered = _order_layers([rows[layer] for layer in sorted(rows)], links)
    _assign_positions(ordered, slots, links)
    placed = tuple(
        sized[box.id].moved(slots[box.id].x - slots[box.id].width / 2, slots[box.id].top)
        for box in boxes
    )
    arrows = tuple(
        PlacedEdge(*ends, _edge_points(*ends, [name for _, name in points], slots))
        for ends, points in chains.items()
    )
    width = max((one.x + one.width for one in placed), default=0.0)
    bends = (x for arrow in arrows for x, _ in arrow.points)
    height = max((one.y + one.height for one in placed), default=0.0)
    return GraphLayout(max([width, *bends]), height, placed, arrows)


def _size_box(box: GraphBox) -> PlacedBox:
    """Return a box with its size, and the positions of a block's body in it."""
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
    body = tuple(one.moved(left, HEAD) for one in inner.boxes)
    arrows = tuple(arrow.moved(left, HEAD) for arrow in inner.arrows)
    return PlacedBox(box, 0, 0, width, HEAD + inner.height + PAD, body, arrows)


def text_width(text: str) -> int:
    """Return a text's width in characters: Chinese, Japanese, Korean and emoji count double.

    >>> text_width("scan"), text_width("文書"), text_width("é"), text_width("e" + chr(0x301))
    (4, 4, 1, 1)
    """
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def _assign_layers(boxes: Sequence[GraphBox]) -> dict[str, int]:
    """Return each box's layer, below its inputs. Boxes are in topological order."""
    layers: dict[str, int] = {}
    for box in boxes:
        layers[box.id] = max((layers[name] + 1 for name in box.reads if name in layers), default=0)
    return layers


_Chains = dict[tuple[str, str], list[tuple[int, str]]]


def _edge_chains(boxes: Sequence[GraphBox], layers: Mapping[str, int]) -> _Chains:
    """Return the points at which each edge passes layers."""
    chains: _Chains = {}
    for box in boxes:
        for source in box.reads:
            if source in layers:
                between = range(layers[source] + 1, layers[box.id])
                chains[source, box.id] = [(n, f"{source}→{box.id}@{n}") for n in between]
    return chains


def _slot_neighbours(chains: _Chains) -> dict[str, tuple[list[str], list[str]]]:
    """Return the neighbours above and below each slot."""
    links: dict[str, tuple[list[str], list[str]]] = {}
    for (source, target), points in chains.items():
        names = [source, *(name for _, name in points), target]
        for above, below in pairwise(names):
            links.setdefault(above, ([], []))[1].append(below)
            links.setdefault(below, ([], []))[0].append(above)
    return links


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


def _assign_positions(
    rows: Sequence[Sequence[str]],
    slots: Mapping[str, _LayerSlot],
    links: Mapping[str, tuple[list[str], list[str]]],
) -> None:
    """Assign x positions: side by side first, then moved towards the neighbours."""
    y = 0.0
    for row in rows:
        height = max(slots[name].height for name in row)
        x = 0.0
        for name in row:
            slot = slots[name]
            slot.x, slot.top, slot.bottom = x + slot.width / 2, y, y + height
            x += slot.width + GAP_X
        y += height + GAP_Y
    for sweep in range(2 * SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = [
                _median([slots[o].x for side in links.get(n, ([], [])) for o in side], slots[n].x)
                for n in row
            ]
            _separate([slots[name] for name in row], wanted)
    left = min((s.x - s.width / 2 for s in slots.values()), default=0.0)
    for slot in slots.values():
        slot.x -= left


def _separate(row: Sequence[_LayerSlot], wanted: Sequence[float]) -> None:
    """Move slots as near to the wanted positions as their order and widths allow."""
    groups: list[tuple[list[_LayerSlot], float]] = []
    for slot, centre in zip(row, wanted, strict=True):
        groups.append(([slot], centre))
        while len(groups) > 1 and _row_start(*groups[-1]) < _row_end(*groups[-2]) + GAP_X:
            (before, at), (after, to) = groups[-2:]
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


def _row_end(slots: Sequence[_LayerSlot], middle: float) -> float:
    return middle + _row_width(slots) / 2


def _edge_points(
    source: str, target: str, between: Sequence[str], slots: Mapping[str, _LayerSlot]
) -> tuple[tuple[float, float], ...]:
    """Return an edge's points, as in `PlacedEdge.points`."""
    first = slots[source]
    points = [(first.x, first.top + first.height), (first.x, first.bottom)]
    for name in between:
        slot = slots[name]
        points += [(slot.x, slot.top), (slot.x, slot.bottom)]
    return (*points, (slots[target].x, slots[target].top))
