"""Where the boxes of a picture lie and how the arrows go: layers from top to bottom. Pure.

After Sugiyama: the longest path gives a box its layer, arrows over several layers get a point in
each of them, so that they go round boxes, the order within a layer follows the neighbours' middle.
A block is laid out by itself and is then one box.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from .scene import Box, in_words

CHAR, BOLD, PAD, GAP_X, GAP_Y = 7.3, 9.2, 14.0, 28.0, 44.0
"""What a letter takes, one of a name too, and the room between."""
LEAST_WIDTH, MOST_WIDTH = 132.0, 320.0
LINE, HEAD = 18.0, 56.0
BEND = 14.0
"""The room that an arrow takes which passes a layer."""
SWEEPS = 6


@dataclass(frozen=True, slots=True)
class Placed:
    """A box with its place; coordinates are of the picture, its upper left corner is (0, 0)."""

    box: Box
    x: float
    y: float
    width: float
    height: float
    body: tuple[Placed, ...] = ()
    arrows: tuple[Arrow, ...] = ()

    def moved(self, by_x: float, by_y: float) -> Placed:
        """Give the same elsewhere."""
        return replace(
            self,
            x=self.x + by_x,
            y=self.y + by_y,
            body=tuple(inner.moved(by_x, by_y) for inner in self.body),
            arrows=tuple(arrow.moved(by_x, by_y) for arrow in self.arrows),
        )


@dataclass(frozen=True, slots=True)
class Arrow:
    """From one box to another, through points."""

    source: str
    target: str
    points: tuple[tuple[float, float], ...]
    """The beginning, then in turn the end of a straight line and the end of a bend."""

    def moved(self, by_x: float, by_y: float) -> Arrow:
        """Give the same elsewhere."""
        return replace(self, points=tuple((x + by_x, y + by_y) for x, y in self.points))


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything with its place."""

    width: float
    height: float
    boxes: tuple[Placed, ...]
    arrows: tuple[Arrow, ...]


@dataclass(slots=True)
class _Slot:
    """A box, or the point of an arrow that passes, in its layer."""

    name: str
    width: float
    height: float = 0.0
    x: float = 0.0
    """Of its middle."""
    top: float = 0.0
    """Of its layer, where it lies."""
    bottom: float = 0.0
    """Of its layer: arrows go straight to it and bend below, where no box lies."""


def lay_out(boxes: Sequence[Box]) -> Picture:
    """Give every box and arrow its place."""
    sized = {box.id: _sized(box) for box in boxes}
    layers = _layers(boxes)
    chains = _chains(boxes, layers)
    slots = {box.id: _Slot(box.id, sized[box.id].width, sized[box.id].height) for box in boxes}
    rows: dict[int, list[str]] = {}
    for box in boxes:
        rows.setdefault(layers[box.id], []).append(box.id)
    for points in chains.values():
        for layer, name in points:
            slots[name] = _Slot(name, BEND)
            rows[layer].append(name)
    links = _links(chains)
    ordered = _ordered([rows[layer] for layer in sorted(rows)], links)
    _place(ordered, slots, links)
    placed = tuple(
        sized[box.id].moved(slots[box.id].x - slots[box.id].width / 2, slots[box.id].top)
        for box in boxes
    )
    arrows = tuple(
        Arrow(source, target, _points(source, target, [name for _, name in points], slots))
        for (source, target), points in chains.items()
    )
    width = max((one.x + one.width for one in placed), default=0.0)
    bends = (x for arrow in arrows for x, _ in arrow.points)
    height = max((one.y + one.height for one in placed), default=0.0)
    return Picture(max([width, *bends]), height, placed, arrows)


def _sized(box: Box) -> Placed:
    """Give a box its size, and a block's body its place within it."""
    if not box.is_block:
        texts = [box.label, box.kind, box.model, in_words(box)]
        n_lines = sum(bool(text) for text in texts)
        mark = 14.0 if box.last.state != "none" else 0.0
        widths = [length(box.label) * BOLD + mark, *(length(text) * CHAR for text in texts[1:])]
        width = min(MOST_WIDTH, max(LEAST_WIDTH, max(widths) + 2 * PAD))
        return Placed(box, 0, 0, width, n_lines * LINE + PAD + 6)
    inner = lay_out(box.body)
    heads = [length(box.label) * BOLD + length(box.kind) * CHAR, length(in_words(box)) * CHAR]
    least = min(MOST_WIDTH * 1.5, max(heads) + 3 * PAD + 16)
    width = max(inner.width + 2 * PAD, least, LEAST_WIDTH)
    left = (width - inner.width) / 2
    body = tuple(one.moved(left, HEAD) for one in inner.boxes)
    arrows = tuple(arrow.moved(left, HEAD) for arrow in inner.arrows)
    return Placed(box, 0, 0, width, HEAD + inner.height + PAD, body, arrows)


def length(text: str) -> int:
    """Give how many letters' room a text takes: Chinese, Japanese, Korean and emoji take two.

    >>> length("scan"), length("文書"), length("é"), length("e" + chr(0x301))
    (4, 4, 1, 1)
    """
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def _layers(boxes: Sequence[Box]) -> dict[str, int]:
    """Give each box its layer: below all that it waits for. Boxes come in an order that works."""
    layers: dict[str, int] = {}
    for box in boxes:
        layers[box.id] = max((layers[name] + 1 for name in box.reads if name in layers), default=0)
    return layers


_Chains = dict[tuple[str, str], list[tuple[int, str]]]


def _chains(boxes: Sequence[Box], layers: Mapping[str, int]) -> _Chains:
    """Give each arrow the points at which it passes layers."""
    chains: _Chains = {}
    for box in boxes:
        for source in box.reads:
            if source in layers:
                between = range(layers[source] + 1, layers[box.id])
                chains[source, box.id] = [(n, f"{source}→{box.id}@{n}") for n in between]
    return chains


def _links(chains: _Chains) -> dict[str, tuple[list[str], list[str]]]:
    """Give what is above and below each slot."""
    links: dict[str, tuple[list[str], list[str]]] = {}
    for (source, target), points in chains.items():
        names = [source, *(name for _, name in points), target]
        for above, below in pairwise(names):
            links.setdefault(above, ([], []))[1].append(below)
            links.setdefault(below, ([], []))[0].append(above)
    return links


def _ordered(
    rows: list[list[str]], links: Mapping[str, tuple[list[str], list[str]]]
) -> list[list[str]]:
    """Order each layer by the middle of its neighbours, downwards and upwards in turn."""
    for sweep in range(SWEEPS):
        side = sweep % 2
        way = range(1, len(rows)) if side == 0 else range(len(rows) - 2, -1, -1)
        for number in way:
            beside = rows[number - 1] if side == 0 else rows[number + 1]
            place = {name: n for n, name in enumerate(beside)}
            own = {name: n for n, name in enumerate(rows[number])}
            rows[number].sort(
                key=lambda name, place=place, own=own, side=side: (  # type: ignore[misc]
                    _middle([place[o] for o in links.get(name, ([], []))[side] if o in place],
                            own[name]),
                    own[name],
                )
            )  # fmt: skip
    return rows


def _middle(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _place(
    rows: Sequence[Sequence[str]],
    slots: Mapping[str, _Slot],
    links: Mapping[str, tuple[list[str], list[str]]],
) -> None:
    """Give each slot its middle: side by side, then drawn towards its neighbours."""
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
            wished = [
                _middle([slots[o].x for side in links.get(n, ([], [])) for o in side], slots[n].x)
                for n in row
            ]
            _spread([slots[name] for name in row], wished)
    left = min((s.x - s.width / 2 for s in slots.values()), default=0.0)
    for slot in slots.values():
        slot.x -= left


def _spread(row: Sequence[_Slot], wished: Sequence[float]) -> None:
    """Put slots as near to where they wish to be as their order and widths allow."""
    groups: list[tuple[list[_Slot], float]] = []
    for slot, wish in zip(row, wished, strict=True):
        groups.append(([slot], wish))
        while len(groups) > 1 and _start(*groups[-1]) < _end(*groups[-2]) + GAP_X:
            (before, at), (after, to) = groups[-2:]
            n = len(before) + len(after)
            whole = _width(before) + GAP_X + _width(after)
            first = at - _width(before) / 2 + whole / 2
            second = to + _width(after) / 2 - whole / 2
            middle = (first * len(before) + second * len(after)) / n
            groups[-2:] = [(before + after, middle)]
    for slots, middle in groups:
        x = _start(slots, middle)
        for slot in slots:
            slot.x = x + slot.width / 2
            x += slot.width + GAP_X


def _width(slots: Sequence[_Slot]) -> float:
    return sum(slot.width for slot in slots) + GAP_X * (len(slots) - 1)


def _start(slots: Sequence[_Slot], middle: float) -> float:
    return middle - _width(slots) / 2


def _end(slots: Sequence[_Slot], middle: float) -> float:
    return middle + _width(slots) / 2


def _points(
    source: str, target: str, between: Sequence[str], slots: Mapping[str, _Slot]
) -> tuple[tuple[float, float], ...]:
    """Give where an arrow begins, and in turn where it goes straight to and where it bends to."""
    first = slots[source]
    points = [(first.x, first.top + first.height), (first.x, first.bottom)]
    for name in between:
        slot = slots[name]
        points += [(slot.x, slot.top), (slot.x, slot.bottom)]
    return (*points, (slots[target].x, slots[target].top))
