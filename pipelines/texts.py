"""Text or file: parameters that take a text, or the name of a file beside the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from .expressions import ExpressionError, Template

TEXT_OR_FILE: Mapping[str, frozenset[str]] = {
    "prompt": frozenset(),
    "template": frozenset(),
    "map": frozenset(("chunk", "index", "previous")),
    "reduce": frozenset(("notes",)),
    "system": frozenset(),
    "instructions": frozenset(),
    "schema": frozenset(),
}
"""The language's parameters of this kind, and the names that the step adds to their scope."""

MAX_BYTES = 1024 * 1024


def is_file(value: Any) -> bool:
    """Tell whether a parameter's value reads `{file: …}`."""
    return isinstance(value, dict) and set(value) == {"file"}


def read(base: FilePath, name: Any) -> Template:
    """Read a template file; `name` is relative to `base`, and must lie under it.

    Raises:
        ExpressionError: it is not there, lies elsewhere, or is no template.
    """
    return _template(_place(base, name), name)


def raw(base: FilePath, name: Any) -> str:
    """Read a file's text as it is; `name` is relative to `base`, and must lie under it.

    Raises:
        ExpressionError: it is not there, or lies elsewhere.
    """
    return _text(_place(base, name), name)


def _place(base: FilePath, name: Any) -> FilePath:
    if not isinstance(name, str) or not name:
        raise ExpressionError("`file` must be the path of a file")
    if "{{" in name or "\0" in name:
        raise ExpressionError(
            f"the name of a template file must stand there as it is, not as '{name}'",
            "Choose between files with `if` on two steps.",
        )
    root = base.resolve()
    try:
        path = (root / name).resolve()
    except (OSError, RuntimeError) as error:  # too long a name, a circle of symlinks
        raise ExpressionError(f"the file '{name[:60]}' cannot be used as a path") from error
    if not path.is_relative_to(root):
        raise ExpressionError(
            f"the file '{name}' lies outside the pipeline's folder", "Move or copy it there."
        )
    return path


def _template(path: FilePath, name: str) -> Template:
    text = _text(path, name)
    if name.lower().endswith((".prompt.yml", ".prompt.yaml")):
        from .conversation import Conversation

        return Conversation.read(text, str(path), name)
    try:
        return Template.of(text, str(path))
    except ExpressionError as error:
        line = f", line {error.line}" if error.line else ""
        raise ExpressionError(
            f"in the file '{name}'{line}: {error.message}", error.remedy
        ) from None


def _text(path: FilePath, name: str) -> str:
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ExpressionError(
            f"there is no file '{name}'", "Paths are relative to the YAML; create or correct it."
        ) from None
    except OSError as error:
        why = error.strerror or str(error)
        raise ExpressionError(f"the file '{name}' cannot be read: {why}") from error
    if len(raw) > MAX_BYTES:
        raise ExpressionError(f"the file '{name}' is larger than 1 MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ExpressionError(f"the file '{name}' is not UTF-8 text", "Save it as UTF-8.") from None
