"""A model recipe: what `create` makes a model of, by a Modelfile or a request."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddock.engine.model_file_parts import split_file_names
from paddock.engine.request import Message
from paddock.engine.system.records import Struct, field

from .modelfile import (
    OBSOLETE_PARAMETERS,
    PARAMETER_KINDS,
    Modelfile,
    ModelfileError,
    parse_parameter,
)

RecipeFile = str | Path
"""A blob's digest, or a file's path."""
_WEIGHT_FILES = ("*.gguf", "*.bin")
_FOREIGN_WEIGHT_FILES = ("*.safetensors", "*.pth", "*.pt")


class ModelRecipe(Struct, frozen=True):
    name: str
    base: str | None = None
    """The base model; None: `files`."""
    files: Mapping[str, RecipeFile] = field(default_factory=dict)
    adapters: Mapping[str, RecipeFile] = field(default_factory=dict)
    template: str = ""
    """Empty, as the fields below: the base's."""
    system: str = ""
    licenses: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    quantize: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""


def read_recipe(
    name: str, modelfile: Modelfile, folder: Path, *, path: str = "Modelfile", quantize: str = ""
) -> ModelRecipe:
    """Return the recipe of a Modelfile.

    Paths in it are relative to `folder`; `path` is the Modelfile's own, for errors.

    Raises:
        ModelfileError: a file is missing or cannot be used; with its line.
    """
    faults: list[tuple[int, str]] = []
    base: str | None = None
    files: dict[str, RecipeFile] = {}
    adapters: dict[str, RecipeFile] = {}
    parameters: dict[str, Any] = {}
    for command in modelfile.all_of("PARAMETER"):
        if command.key in OBSOLETE_PARAMETERS:
            continue
        value = parse_parameter(command.key, command.value)
        if PARAMETER_KINDS[command.key].kind == "texts":  # which may occur several times
            parameters.setdefault(command.key, []).append(value)
        else:
            parameters[command.key] = value
    for command in modelfile.commands:
        if command.name not in ("FROM", "ADAPTER"):
            continue
        try:
            found = {file.name: file for file in _files_of_value(command.value, folder)}
        except ValueError as error:
            faults.append((command.line, str(error)))
            continue
        if command.name == "FROM":
            files |= found
            base = base if found else command.value
        elif found:
            adapters |= found
        else:
            faults.append((command.line, f"there is no file '{command.value}'"))
    if faults:
        raise ModelfileError(path, faults)
    return ModelRecipe(
        name=name,
        base=base if not files else None,
        files=files,
        adapters=adapters,
        template=modelfile.last_value("TEMPLATE"),
        system=modelfile.last_value("SYSTEM"),
        licenses=tuple(command.value for command in modelfile.all_of("LICENSE")),
        parameters=parameters,
        messages=tuple(
            Message(command.key, command.value) for command in modelfile.all_of("MESSAGE")
        ),
        quantize=quantize,
        renderer=modelfile.last_value("RENDERER"),
        parser=modelfile.last_value("PARSER"),
        requires=modelfile.last_value("REQUIRES"),
    )


def _files_of_value(value: str, folder: Path) -> list[Path]:
    """Return the files that `FROM` or `ADAPTER` names; none: the value is a model's name.

    A path without usable files raises ValueError with a sentence.
    """
    is_path = value.startswith((".", "/", "~")) or value.endswith((".gguf", ".safetensors"))
    try:
        path = Path(value).expanduser()
        place = path if path.is_absolute() else folder / path
        is_file, is_folder = place.is_file(), place.is_dir()
    except (OSError, RuntimeError, ValueError):  # an unknown home, or too long for a path
        return []
    if is_file:
        parts = [place.with_name(name) for name in split_file_names(place.name)]
        if missing := [part.name for part in parts if not part.is_file()]:
            raise ValueError(f"'{missing[0]}', a part of '{value}', is missing")
        return parts
    if is_folder and (is_path or any(place.glob("*.gguf"))):
        for pattern in _WEIGHT_FILES:
            if files := sorted(place.glob(pattern)):
                return files
        if any(file for pattern in _FOREIGN_WEIGHT_FILES for file in place.glob(pattern)):
            raise ValueError(
                f"'{value}' holds weights in another format than GGUF; convert them with "
                f"llama.cpp's convert_hf_to_gguf.py first"
            )
        raise ValueError(f"'{value}' is a folder without a GGUF file")
    if is_path:
        raise ValueError(f"there is no file '{value}'")
    return []
