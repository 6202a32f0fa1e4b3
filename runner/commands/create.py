"""`paddock create`: a model made by a Modelfile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.runner.display import console

from .exits import DONE, CommandError, guarded
from .machine import Json

if TYPE_CHECKING:
    from paddock.engine.store.progress import Progress
    from paddock.engine.store.recipe import Recipe
    from paddock.runner.display.bars import Teller
    from paddock.runner.service import Client
    from paddock.runner.settings import Settings

MODELFILE = "Modelfile"
Tell = Callable[[str, int | None, int | None], None]
"""Takes a status, and how much of how much."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("create")(guarded(create))


def create(
    model: Annotated[str, typer.Argument(metavar="NEW")],
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
    from paddock.runner import service
    from paddock.runner.display.bars import following
    from paddock.runner.settings import read_settings

    name = parse_name(model).short
    recipe = _recipe(name, file, quantize or "")
    settings = read_settings(Path.cwd())
    client = service.find(settings)
    with following() as teller:
        if client is not None:
            with client:
                make_by_service(client, recipe, teller.tell)
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


def make_by_service(client: Client, recipe: Recipe, tell: Tell) -> None:
    """Send what the service lacks, and let it make the model."""
    from contextlib import closing

    body = as_body(recipe) | {
        "files": {name: _sent(client, source, tell) for name, source in recipe.files.items()},
        "adapters": {name: _sent(client, source, tell) for name, source in recipe.adapters.items()},
    }
    wanted = {name: value for name, value in body.items() if value}
    with closing(client.stream("/api/create", wanted)) as lines:
        for line in lines:
            tell(str(line.get("status", "")), line.get("total"), line.get("completed"))


def _sent(client: Client, source: str | Path, tell: Tell) -> str:
    """Give a file's digest, once the service has its content."""
    import hashlib

    if isinstance(source, str):
        return source
    tell(f"reading {source.name}", None, None)
    with source.open("rb") as content:
        digest = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
    if not client.has_blob(digest):
        tell(f"sending {source.name}", None, None)
        client.upload(digest, source)
    return digest


def as_body(recipe: Recipe) -> dict[str, Any]:
    """Give what `/api/create` takes, files aside."""
    return {
        "model": recipe.name,
        "from": recipe.base,
        "template": recipe.template,
        "system": recipe.system,
        "license": list(recipe.licenses),
        "parameters": dict(recipe.parameters),
        "messages": [{"role": one.role, "content": one.content} for one in recipe.messages],
        "quantize": recipe.quantize,
        "renderer": recipe.renderer,
        "parser": recipe.parser,
        "requires": recipe.requires,
    }
