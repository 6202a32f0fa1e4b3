"""`paddock tune`: a copy of a model without the formats that this machine is slow with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.runner.display import console

from .completion import model_names
from .exits import DONE, CommandError, guarded
from .machine import Json
from .tune_text import as_object, lines, table
from .words import MOST_BYTES

if TYPE_CHECKING:
    from paddock.engine.request import ModelFacts
    from paddock.engine.settings import PoolSettings
    from paddock.engine.tuning.tuned import Tuned

# So many documents of a folder, and so much of each, are compared: a model reads some thousand
# tokens of them in the time that one waits for a copy.
_MOST_DOCUMENTS, _MOST_CHARACTERS = 64, 20_000

# Documents that come with the package: the text on which a copy is compared with its original.
_TEXTS = "folder-digest/inbox"
_TEXT_SUFFIXES = (".md", ".txt", ".html")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tune")(guarded(tune))


def tune(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Without one: list the tuned copies.",
            autocompletion=model_names,
        ),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Undo: remove the copy.")] = False,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Write all matrices in it; smaller ones than Q8_0 lose some quality. "
            "By default those in slow formats alone, in Q8_0.",
        ),
    ] = None,
    on: Annotated[
        list[Path] | None,
        typer.Option(
            "--on",
            metavar="PATH",
            help="Measure speed and agreement on your documents: a file or a folder, also "
            "several times. Only the numbers are kept.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Make it also where it would not help.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Make a copy of a model that this machine reads faster, all but lossless.

    Only tensors in formats that measure slow here are changed.
    """
    from paddock.runner.settings import read_settings

    settings = read_settings(Path.cwd()).pool
    if model is None:
        if off or format_name or force or on:
            raise CommandError("Say which model: `paddock tune MODEL`. `paddock list` shows them.")
        return _list(settings, as_json=as_json)
    if off:
        return _undo(model, settings, as_json=as_json)
    made = _make(model, settings, format_of(format_name), tuple(on or ()), is_forced=force)
    if as_json:
        console.say_json(as_object(made))
    else:
        console.say("\n".join(lines(made)))
    return DONE


def format_of(name: str | None) -> str | None:
    """Return a format's name as llama.cpp writes it; None: for each tensor by what is measured.

    Raises:
        CommandError: there is none of this name.
    """
    from paddock.engine.tuning.tuner import FORMATS

    if name is None:
        return None
    wanted = name.upper()
    if wanted not in FORMATS:
        raise CommandError(
            f"'{name}' is not a format of tensors.\n  Known: {', '.join(sorted(FORMATS))}."
        )
    return wanted


def _make(
    ref: str,
    settings: PoolSettings,
    format_name: str | None,
    documents: Sequence[Path],
    *,
    is_forced: bool,
) -> Tuned:
    from paddock.engine.models import ModelFinder
    from paddock.engine.residency.devices import this_device
    from paddock.engine.tuning.tuner import Wish
    from paddock.engine.tuning.tuner import tune as make

    facts = ModelFinder(settings.models_dir, settings.cache_dir).find_original(ref)
    _refuse_embedder(facts)
    own = texts_of(documents) if documents else ()
    n_threads = settings.n_threads or this_device().n_threads
    wish = Wish(facts, format_name, n_threads, own or texts(), is_forced, len(own))
    return make(wish, settings, lambda what: console.tell(f"{facts.name}: {what} ..."))


def _refuse_embedder(facts: ModelFacts) -> None:
    if facts.role == "embed":
        raise CommandError(
            f"'{facts.name}' is an embedding model; only chat models are tuned.\n"
            "  The vectors of a copy would not quite match those that are stored already."
        )


def texts_of(paths: Sequence[Path]) -> tuple[str, ...]:
    """Read the user's documents, the beginnings of 64 at most, evenly over all that are there.

    A file in a folder that cannot be read is left out.

    Raises:
        CommandError: there is none of this name, or no text in any.
        StepError: a file that was named itself cannot be read.
    """
    from paddock.steps.readers.documents import wait_for
    from paddock.steps.readers.reader_pool import ReaderPool, Request
    from paddock.steps.step import StepError

    files = [file for path in paths for file in _files(path)]
    step = max(1, -(-len(files) // _MOST_DOCUMENTS))
    found = []
    with closing(ReaderPool()) as readers:
        for file in files[::step]:
            request = Request(file, None, "auto", ocr=False, max_bytes=MOST_BYTES)
            try:
                text = wait_for(readers.submit(request), file).text
            except StepError:
                if file in paths:
                    raise
                continue
            if text.strip():
                found.append(text[:_MOST_CHARACTERS])
    if not found:
        names = ", ".join(f"'{path}'" for path in paths)
        raise CommandError(f"There is no text in {names}.")
    return tuple(found)


def _files(path: Path) -> list[Path]:
    """Return a file, or the files below a folder in the order of their names, but hidden ones."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CommandError(f"There is no file or folder '{path}'.")
    return sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )


def texts(examples: Path | None = None) -> tuple[str, ...]:
    """Read the documents that come with the package; those in other encodings are left out."""
    folder = (examples or _examples()) / _TEXTS
    found = []
    for file in sorted(folder.rglob("*")):
        if file.suffix in _TEXT_SUFFIXES:
            try:
                found.append(file.read_text("utf-8"))
            except UnicodeDecodeError:
                continue
    return tuple(found)


def _examples() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("paddock.examples")
    assert spec is not None
    assert spec.origin is not None
    # Resolved, because an editable install is a tree of links that lacks the data files.
    return Path(spec.origin).resolve().parent


def _undo(ref: str, settings: PoolSettings, *, as_json: bool) -> int:
    from paddock.engine.models import ModelFinder

    finder = ModelFinder(settings.models_dir, settings.cache_dir)
    facts = finder.find_original(ref)
    was = finder.tuned.forget(facts.digest)
    if as_json:
        console.say_json({"name": facts.name, "removed": was is not None})
    elif was is None:
        console.say(f"{facts.name} has no tuned copy.")
    else:
        console.say(f"Removed the tuned copy of {facts.name}; the original serves again.")
    return DONE


def _list(settings: PoolSettings, *, as_json: bool) -> int:
    from paddock.engine.tuning.tuned import TunedBook
    from paddock.runner.speed import SpeedBook

    copies = tuple(TunedBook(settings.cache_dir).all())
    gains = tuple(SpeedBook(settings).gains())
    if as_json:
        promised = [{"name": g.ref, "prompts": g.prompts, "job": g.job} for g in gains]
        console.say_json({"tuned": [as_object(one) for one in copies], "promised": promised})
        return DONE
    if copies:
        console.say(table(copies))
    for gain in gains:
        console.say(
            f"A tuned copy of {gain.ref} would read prompts about {gain.prompts:.1f} times as "
            f"fast: {gain.command}"
        )
    if not copies and not gains:
        console.tell("No model has a tuned copy, and of none it is known that one would help.")
    return DONE
