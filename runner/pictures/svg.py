"""Draw a picture as SVG: one text that needs nothing else, for light and dark, for keyboards too.

Every text is escaped; states have words and marks besides colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from .layout import BOLD, CHAR, LINE, PAD, Arrow, Placed, lay_out, length
from .palette import STYLE
from .scene import Box, Scene, anchor, flat, in_words

MARGIN, TITLE = 16.0, 46.0
_MARKS = {"none": "", "done": "✓", "fresh": "=", "failed": "✗", "running": "…", "left": "-"}


def svg_of(scene: Scene, *, is_inline: bool = False) -> str:
    """Draw a scene; inline in a page it has no title and no style of its own, and links to rows."""
    picture = lay_out(scene.boxes)
    top = MARGIN if is_inline else MARGIN + TITLE
    width = max(picture.width + 2 * MARGIN, 0.0 if is_inline else _least_width(scene))
    height = picture.height + top + MARGIN
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="graph" {size} role="group" '
        f'aria-labelledby="graph-title graph-words">',
        f'<title id="graph-title">{escape(scene.name)}</title>',
        f'<desc id="graph-words">{escape(_description(scene))}</desc>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path class="tip" d="M0 0 8 4 0 8z"/></marker></defs>',
    ]
    if not is_inline:
        lines.append(f"<style>{STYLE}</style>")
        lines.append(f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>')
        title = _cut(scene.name, width)
        lines.append(f'<text class="name" x="{MARGIN}" y="{MARGIN + 16}">{title}</text>')
        caption = _cut(scene.caption, width)
        lines.append(f'<text class="caption" x="{MARGIN}" y="{MARGIN + 36}">{caption}</text>')
    left = (width - picture.width) / 2
    for arrow in picture.arrows:
        lines.append(_arrow(arrow.moved(left, top)))
    for placed in picture.boxes:
        lines += _box(placed.moved(left, top), is_inline=is_inline)
    lines.append("</svg>")
    return "\n".join(lines) + "\n"


def _least_width(scene: Scene) -> float:
    return max(length(scene.name) * 10, length(scene.caption) * CHAR, 320.0) + 2 * MARGIN


def _description(scene: Scene) -> str:
    """Say the whole picture in words."""
    said = [
        _named(box) + (f", after {', '.join(box.reads)}" if box.reads else "")
        for box in flat(scene.boxes)
    ]
    return ". ".join([*([scene.caption.rstrip(".")] if scene.caption else []), *said])


def _named(box: Box) -> str:
    return f"{box.label}: {box.kind}" if box.kind else box.label


def _box(placed: Placed, *, is_inline: bool) -> Iterator[str]:
    box = placed.box
    kind = "block" if box.is_block else "step"
    words = _named(box)
    words += f", model {box.model}" if box.model else ""
    words += f". {in_words(box)}" if in_words(box) else ""
    link = f'href="#row-{anchor(box.id)}"' if is_inline else 'tabindex="0"'
    tag = "a" if is_inline else "g"
    conditional = " conditional" if box.is_conditional else ""
    role = "" if is_inline else ' role="img"'
    if not box.is_block or is_inline:
        yield f'<{tag} {link}{role} class="{kind} {box.last.state}{conditional}" ' + (
            f'aria-label="{escape(words)}">'
        )
    else:  # a role of its own would hide what stands in it from screen readers
        yield f'<g class="{kind} {box.last.state}{conditional}" aria-label="{escape(words)}">'
    yield f"<title>{escape(words)}</title>"
    yield (
        f'<rect x="{placed.x:.1f}" y="{placed.y:.1f}" width="{placed.width:.1f}" '
        f'height="{placed.height:.1f}" rx="8"/>'
    )
    yield from _texts(placed)
    if is_inline:
        yield "</a>"
    for arrow in placed.arrows:
        yield _arrow(arrow)
    for inner in placed.body:
        yield from _box(inner, is_inline=is_inline)
    if not is_inline:
        yield "</g>"


def _texts(placed: Placed) -> Iterator[str]:
    box = placed.box
    room = placed.width - 2 * PAD
    mark = _MARKS[box.last.state]
    x, y = placed.x + PAD, placed.y + LINE + 3
    if box.is_block:
        at = x + min(length(box.label) * BOLD, room) + 8
        yield _text("id", x, y, box.label, room)
        yield _text("kind", at, y, box.kind, room - (at - x) - (14 if mark else 0))
        lines = [("state", in_words(box))]
    else:
        yield _text("id", x, y, box.label, room - (14 if mark else 0))
        lines = [("kind", box.kind), ("model", box.model), ("state", in_words(box))]
    if mark:
        right = placed.x + placed.width - PAD
        yield f'<text class="mark" x="{right:.1f}" y="{y:.1f}">{mark}</text>'
    for name, text in lines:
        if text:
            y += LINE
            yield _text(name, x, y, text, room)


def _text(name: str, x: float, y: float, text: str, room: float) -> str:
    cut = _cut(text, room, BOLD if name == "id" else CHAR)
    return f'<text class="{name}" x="{x:.1f}" y="{y:.1f}">{cut}</text>' if cut else ""


def _cut(text: str, room: float, char: float = CHAR) -> str:
    """Escape a text that fits; the whole one is in the box's title."""
    n_most = int(room / char + 0.01)
    if length(text) <= n_most:
        return escape(text)
    shown = text[: max(0, n_most - 1)]
    while length(shown) >= max(n_most, 1):
        shown = shown[:-1]
    return escape(f"{shown}…") if shown else ""


def _arrow(arrow: Arrow) -> str:
    return f'<path class="arrow" marker-end="url(#tip)" d="{_path(arrow.points)}"/>'


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Draw a line downwards: straight past boxes, bent between them."""
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
