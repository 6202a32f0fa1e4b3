"""The most wanted pipeline, written down: summaries of every document in a folder. Pure.

What stands in the text is what was asked for and nothing else; folders are inputs, so that no path
is ever read as an expression.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

INCLUDE = "**/*.{md,markdown,txt,rst,html,htm,pdf,csv,tsv,json,docx,pptx,xlsx,eml,epub}"
NAME = ".summarise.yaml"
"""Beside the summaries, until it is saved elsewhere: no scan sees it, `why` and `plan` do."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants summarised, and how."""

    folder: Path
    """Absolute, as `out` is."""
    out: Path
    words: int = 80
    model: str = ""
    include: str = INCLUDE

    def inputs(self) -> Mapping[str, str]:
        """Give the inputs of the run."""
        return {"folder": str(self.folder), "out": str(self.out)}


def text_of(wish: Wish, base: Path) -> str:
    """Write the pipeline as a file in the folder `base` would stand.

    A folder that lies there is the input's default; another one must be given to each run.
    """
    model = f"models:\n  writer: {{ref: {_quoted(wish.model)}}}\n\n" if wish.model else ""
    return f"""\
# yaml-language-server: $schema=./.paddock/pipeline.schema.json
# Made by `paddock summarise`. Run it again: only what changed is done again.
name: {_quoted(_name(wish.folder))}

inputs:
  folder: {_input(wish.folder, base, "The documents.")}
  out:    {_input(wish.out, base, "Where the summaries go.")}

{model}steps:
  - id: docs
    uses: files.scan
    with: {{root: "{{{{ inputs.folder }}}}", include: [{_quoted(wish.include)}]}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - id: sum
        uses: summarise
        with:
          file: "{{{{ doc.path }}}}"
          words: {wish.words}
          params: {{repeat_penalty: 1.1}}  # small models repeat themselves
      - uses: files.write
        with:
          path: "{{{{ inputs.out }}}}/{{{{ doc.relpath }}}}.md"
          text: "{{{{ steps.sum.text }}}}"

returns: {{counts: steps.each.counts}}
"""


def needs_inputs(wish: Wish, base: Path) -> bool:
    """Tell whether a run of the saved file must be given its folders."""
    return not all(_is_default(path, base) for path in (wish.folder, wish.out))


def _name(folder: Path) -> str:
    return f"summaries of {folder.name}" if folder.name and _is_text(folder) else "summaries"


def _is_default(path: Path, base: Path) -> bool:
    return path.is_relative_to(base) and _is_text(path)


def _is_text(path: Path) -> bool:
    """Tell whether a name is text at all: on some disks it is bytes that no YAML takes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _input(path: Path, base: Path, about: str) -> str:
    if not _is_default(path, base):
        return f"{{type: dir, required: true, description: {about}}}"
    inside = path.relative_to(base).as_posix()
    default = "." if inside == "." else f"./{inside}"
    return f"{{type: dir, default: {_quoted(default)}, description: {about}}}"


def _quoted(text: str) -> str:
    """Write a text as YAML does and JSON, too; half characters of odd file names are escaped."""
    return json.dumps(text, ensure_ascii=not text.isprintable())
