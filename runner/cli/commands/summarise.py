"""`paddock summarise`: summarise a folder of documents, or one, without writing YAML.

The text of the pipeline contains only what was asked for; folders are inputs, so that no path is
read as an expression. `--save` writes it to a file. In the same folder that is the same pipeline,
renamed; in another one it has a ledger of its own, which gets the replies of models.
"""

from __future__ import annotations

import asyncio
import dataclasses
import glob
import json
import shlex
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from string import Template
from typing import Annotated, Literal

import typer

from paddock.engine.system.records import Struct
from paddock.engine.system.text import is_utf8
from paddock.runner.cli.arguments import (
    JsonOption,
    PoolOption,
    flag,
    given_settings,
    local_flag,
    option,
    take_flag,
    yes_flag,
)
from paddock.runner.cli.exit_status import CommandError
from paddock.runner.cli.installed_schema import installed_schema, write_schema
from paddock.runner.cli.model_arguments import complete_model_names
from paddock.runner.cli.run_summary import print_closing
from paddock.runner.core.run_options import RunOptions
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.database.ledger_tables import COLUMNS
from paddock.runner.ledger.ledger import Ledger, forgotten
from paddock.runner.progress import printing
from paddock.runner.progress.run_display import run_observer
from paddock.runner.settings import STATE_FOLDER, read_settings
from paddock.steps.paths import write_refusal

from .run import run_until_confirmed

# Resolved, because an editable install is a tree of links that lacks the data files.
_TEMPLATE = Path(__file__).resolve().parent.parent / "templates" / "summaries.yaml"


@dataclasses.dataclass(frozen=True, slots=True)
class SummariseFlags:
    documents: Annotated[
        str, typer.Argument(metavar="DIR", help="Folder of documents, or one document.")
    ]
    out: str | None = option(
        "Folder for the summaries; one may be printed.", "-o", "--out", metavar="OUT"
    )
    how: Literal["write", "extract"] = option(
        "A model writes them, or they are the documents' own sentences.", default="write"
    )
    words: int = option("About how many words each.", default=80, min=1, max=10_000)
    model: str | None = option(
        "A stored model, or a GGUF file.", metavar="MODEL", autocompletion=complete_model_names
    )
    include: str | None = option("Only these, such as '**/*.{md,pdf}'.", metavar="GLOB")
    save: str | None = option("Save the pipeline to this file, then run it.", metavar="FILE")
    retry_failed: bool = flag("Retry quarantined documents.", "--retry-failed")
    prune: bool = flag("Remove summaries of deleted documents.", "--prune")
    yes: bool = yes_flag()
    take: bool = take_flag()
    local: bool = local_flag()
    pool: PoolOption = None
    as_json: JsonOption = False

    def request(self) -> SummaryRequest:
        documents, include = Path(self.documents).expanduser(), self.include or INCLUDE
        if documents.is_file():
            documents, include = documents.parent, glob.escape(documents.name)
        if not documents.is_dir():
            raise CommandError(f"There is no folder '{self.documents}'.")
        if (out := self.out) is None:
            raise CommandError("There is no folder for the summaries.\n  Name one by `-o`.")
        target = Path(out).expanduser()
        if target.exists() and not target.is_dir():
            raise CommandError(f"'{out}' is a file.\n  Name a folder for the summaries.")
        if (why := write_refusal(target)) is not None:
            raise CommandError(f"'{out}' cannot be written: {why}.\n  Name another folder by `-o`.")
        model = self.model or ""
        if model.lower().endswith(".gguf"):
            model = str(Path(model).expanduser().absolute())
        places = documents.resolve(), target.resolve()
        return SummaryRequest(*places, self.words, model, include, self.how)

    def options(self) -> RunOptions:
        return RunOptions(
            local=self.local or None,
            retry_failed=self.retry_failed,
            prune=self.prune,
            is_confirmed=self.yes,
            takes_over=self.take,
        )


def summarise(flags: SummariseFlags) -> int:
    if flags.out is flags.save is None and Path(flags.documents).expanduser().is_file():
        with (
            tempfile.TemporaryDirectory(prefix="paddock-summary-") as out,
            forgotten(Path(out, ".paddock")),
        ):
            return _summarise(dataclasses.replace(flags, out=out), prints=True)
    return _summarise(flags)


def _summarise(flags: SummariseFlags, *, prints: bool = False) -> int:
    request, save = flags.request(), flags.save
    file = request.out / NAME if save is None else Path(save).absolute()
    text = pipeline_text(request, file.parent)
    if save is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    else:
        if file.is_dir():
            raise CommandError(f"'{file}' is a folder.\n  Name a file for the pipeline.")
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            write_schema(file.parent, installed_schema())
        elif file.read_bytes() != text.encode():
            raise CommandError(
                f"'{file}' exists already with other content; nothing was done.\n"
                "  Choose another name, or remove it first."
            )
        inputs = request.inputs() if needs_inputs(request, file.parent) else {}
        given = [save, *(word for name in inputs for word in ("-i", f"{name}={inputs[name]}"))]
        printing.print_err(f"Saved as '{save}'. From now on: paddock run {shlex.join(given)}")
        before = request.out / NAME
        if before.is_file() and not before.samefile(file):
            if before.parent.resolve() != file.parent.resolve():
                copy_calls(before.parent, file.parent)
            before.unlink()
            printing.print_err(f"It goes on with the summaries of '{request.out}'.")
    settings = read_settings(file.parent, flags=given_settings(pool=flags.pool))
    display = partial(run_observer, is_quiet_stdout=flags.as_json)
    ended = run_until_confirmed(file, request.inputs(), flags.options(), settings, display)
    summaries = list(request.out.glob("*.md")) if prints else []
    if not summaries:
        kept = "" if prints else str(file)
        print_closing(ended, kept, is_apart=flags.as_json or prints)
    if flags.as_json:
        printing.print_json(ended.as_json())
    else:
        for summary in summaries:
            printing.print_out(summary.read_text("utf-8").removesuffix("\n"))
    return ended.exit_status()


def copy_calls(source: Path, target: Path) -> None:
    """Copy the replies of models from the ledger of one folder to that of another."""
    urls = (read_settings(folder).ledger_url for folder in (source, target))
    states = (folder / STATE_FOLDER for folder in (source, target))
    with ExitStack() as stack:
        opened = (Ledger(state, url=url) for state, url in zip(states, urls, strict=True))
        mine, theirs = map(stack.enter_context, opened)
        for values in mine.rows(queries.ALL_CALLS):
            row = dict(zip(COLUMNS["calls"], values, strict=True))
            for name in ("request_object", "reply_object"):
                if row[name] and (kept := mine.objects.get(row[name])) is not None:
                    theirs.objects.put(kept)
            theirs.put("calls", row)
        asyncio.run(theirs.durable())


INCLUDE = "**/*.{md,markdown,txt,rst,html,htm,pdf,csv,tsv,json,docx,pptx,xlsx,eml,epub}"
NAME = ".summarise.yaml"
"""In the output folder, unless saved elsewhere: hidden from scans, known to `why` and `plan`."""


class SummaryRequest(Struct, frozen=True):
    folder: Path
    """Absolute, as `out` is."""
    out: Path
    words: int = 80
    model: str = ""
    include: str = INCLUDE
    how: str = "write"

    def inputs(self) -> Mapping[str, str]:
        return {"folder": str(self.folder), "out": str(self.out)}


def pipeline_text(request: SummaryRequest, base: Path) -> str:
    """Return the YAML of the pipeline, as a file in the folder `base`.

    Folders below `base` are defaults of the inputs; others must be given to each run.
    """
    writer = f"models:\n  writer: {{ref: {_yaml_quoted(request.model)}}}\n\n"
    option = "params: {repeat_penalty: 1.1}  # small models repeat themselves"
    if request.how == "extract":
        option = "how: extract  # its own sentences, those that say most of it"
    # Other names cannot be written as YAML
    folder = request.folder.name if is_utf8(str(request.folder)) else ""
    return Template(_TEMPLATE.read_text("utf-8")).substitute(
        name=_yaml_quoted(f"summaries of {folder}" if folder else "summaries"),
        folder=_input_text(request.folder, base, "The documents."),
        out=_input_text(request.out, base, "Where the summaries go."),
        model=writer if request.model else "",
        include=_yaml_quoted(request.include),
        words=request.words,
        option=option,
    )


def needs_inputs(request: SummaryRequest, base: Path) -> bool:
    """Return whether the saved file has no defaults for its folders."""
    return not all(_is_default(path, base) for path in (request.folder, request.out))


def _is_default(path: Path, base: Path) -> bool:
    return path.is_relative_to(base) and is_utf8(str(path))


def _input_text(path: Path, base: Path, about: str) -> str:
    if not _is_default(path, base):
        return f"{{type: dir, required: true, description: {about}}}"
    inside = path.relative_to(base).as_posix()
    default = "." if inside == "." else f"./{inside}"
    return f"{{type: dir, default: {_yaml_quoted(default)}, description: {about}}}"


def _yaml_quoted(text: str) -> str:
    """Return a quoted text that is valid as YAML and JSON; lone surrogates are escaped."""
    return json.dumps(text, ensure_ascii=not text.isprintable())
