"""Mermaid text of a pipeline's graph, which pages of GitHub draw. Texts of others are escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .graph_model import GraphBox, box_text

_STATE_STYLES = {
    "done": "stroke:#1a7f37,stroke-width:2px",
    "fresh": "stroke:#0969da,stroke-width:2px",
    "failed": "stroke:#cf222e,stroke-width:3px",
    "running": "stroke:#9a6700,stroke-width:2px",
    "left": "stroke:#656d76,stroke-dasharray:5 3",
}


def graph_mermaid(name: str, boxes: Sequence[GraphBox]) -> str:
    title = " ".join(name.split()).replace("\\", "\\\\").replace('"', '\\"')
    lines = ["---", f'title: "{title}"', "---", "flowchart TD"]
    for box in boxes:
        lines += _box_lines(box, "    ")
    for box in boxes:
        lines += _edge_lines(box)
    lines += [f"    classDef {name} {style}" for name, style in _STATE_STYLES.items()]
    return "\n".join(lines) + "\n"


def _box_lines(box: GraphBox, indent: str) -> Iterator[str]:
    texts = map(_escaped, (box.kind, box.model, box_text(box)))
    words = "<br/>".join(filter(None, (f"<b>{_escaped(box.label)}</b>", *texts)))
    yield f'{indent}{"subgraph " if box.body else ""}{_node_id(box.id)}["{words}"]'
    if box.body:
        for inner in box.body:
            yield from _box_lines(inner, indent + "    ")
        yield f"{indent}end"
    if box.last.state in _STATE_STYLES:
        yield f"{indent}class {_node_id(box.id)} {box.last.state}"


def _edge_lines(box: GraphBox) -> Iterator[str]:
    for source in box.reads:
        yield f"    {_node_id(source)} --> {_node_id(box.id)}"
    for inner in box.body:
        yield from _edge_lines(inner)


def _node_id(name: str) -> str:
    """Return a valid id that is not a Mermaid keyword such as `end`."""
    return "n_" + re.sub(r"[^A-Za-z0-9_]", lambda match: f"_{ord(match[0]):x}", name)


def _escaped(text: str) -> str:
    return "".join(
        char if char.isalnum() or char in " .,:=·_-/()" else f"#{ord(char)};"
        for char in " ".join(text.split())
    )
