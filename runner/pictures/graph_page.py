"""A pipeline's picture as one page: the drawing, and the same as a table that its boxes lead to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from .page import cell, number, page, table
from .scene import Box, Scene, anchor, outcome, took
from .svg import svg_of

_HEADS = ("Step", "Does", "Model", "After", "Last run", "#Times", "#Took", "#Calls", "#Tokens")


def graph_page(scene: Scene) -> str:
    """Give the page."""
    return page(scene.name, _parts(scene))


def _parts(scene: Scene) -> Iterator[str]:
    yield f"<h1>{escape(scene.name)}</h1>"
    if scene.description:
        yield f"<p>{escape(scene.description)}</p>"
    yield f'<p class="soft">{escape(scene.caption)}</p>'
    yield '<h2 id="picture">The plan</h2>'
    yield (
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="picture">'
        f"{svg_of(scene, is_inline=True)}</div>"
    )
    yield "<h2>Its steps</h2>"
    note = "Times of items are added up, however many went on at once."
    yield table("Steps", _HEADS, _rows(scene.boxes, 0), note=note)


def _rows(boxes: Iterable[Box], depth: int) -> Iterator[str]:
    for box in boxes:
        yield _row(box, depth)
        yield from _rows(box.body, depth + 1)


def _row(box: Box, depth: int) -> str:
    last = box.last
    cells = (
        f'<th scope="row" style="padding-left:{0.6 + 1.2 * depth:.1f}rem">{escape(box.label)}</th>',
        cell(box.kind),
        cell(box.model),
        cell(", ".join(box.reads)),
        cell(outcome(last), f"s-{last.state}"),
        number(last.n),
        cell(took(last.seconds) if last.seconds >= 0.05 else "", "n"),
        number(last.calls),
        number(last.tokens),
    )
    return f'<tr id="row-{anchor(box.id)}">{"".join(cells)}</tr>'
