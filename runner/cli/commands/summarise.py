"""`paddock summarise`: summarise a folder of documents without writing YAML.

`--save` writes the pipeline down, and hands the outputs made so far over to it.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.engine.system.text import counted
from paddock.runner.cli.completion import complete_model_names
from paddock.runner.cli.exit_status import CommandError, with_exit_status
from paddock.runner.progress import console

from .init_schema_steps import JsonOption
from .validate_plan_run import confirm_removal, given_settings, print_closing, print_speed_advice

if TYPE_CHECKING:
    from paddock.runner.cli.summarise_template import SummaryRequest
    from paddock.runner.progress.report import Report


def register(app: typer.Typer) -> None:
    """Add the command, under both spellings."""
    app.command("summarise")(with_exit_status(summarise))
    app.command("summarize", hidden=True)(with_exit_status(summarise))


def summarise(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The documents.")],
    out: Annotated[str, typer.Option("-o", "--out", metavar="OUT", help="Where the summaries go.")],
    words: Annotated[int, typer.Option(min=1, max=10_000, help="About how many words each.")] = 80,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A stored model, or a GGUF file.",
            autocompletion=complete_model_names,
        ),
    ] = None,
    include: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only these, such as '**/*.{md,pdf}'.")
    ] = None,
    save: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the pipeline down, then run it.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what is quarantined.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove summaries of documents that are gone.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Documents that are gone were deleted: do not ask.")
    ] = False,
    take: Annotated[
        bool, typer.Option("--take", help="Replace outputs that were edited, or are not ours.")
    ] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Run inside this process, without Prefect.")
    ] = False,
    pool: Annotated[
        str | None,
        typer.Option(metavar="URL,...", help="Ask these servers in place of this machine's pool."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Summarise every document in a folder, without a line of YAML."""
    from paddock.runner import api
    from paddock.runner.cli import run_display, summarise_template
    from paddock.runner.core.run_options import RunEnvironment, RunOptions
    from paddock.runner.settings import read_settings

    wish = _summary_request(folder, out, words, model, include)
    file = wish.out / summarise_template.NAME if save is None else Path(save).absolute()
    text = summarise_template.pipeline_text(wish, file.parent)
    if save is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    else:
        _save_pipeline(file, text)
        given = f"{shlex.quote(save)}{_input_options(wish, file)}"
        console.print_err(f"Saved as '{save}'. From now on: paddock run {given}")
        _hand_over_outputs(wish, file)
    settings = read_settings(file.parent, flags=given_settings(pool, None))

    options = RunOptions(
        local=local or None,
        retry_failed=retry_failed,
        prune=prune,
        is_confirmed=yes,
        takes_over=take,
    )

    def run(options: RunOptions) -> Report:
        with run_display.run_observer(is_quiet_stdout=as_json, is_log=False) as observer:
            environment = RunEnvironment(settings=settings, observer=observer)
            return api.run(file, wish.inputs(), options, environment)

    ended = run(options)
    if prune and not yes and confirm_removal(ended):
        ended = run(replace(options, is_confirmed=True))
    print_closing(ended, str(file), is_apart=as_json)
    if as_json:
        console.print_json(ended.as_json())
    print_speed_advice(ended, settings)
    return ended.exit_status()


def _summary_request(
    folder: str, out: str, words: int, model: str | None, include: str | None
) -> SummaryRequest:
    """Return what is wanted, with whole paths.

    Raises:
        CommandError: there is no such folder, or the one to write to is a file.
    """
    from paddock.runner.cli.summarise_template import INCLUDE, SummaryRequest
    from paddock.steps.paths import write_refusal

    documents, target = Path(folder).expanduser(), Path(out).expanduser()
    if documents.is_file():
        raise CommandError(f"'{folder}' is a file.\n  Name its folder; --include takes a name.")
    if not documents.is_dir():
        raise CommandError(f"There is no folder '{folder}'.")
    if target.exists() and not target.is_dir():
        raise CommandError(f"'{out}' is a file.\n  Name a folder for the summaries.")
    if (why := write_refusal(target)) is not None:
        raise CommandError(f"'{out}' cannot be written: {why}.\n  Name another folder by `-o`.")
    if model is not None and model.lower().endswith(".gguf"):
        model = str(Path(model).expanduser().absolute())
    return SummaryRequest(
        documents.resolve(), target.resolve(), words, model or "", include or INCLUDE
    )


def _save_pipeline(file: Path, text: str) -> None:
    """Write a pipeline down, with the schema for editors beside it.

    Raises:
        CommandError: there is one already that says something else.
    """
    if file.is_dir():
        raise CommandError(f"'{file}' is a folder.\n  Name a file for the pipeline.")
    if file.exists():
        if file.read_bytes() == text.encode():
            return
        raise CommandError(
            f"'{file}' exists already, and says something else; nothing was done.\n"
            "  Give another name, or remove it first."
        )
    from .init_schema_steps import installed_schema, write_schema

    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    write_schema(file.parent, installed_schema())


def _hand_over_outputs(wish: SummaryRequest, file: Path) -> None:
    """Give the saved pipeline what the command made in that folder before, without the file."""
    from paddock.runner.cli.summarise_template import NAME, hand_over

    before = wish.out / NAME
    if not before.is_file() or (file.exists() and before.samefile(file)):
        return
    n_items = hand_over(before, file)
    before.unlink()
    if n_items:
        what = counted(n_items, "document")
        console.print_err(
            f"It goes on with {what} of '{wish.out}', whose summaries are its own now."
        )


def _input_options(wish: SummaryRequest, file: Path) -> str:
    from paddock.runner.cli.summarise_template import needs_inputs

    if not needs_inputs(wish, file.parent):
        return ""
    pairs = (f"{name}={value}" for name, value in wish.inputs().items())
    return "".join(f" -i {shlex.quote(pair)}" for pair in pairs)
