"""Make a new pipeline folder from a template: a folder of `paddock.examples` with a pipeline.

Templates come with the package, so this works from a wheel, without a clone or a network.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.engine.system import private

from .exits import CommandError

PIPELINE = "pipeline.yaml"
PACKAGE = "pyproject.toml"
SCHEMA = Path(".paddock") / "pipeline.schema.json"
MINIMAL = "minimal"

# What a template's own runs leave behind in a clone, and what is not for copying.
_LEFT_OUT = frozenset({".paddock", "__pycache__", "models", "out", "summaries", "build"})


@dataclass(frozen=True, slots=True)
class Template:
    """A folder that a new pipeline can be made from."""

    name: str
    folder: Path
    description: str

    @property
    def is_package(self) -> bool:
        """Whether it is a package of steps and the like, and no pipeline."""
        return not (self.folder / PIPELINE).exists()


def templates(examples: Path | None = None) -> tuple[Template, ...]:
    """List the templates that come with the package, by name."""
    folder = examples or _examples()
    pipelines = {file.parent: file for file in folder.glob(f"*/{PIPELINE}")}
    packages = {file.parent: file for file in folder.glob(f"*/{PACKAGE}")}
    return tuple(
        Template(folder.name, folder, _description(file))
        for folder, file in sorted({**packages, **pipelines}.items())
    )


def make(
    template: str | None, folder: Path, schema: Mapping[str, Any], *, examples: Path | None = None
) -> tuple[Path, ...]:
    """Copy a template, the smallest by default; give the files that were written.

    Raises:
        CommandError: an unknown template, or a folder with something in it.
    """
    chosen = _chosen(template or MINIMAL, examples)
    _refuse_full(folder)
    written = [_copy(file, chosen.folder, folder) for file in _files(chosen.folder)]
    return tuple(written) if chosen.is_package else (*written, write_schema(folder, schema))


def write_schema(folder: Path, schema: Mapping[str, Any]) -> Path:
    """Write the JSON Schema where the first line of a pipeline lets editors look for it."""
    file = folder / SCHEMA
    private.folder(file.parent)
    private.write(file, json.dumps(schema, indent=1) + "\n")
    return file


def _examples() -> Path:
    # Resolved, because an editable install is a tree of links that lacks newer files.
    spec = importlib.util.find_spec("paddock.examples")
    if spec is None or spec.origin is None:
        raise CommandError("This installation has no templates: `paddock.examples` is missing.")
    return Path(spec.origin).resolve().parent


def _description(file: Path) -> str:
    """Read the `description` line, else the first comment of a sentence; nothing is parsed."""
    text = file.read_text("utf-8")
    found = re.search(r"^description(?::| =) *(.+)$", text, re.MULTILINE) or re.search(
        r"^# ([A-Z].+)$", text, re.MULTILINE
    )
    return found[1].strip("\"' ") if found else ""


def _chosen(name: str, examples: Path | None) -> Template:
    known = templates(examples)
    for template in known:
        if template.name == name:
            return template
    names = [template.name for template in known]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    listed = ", ".join(f"'{name}'" for name in names)
    raise CommandError(f"There is no template '{name}'.\n  Known: {listed}.{hint}")


def _refuse_full(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"'{folder}' is a file.\n  Give the name of a new folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise CommandError(
            f"'{folder}' is not empty, so nothing was written.\n"
            "  Give the name of a new folder, or empty that one first."
        )
    from paddock.steps.places import refusal_to_write

    if (why := refusal_to_write(folder)) is not None:
        raise CommandError(f"'{folder}' cannot be made: {why}.\n  Name another folder.")


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in _LEFT_OUT or path.suffix in (".pyc", ".lance", ".egg-info"):
            continue
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _copy(file: Path, template: Path, folder: Path) -> Path:
    target = folder / file.relative_to(template)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)  # its content alone: a package's files may be read-only
    return target
