"""The JSON Schema of pipelines, and a template for coding assistants: `paddock schema`."""

from __future__ import annotations

from typing import Literal

from paddock.runner.cli import step_catalogue
from paddock.runner.cli.arguments import existing_folder, option
from paddock.runner.cli.exit_status import DONE
from paddock.runner.cli.installed_schema import installed_schema, write_schema
from paddock.runner.progress import printing

from .init import examples_folder


def schema(
    write: str | None = option(
        "Write it to DIR/.paddock/pipeline.schema.json instead.", metavar="DIR"
    ),
    for_: Literal["editor", "llm"] = option(
        "llm: a template with notes, and how to work, for an assistant.", "--for", default="editor"
    ),
) -> int:
    if for_ == "llm":
        found = step_catalogue.list_installed()
        for sentence in found.broken:
            printing.print_err(sentence)
        page = (examples_folder() / "AGENTS.md").read_text("utf-8")
        notes = (f"# {line}".rstrip() for line in page.splitlines())
        printing.print_out("\n".join((step_catalogue.llm_template(found), *notes)))
        return DONE
    if write is None:
        printing.print_json(installed_schema())
        return DONE
    folder = existing_folder(write, "schema --write")
    printing.print_out(f"Wrote {write_schema(folder, installed_schema())}.")
    return DONE
