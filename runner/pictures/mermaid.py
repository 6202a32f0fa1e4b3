"""Write a picture as Mermaid: text that GitHub, GitLab and many editors draw."""

from __future__ import annotations

from collections.abc import Iterator

from .scene import Box, Scene, anchor, in_words

_CLASSES = {
    "done": "stroke:#1a7f37,stroke-width:2px",
    "fresh": "stroke:#0969da,stroke-width:2px",
    "failed": "stroke:#cf222e,stroke-width:3px",
    "running": "stroke:#9a6700,stroke-width:2px",
    "left": "stroke:#656d76,stroke-dasharray:5 3",
}


def mermaid_of(scene: Scene) -> str:
    """Write a scene as a flow chart, from top to bottom."""
    lines = ["---", f"title: {_title(scene.name)}", "---", "flowchart TD"]
    for box in scene.boxes:
        lines += _box(box, "    ")
    for box in scene.boxes:
        lines += _arrows(box)
    lines += [f"    classDef {name} {style}" for name, style in _CLASSES.items()]
    return "\n".join(lines) + "\n"


def _title(name: str) -> str:
    """Quote a title, which stands in YAML."""
    return '"' + " ".join(name.split()).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _box(box: Box, indent: str) -> Iterator[str]:
    if box.is_block:
        parts = [f"<b>{_text(box.label)}</b>", _text(box.kind), _text(in_words(box))]
        yield f'{indent}subgraph {_id(box.id)}["{"<br/>".join(filter(None, parts))}"]'
        for inner in box.body:
            yield from _box(inner, indent + "    ")
        yield f"{indent}end"
    else:
        parts = [f"<b>{_text(box.label)}</b>", *map(_text, (box.kind, box.model, in_words(box)))]
        yield f'{indent}{_id(box.id)}["{"<br/>".join(filter(None, parts))}"]'
    if box.last.state in _CLASSES:
        yield f"{indent}class {_id(box.id)} {box.last.state}"


def _arrows(box: Box) -> Iterator[str]:
    for source in box.reads:
        yield f"    {_id(source)} --> {_id(box.id)}"
    for inner in box.body:
        yield from _arrows(inner)


def _id(name: str) -> str:
    """Give a name that is none of Mermaid's words, such as `end`."""
    return f"n_{anchor(name)}"


def _text(text: str) -> str:
    """Write a text so that Mermaid shows it and reads nothing into it."""
    return "".join(
        char if char.isalnum() or char in " .,:=·_-/()" else f"#{ord(char)};"
        for char in " ".join(text.split())
    )
