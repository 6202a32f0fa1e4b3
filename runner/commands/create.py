"""`paddock create`: a model made by a Modelfile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.runner.display import console

from .exits import DONE, CommandError, guarded
from .machine import Json

if TYPE_CHECKING:
    from paddock.engine.store.progress import Progress
    from paddock.engine.store.recipe import Recipe
    from paddock.runner.display.bars import Teller
    from paddock.runner.settings import Settings

MODELFILE = "Modelfile"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("create")(guarded(create))


def create(
    model: Annotated[str, typer.Argument(metavar="NEW", help="What it is to be called.")],
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", metavar="MODELFILE", help="./Modelfile by default."),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option("--quantize", "--quantise", "-q", metavar="FORMAT", help="Such as Q4_K_M."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Make a model by a Modelfile."""
    from paddock.engine.store.names import parse_name
    from paddock.runner import making, service
    from paddock.runner.display.bars import following
    from paddock.runner.settings import read_settings

    name = parse_name(model).short
    recipe = _recipe(name, file, quantize or "")
    settings = read_settings(Path.cwd())
    client = service.find(settings)
    with following() as teller:
        if client is not None:
            with client:
                making.make_by_service(client, recipe, teller.tell)
        else:
            _by_ourselves(settings, recipe, teller)
    if as_json:
        console.say_json({"ok": True, "model": name})
    else:
        console.say(f"Made '{name}'.\nNext: paddock chat {name}")
    return DONE


def _recipe(name: str, file: str | None, quantize: str) -> Recipe:
    """Read the Modelfile.

    Raises:
        CommandError: there is none.
        ModelfileError: with every fault and its line.
    """
    from paddock.engine.store.modelfile import parse_modelfile
    from paddock.engine.store.recipe import read_recipe

    from .words import read_input

    if file == "-":
        text, folder, shown = read_input(), Path.cwd(), "standard input"
    else:
        path = Path(file or MODELFILE).expanduser()
        if path.is_dir():
            path /= MODELFILE
        if not path.is_file():
            remedy = "Name it: `paddock create NEW -f FILE`."
            raise CommandError(f"There is no file '{path}'.\n  {remedy}")
        text, folder, shown = path.read_text("utf-8", "replace"), path.parent, str(path)
    modelfile = parse_modelfile(text, shown)
    return read_recipe(name, modelfile, folder, path=shown, quantize=quantize)


def _by_ourselves(settings: Settings, recipe: Recipe, teller: Teller) -> None:
    """Make it in this process; a base that is not here is brought first."""
    import asyncio

    from paddock.engine.errors import ModelNotFound
    from paddock.engine.models import ModelFinder
    from paddock.engine.store.creation import create as make
    from paddock.engine.store.transfer.pull import pull

    from .transfers import transfer_options

    finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)

    def report(one: Progress) -> None:
        teller.tell(one.status, one.total, one.completed)

    async def bring(base: str) -> None:
        options = transfer_options(settings, finder.kept())
        async for one in pull(finder.store, base, options=options):
            report(one)

    try:
        make(finder.store, finder, recipe, report)
    except ModelNotFound:
        if recipe.base is None:
            raise
        asyncio.run(bring(recipe.base))
        make(finder.store, finder, recipe, report)
