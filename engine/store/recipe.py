"""What a new model is to be made of: read from a Modelfile, or given by a client. Makes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddock.engine.gguf import part_names
from paddock.engine.request import Message

from .modelfile import Modelfile, ModelfileError
from .parameters import KINDS, OBSOLETE, read_parameter

Source = str | Path
"""A blob's digest, or a file's path."""

_WEIGHTS = ("*.gguf", "*.bin")
_FOREIGN = ("*.safetensors", "*.pth", "*.pt")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model to be made."""

    name: str
    base: str | None = None
    """The model that it starts from; None: `files`."""
    files: Mapping[str, Source] = field(default_factory=dict)
    """GGUF files by their names."""
    adapters: Mapping[str, Source] = field(default_factory=dict)
    template: str = ""
    """Empty, as what follows: the base's own."""
    system: str = ""
    licenses: tuple[str, ...] = ()
    """Added to the base's."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Laid over the base's."""
    messages: tuple[Message, ...] = ()
    quantize: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""


def read_recipe(
    name: str, modelfile: Modelfile, folder: Path, *, path: str = "Modelfile", quantize: str = ""
) -> Recipe:
    """Read what a Modelfile asks for; paths in it start from `folder`, its errors from `path`.

    Raises:
        ModelfileError: a file that is not there, or is none that can be used; with its line.
    """
    faults: list[tuple[int, str]] = []
    base: str | None = None
    files: dict[str, Source] = {}
    adapters: dict[str, Source] = {}
    for command in modelfile.all_of("FROM"):
        found = _files(command.value, folder)
        if isinstance(found, str):
            faults.append((command.line, found))
        elif found:
            files |= {one.name: one for one in found}
        else:
            base = command.value
    for command in modelfile.all_of("ADAPTER"):
        found = _files(command.value, folder)
        if isinstance(found, str) or not found:
            why = found if isinstance(found, str) else f"there is no file '{command.value}'"
            faults.append((command.line, why))
        else:
            adapters |= {one.name: one for one in found}
    if faults:
        raise ModelfileError(path, faults)
    return Recipe(
        name=name,
        base=base if not files else None,
        files=files,
        adapters=adapters,
        template=_last(modelfile, "TEMPLATE"),
        system=_last(modelfile, "SYSTEM"),
        licenses=tuple(one.value for one in modelfile.all_of("LICENSE")),
        parameters=_parameters(modelfile),
        messages=tuple(Message(one.key, one.value) for one in modelfile.all_of("MESSAGE")),
        quantize=quantize,
        renderer=_last(modelfile, "RENDERER"),
        parser=_last(modelfile, "PARSER"),
        requires=_last(modelfile, "REQUIRES"),
    )


def _last(modelfile: Modelfile, name: str) -> str:
    command = modelfile.last_of(name)
    return command.value if command else ""


def _parameters(modelfile: Modelfile) -> dict[str, Any]:
    """Give the parameters' values; a text that may be there several times is a list."""
    params: dict[str, Any] = {}
    for command in modelfile.all_of("PARAMETER"):
        if command.key in OBSOLETE:
            continue
        value = read_parameter(command.key, command.value)
        if KINDS[command.key] == "texts":
            params.setdefault(command.key, []).append(value)
        else:
            params[command.key] = value
    return params


def _files(value: str, folder: Path) -> list[Path] | str:
    """Give the files that a value means; none: it is a name; a text: what is wrong with it."""
    is_path = value.startswith((".", "/", "~")) or value.endswith((".gguf", ".safetensors"))
    try:
        path = Path(value).expanduser()
        place = path if path.is_absolute() else folder / path
        if place.is_file():
            parts = [place.with_name(name) for name in part_names(place.name)]
            missing = [part.name for part in parts if not part.is_file()]
            return f"'{missing[0]}', a part of '{value}', is missing" if missing else parts
        if place.is_dir() and (is_path or any(place.glob("*.gguf"))):
            return _within(place, value)
    except (OSError, RuntimeError, ValueError):  # no such home, or too long for a path
        return []
    return f"there is no file '{value}'" if is_path else []


def _within(place: Path, value: str) -> list[Path] | str:
    for pattern in _WEIGHTS:
        if files := sorted(place.glob(pattern)):
            return files
    if any(file for pattern in _FOREIGN for file in place.glob(pattern)):
        return (
            f"'{value}' holds weights in another format than GGUF; convert them with "
            f"llama.cpp's convert_hf_to_gguf.py first"
        )
    return f"'{value}' is a folder without a GGUF file"
