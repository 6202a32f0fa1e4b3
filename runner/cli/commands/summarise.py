"""`paddock summarise`: summarise a folder of documents, or one, without writing YAML.

The text of the pipeline contains only what was asked for; folders are inputs, so that no path is
read as an expression. `--save` writes it to a file and transfers the results to that file: they are
neither computed again nor taken for another pipeline's. Item hashes contain no file and no folder,
so entries stay fresh if the steps are the same.
"""

from __future__ import annotations

import asyncio
import glob
import hashlib
import json
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from paddock.engine.system.text import canonical_json, counted
from paddock.runner import api
from paddock.runner.cli.arguments import (
    JsonOption,
    LocalOption,
    PoolOption,
    TakeOption,
    YesOption,
    given_settings,
)
from paddock.runner.cli.exit_status import CommandError
from paddock.runner.cli.model_arguments import complete_model_names
from paddock.runner.cli.run_display import run_observer
from paddock.runner.core.dependencies import HELD, held_mark, is_file_mark
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.ledger_tables import COLUMNS
from paddock.runner.ledger.outputs import OutputIndex
from paddock.runner.progress import printing
from paddock.runner.settings import STATE_FOLDER, read_settings
from paddock.steps.paths import write_refusal

from .init_schema_steps import installed_schema, write_schema
from .validate_plan_run import print_closing, print_speed_advice, run_until_confirmed

if TYPE_CHECKING:
    from paddock.runner.progress.report import Report


# Resolved, because an editable install is a tree of links that lacks the data files.
_TEMPLATE = Path(__file__).resolve().parent.parent / "templates" / "summaries.yaml"


@dataclass(frozen=True, slots=True)
class SummariseFlags:
    """Arguments and options of `paddock summarise`."""

    documents: Annotated[
        str, typer.Argument(metavar="DIR", help="Folder of documents, or one document.")
    ]
    out: Annotated[
        str | None,
        typer.Option(
            "-o", "--out", metavar="OUT", help="Folder for the summaries; one may be printed."
        ),
    ] = None
    how: Annotated[
        Literal["write", "extract"],
        typer.Option(help="A model writes them, or they are the documents' own sentences."),
    ] = "write"
    words: Annotated[int, typer.Option(min=1, max=10_000, help="About how many words each.")] = 80
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A stored model, or a GGUF file.",
            autocompletion=complete_model_names,
        ),
    ] = None
    include: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only these, such as '**/*.{md,pdf}'.")
    ] = None
    save: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Save the pipeline to this file, then run it."),
    ] = None
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry quarantined documents.")
    ] = False
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove summaries of deleted documents.")
    ] = False
    yes: YesOption = False
    take: TakeOption = False
    local: LocalOption = False
    pool: PoolOption = None
    as_json: JsonOption = False

    def request(self) -> SummaryRequest:
        """Return the request, with absolute paths.

        Raises:
            CommandError: no such folder, or the output folder cannot be written.
        """
        out = self.out
        documents, include = Path(self.documents).expanduser(), self.include or INCLUDE
        if documents.is_file():
            documents, include = documents.parent, glob.escape(documents.name)
        if not documents.is_dir():
            raise CommandError(f"There is no folder '{self.documents}'.")
        if out is None:
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
    """Summarise every document in a folder, or print the summary of one."""
    if flags.out is flags.save is None and Path(flags.documents).expanduser().is_file():
        with tempfile.TemporaryDirectory(prefix="paddock-summary-") as out:
            return _summarise(replace(flags, out=out), prints=True)
    return _summarise(flags)


def _summarise(flags: SummariseFlags, *, prints: bool = False) -> int:
    request, save = flags.request(), flags.save
    file = request.out / NAME if save is None else Path(save).absolute()
    text = pipeline_text(request, file.parent)
    if save is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    else:
        _save_pipeline(file, text)
        given = f"{shlex.quote(save)}{_input_options(request, file)}"
        printing.print_err(f"Saved as '{save}'. From now on: paddock run {given}")
        _transfer_outputs(request, file)
    settings = read_settings(file.parent, flags=given_settings(pool=flags.pool))

    def go(options: RunOptions) -> Report:
        with run_observer(is_quiet_stdout=flags.as_json) as observer:
            environment = RunEnvironment(settings=settings, observer=observer)
            return api.run(file, request.inputs(), options, environment)

    ended = run_until_confirmed(go, flags.options())
    summaries = list(request.out.glob("*.md")) if prints else []
    if not summaries:
        print_closing(ended, str(file), is_apart=flags.as_json or prints)
    if flags.as_json:
        printing.print_json(ended.as_json())
    else:
        for summary in summaries:
            printing.print_out(summary.read_text("utf-8").removesuffix("\n"))
    print_speed_advice(ended, settings)
    return ended.exit_status()


def _save_pipeline(file: Path, text: str) -> None:
    """Write the pipeline, and the schema for editors next to it."""
    if file.is_dir():
        raise CommandError(f"'{file}' is a folder.\n  Name a file for the pipeline.")
    if file.exists():
        if file.read_bytes() == text.encode():
            return
        raise CommandError(
            f"'{file}' exists already with other content; nothing was done.\n"
            "  Choose another name, or remove it first."
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    write_schema(file.parent, installed_schema())


def _transfer_outputs(request: SummaryRequest, file: Path) -> None:
    """Transfer the results of earlier runs without `--save` to the saved pipeline."""
    before = request.out / NAME
    if not before.is_file() or (file.exists() and before.samefile(file)):
        return
    n_items = transfer_results(before, file)
    before.unlink()
    if n_items:
        what = counted(n_items, "document")
        printing.print_err(f"It takes over {what} of '{request.out}' that are summarised already.")


def _input_options(request: SummaryRequest, file: Path) -> str:
    if not needs_inputs(request, file.parent):
        return ""
    pairs = (f"{name}={value}" for name, value in request.inputs().items())
    return "".join(f" -i {shlex.quote(pair)}" for pair in pairs)


INCLUDE = "**/*.{md,markdown,txt,rst,html,htm,pdf,csv,tsv,json,docx,pptx,xlsx,eml,epub}"
NAME = ".summarise.yaml"
"""In the output folder, unless saved elsewhere: hidden from scans, known to `why` and `plan`."""


@dataclass(frozen=True, slots=True)
class SummaryRequest:
    """What to summarise, and how."""

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
    model = (
        f"models:\n  writer: {{ref: {_yaml_quoted(request.model)}}}\n\n" if request.model else ""
    )
    option = "params: {repeat_penalty: 1.1}  # small models repeat themselves"
    if request.how == "extract":
        option = "how: extract  # its own sentences, those that say most of it"
    return Template(_TEMPLATE.read_text("utf-8")).substitute(
        name=_yaml_quoted(_pipeline_name(request.folder)),
        folder=_input_text(request.folder, base, "The documents."),
        out=_input_text(request.out, base, "Where the summaries go."),
        model=model,
        include=_yaml_quoted(request.include),
        words=request.words,
        option=option,
    )


def needs_inputs(request: SummaryRequest, base: Path) -> bool:
    """Return whether the saved file has no defaults for its folders."""
    return not all(_is_default(path, base) for path in (request.folder, request.out))


def _pipeline_name(folder: Path) -> str:
    return f"summaries of {folder.name}" if folder.name and _is_text(folder) else "summaries"


def _is_default(path: Path, base: Path) -> bool:
    return path.is_relative_to(base) and _is_text(path)


def _is_text(path: Path) -> bool:
    """Return whether a path is valid Unicode; other names cannot be written as YAML."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _input_text(path: Path, base: Path, about: str) -> str:
    if not _is_default(path, base):
        return f"{{type: dir, required: true, description: {about}}}"
    inside = path.relative_to(base).as_posix()
    default = "." if inside == "." else f"./{inside}"
    return f"{{type: dir, default: {_yaml_quoted(default)}, description: {about}}}"


def _yaml_quoted(text: str) -> str:
    """Return a quoted text that is valid as YAML and JSON; lone surrogates are escaped."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def transfer_results(source: Path, target: Path) -> int:
    """Move the entries, outputs and calls of one pipeline file to another; return the entry count.

    Existing entries of the target stay. Runs stay in the history of the source.

    Raises:
        LedgerError: a ledger cannot be read or written; the source still has everything then.
    """
    source, target = source.resolve(), target.resolve()
    with ExitStack() as stack:
        mine = stack.enter_context(_ledger(source))
        is_same = source.parent == target.parent
        theirs = mine if is_same else stack.enter_context(_ledger(target))
        return _ResultTransfer(source, mine, target, theirs).run()


def _ledger(file: Path) -> Ledger:
    return Ledger(file.parent / STATE_FOLDER, url=read_settings(file.parent).ledger_url)


class _ResultTransfer:
    def __init__(self, source: Path, mine: Ledger, target: Path, theirs: Ledger) -> None:
        self._file, self._target = source.name, target.name
        self._mine, self._theirs = mine, theirs
        self._from = OutputIndex(mine, source.parent, set())
        self._to = OutputIndex(theirs, target.parent, set())
        self._moved = {
            "items": self._item,
            "outputs": lambda row: {"path": self._path(row["path"])},
            "provenance": self._made,
        }

    def run(self) -> int:
        n_items = 0
        scopes = list(self._rows("scopes", "scope, step, inputs", "file", self._file))
        for scope, step, inputs in scopes:
            new = self._scope(step, inputs)
            known = self._theirs.entries(new)
            for table, moved in self._moved.items():
                rows = [row for row in self._of(table, scope) if row["key"] not in known]
                for row in rows:
                    self._put(table, row, new, **moved(row))
                n_items += len(rows) if table == "items" else 0
            for row in self._of("calls", scope):
                self._put("calls", row, new)
        asyncio.run(self._theirs.durable())
        for scope, _, _ in scopes:
            self._drop(scope)
        return n_items

    # --- reading and writing rows

    def _rows(self, table: str, columns: str, name: str, value: str) -> Iterator[Any]:
        query = f"select {columns} from {table} where {name} = :value"
        yield from self._mine.rows(query, value=value)

    def _of(self, table: str, scope: str) -> Iterator[dict[str, Any]]:
        for row in self._rows(table, ", ".join(COLUMNS[table]), "scope", scope):
            yield dict(zip(COLUMNS[table], row, strict=True))

    def _put(self, table: str, row: dict[str, Any], scope: str, **changed: Any) -> None:
        """Write a row to the target's ledger, with the objects that it names."""
        for name, value in row.items():
            if name.endswith("_object") and value is not None:
                kept = self._mine.objects.get(value)
                if kept is not None:
                    self._theirs.objects.put(kept)
        self._theirs.put(table, {**row, "scope": scope, **changed})

    def _drop(self, scope: str) -> None:
        """Delete the rows of the source: a file belongs to one pipeline."""
        for table, name in (("items", "key"), ("provenance", "key"), ("outputs", "path")):
            for row in self._of(table, scope):
                self._mine.drop(table, {"scope": scope, name: row[name]})
        self._mine.drop("scopes", {"scope": scope})

    # --- what is relative to a folder

    def _scope(self, step: str, inputs: str) -> str:
        """Record and return the target's scope for one of the source (see `Work.scope_id`)."""
        places = [
            {name: self._path(path) for name, path in place.items()}
            if isinstance(place, dict)
            else place
            for place in json.loads(inputs)
        ]
        text = canonical_json(places)
        scope = hashlib.sha256(f"{self._target}\n{step}\n{text}".encode()).hexdigest()
        self._theirs.record_scope(scope, self._target, step, text)
        return scope

    def _path(self, stored: str) -> str:
        return self._to.stored(self._from.absolute(stored))

    def _item(self, row: Mapping[str, Any]) -> dict[str, Any]:
        outputs = None if row["outputs"] is None else json.loads(row["outputs"])
        reads = None if row["reads"] is None else self._reads(json.loads(row["reads"]))
        return {
            "has_inner_failures": bool(row["has_inner_failures"]),  # SQLite has numbers
            "outputs": outputs and json.dumps([self._path(path) for path in outputs]),
            "reads": reads and json.dumps(reads),
        }

    def _reads(self, reads: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for name, mark in reads.items():
            if mark[0] == HELD:
                found |= held_mark(self._path(mark[1]), mark[2])
            else:
                found[self._path(name) if is_file_mark(mark) else name] = mark
        return found

    def _made(self, row: Mapping[str, Any]) -> dict[str, Any]:
        made = self._mine.value(row["made"], row["made_object"])
        source = None if row["source"] is None else self._path(row["source"])
        if source is not None and made.get("source"):
            made = {**made, "source": {**made["source"], "path": source}}
        if row["spec"] is not None:
            for (text,) in self._rows("specs", "text", "spec", row["spec"]):
                self._theirs.put("specs", {"spec": row["spec"], "text": text})
        inline, object_ = self._theirs.keep(made)
        return {"source": source, "made": inline, "made_object": object_}
