"""`paddock summarise`: the most wanted pipeline, for those who want no YAML."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.runner.display import console

from .completion import model_names
from .exits import CommandError, guarded
from .machine import Json
from .pipelines import advise, confirmed, flags_of, tell_end

if TYPE_CHECKING:
    from paddock.runner.report import Report
    from paddock.runner.saved import Wish


def register(app: typer.Typer) -> None:
    """Add the command, under both spellings."""
    app.command("summarise")(guarded(summarise))
    app.command("summarize", hidden=True)(guarded(summarise))


def summarise(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The documents.")],
    out: Annotated[str, typer.Option("-o", "--out", metavar="OUT", help="Where the summaries go.")],
    words: Annotated[int, typer.Option(min=1, max=10_000, help="About how many words each.")] = 80,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="A stored model, or a GGUF file.", autocompletion=model_names
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
    as_json: Json = False,
) -> int:
    """Summarise every document in a folder, without a line of YAML."""
    from paddock.runner import saved, verbs
    from paddock.runner.display import progress
    from paddock.runner.settings import read_settings

    wish = _wish(folder, out, words, model, include)
    file = wish.out / saved.NAME if save is None else Path(save).absolute()
    text = saved.text_of(wish, file.parent)
    if save is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    else:
        _save(file, text)
        given = f"{shlex.quote(save)}{_inputs(wish, file)}"
        console.tell(f"Saved as '{save}'. From now on: paddock run {given}")
        _take_over(wish, file)
    settings = read_settings(file.parent, flags=flags_of(pool, None))

    def run(*, is_confirmed: bool) -> Report:
        with progress.watching(is_quiet_stdout=as_json, is_log=False) as observer:
            return verbs.run(
                file,
                inputs=wish.inputs(),
                settings=settings,
                observer=observer,
                local=local or None,
                retry_failed=retry_failed,
                prune=prune,
                yes=is_confirmed,
                take=take,
            )

    ended = run(is_confirmed=yes)
    if prune and not yes and confirmed(ended):
        ended = run(is_confirmed=True)
    tell_end(ended, str(file), is_apart=as_json)
    if as_json:
        console.say_json(ended.as_json())
    advise(ended, settings)
    return ended.exit_status()


def _wish(folder: str, out: str, words: int, model: str | None, include: str | None) -> Wish:
    """Give what is wanted, with whole paths.

    Raises:
        CommandError: there is no such folder, or the one to write to is a file.
    """
    from paddock.runner.saved import INCLUDE, Wish
    from paddock.steps.places import refusal_to_write

    documents, target = Path(folder).expanduser(), Path(out).expanduser()
    if documents.is_file():
        raise CommandError(f"'{folder}' is a file.\n  Name its folder; --include takes a name.")
    if not documents.is_dir():
        raise CommandError(f"There is no folder '{folder}'.")
    if target.exists() and not target.is_dir():
        raise CommandError(f"'{out}' is a file.\n  Name a folder for the summaries.")
    if (why := refusal_to_write(target)) is not None:
        raise CommandError(f"'{out}' cannot be written: {why}.\n  Name another folder by `-o`.")
    if model is not None and model.lower().endswith(".gguf"):
        model = str(Path(model).expanduser().absolute())
    return Wish(documents.resolve(), target.resolve(), words, model or "", include or INCLUDE)


def _save(file: Path, text: str) -> None:
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
    from .init import write_schema
    from .machine import schema_of_all

    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    write_schema(file.parent, schema_of_all())


def _take_over(wish: Wish, file: Path) -> None:
    """Give the saved pipeline what the command made in that folder before, without the file."""
    from paddock.runner.handover import hand_over
    from paddock.runner.saved import NAME

    before = wish.out / NAME
    if not before.is_file() or (file.exists() and before.samefile(file)):
        return
    n_items = hand_over(before, file)
    before.unlink()
    if n_items:
        what = console.counted(n_items, "document")
        console.tell(f"It goes on with {what} of '{wish.out}', whose summaries are its own now.")


def _inputs(wish: Wish, file: Path) -> str:
    from paddock.runner.saved import needs_inputs

    if not needs_inputs(wish, file.parent):
        return ""
    pairs = (f"{name}={value}" for name, value in wish.inputs().items())
    return "".join(f" -i {shlex.quote(pair)}" for pair in pairs)
