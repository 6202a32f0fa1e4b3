"""Lay out what `/api/show` tells of a model, as `ollama show` does. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import console

_FEW_LINES = 2  # of a licence, as `ollama show` has it


def text(told: Mapping[str, Any], *, is_verbose: bool = False) -> str:
    """Write every part that there is; `is_verbose` adds the file's values and its tensors."""
    parts = [*_parts(told), *(_verbose_parts(told) if is_verbose else ())]
    return "\n\n".join(_part(title, rows) for title, rows in parts if rows)


def _parts(told: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    yield "Model", list(_model(told))
    yield "Projector", list(_projector(told.get("projector_info") or {}))
    yield "Capabilities", [(str(one), "") for one in told.get("capabilities") or ()]
    yield "Parameters", [_pair(line) for line in _lines(told, "parameters")]
    yield "System", [(line, "") for line in _lines(told, "system")]
    yield "License", [(line, "") for line in _lines(told, "license")[:_FEW_LINES]]


def _model(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    details, info = told.get("details") or {}, told.get("model_info") or {}
    architecture = str(info.get("general.architecture") or details.get("family") or "")
    yield "architecture", architecture
    if details.get("parameter_size"):
        yield "parameters", str(details["parameter_size"])
    for name in ("context_length", "embedding_length"):
        value = info.get(f"{architecture}.{name}") or details.get(name)
        if value:
            yield name.replace("_", " "), f"{value}"
    if details.get("quantization_level"):
        yield "quantization", str(details["quantization_level"])
    if told.get("size"):
        yield "size", console.size(int(told["size"]))
    if told.get("greedy_answers"):
        yield "greedy answers", str(told["greedy_answers"])
    if told.get("flash_attention"):
        yield "flash attention", str(told["flash_attention"])
    if told.get("tuned"):
        yield "tuned copy", str(told["tuned"])
    if told.get("path"):
        yield "file", str(told["path"])


def _projector(info: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    architecture = str(info.get("general.architecture") or "")
    if architecture:
        yield "architecture", architecture
        for name in ("vision.embedding_length", "vision.projection_dim"):
            if info.get(f"{architecture}.{name}"):
                words = name.partition(".")[2].replace("_", " ")
                yield words, str(info[f"{architecture}.{name}"])


def _verbose_parts(told: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    info = told.get("model_info") or {}
    yield "Metadata", [(name, _short(value)) for name, value in sorted(info.items())]
    tensors = told.get("tensors") or ()
    yield "Tensors", [(one["name"], f"{one['type']}  {one['shape']}") for one in tensors]


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 3:
        return f"[{', '.join(map(str, value[:3]))}, ... {len(value):,} in all]"
    return str(value)


def _lines(told: Mapping[str, Any], name: str) -> list[str]:
    return [line for line in str(told.get(name) or "").splitlines() if line.strip()]


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(" ")
    return name, value.strip()


def _part(title: str, rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows) if any(value for _, value in rows) else 0
    lines = (
        f"    {console.clean(name).ljust(width)}  {console.clean(value)}" for name, value in rows
    )
    return "\n".join((f"  {title}", *(line.rstrip() for line in lines)))
