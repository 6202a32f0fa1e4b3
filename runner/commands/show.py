"""`paddock show`: what is known of a model, as a whole or one part of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.runner.display import console

from . import model_ref
from .completion import model_names
from .exits import DONE, CommandError, guarded
from .machine import Json

if TYPE_CHECKING:
    from paddock.engine.store.cards import Card
    from paddock.runner.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("show")(guarded(show))


def show(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help=model_ref.HELP, autocompletion=model_names),
    ],
    modelfile: Annotated[bool, typer.Option("--modelfile", help="Only its Modelfile.")] = False,
    parameters: Annotated[bool, typer.Option("--parameters", help="Only its parameters.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Only its template.")] = False,
    system: Annotated[bool, typer.Option("--system", help="Only its system message.")] = False,
    licence: Annotated[
        bool, typer.Option("--license", "--licence", help="Only its licence.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also the file's values and tensors.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Say what is known of a model."""
    parts = {
        "modelfile": modelfile,
        "parameters": parameters,
        "template": template,
        "system": system,
        "license": licence,
    }
    wanted = [name for name, is_wanted in parts.items() if is_wanted]
    if len(wanted) > 1:
        raise CommandError("Only one of the parts can be shown at a time.")
    from paddock.runner.settings import read_settings

    settings = read_settings(Path.cwd())
    model = model_ref.meant(model)
    told = _asked(settings, model, is_verbose=verbose)
    told |= _measured(settings, model)
    if as_json:
        console.say_json(told)
    elif wanted:
        console.say(str(told.get(wanted[0]) or ""))
    else:
        from paddock.runner.display import card

        console.say(card.text(told, is_verbose=verbose))
    return DONE


def _asked(settings: Settings, model: str, *, is_verbose: bool) -> dict[str, Any]:
    from paddock.engine.store.names import is_path
    from paddock.runner import service

    client = None if is_path(model) else service.find(settings)
    if client is not None:
        with client:
            return client.post("/api/show", {"model": model, "verbose": is_verbose})
    from paddock.engine.models import ModelFinder
    from paddock.engine.store.cards import describe

    finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)
    found = describe(finder, model, is_verbose=is_verbose)
    copy = finder.tuned.find(finder.find_original(model).digest)
    tuned = {"tuned": f"{copy.label}, {copy.path}"} if copy is not None else {}
    return as_told(found) | tuned


def _measured(settings: Settings, model: str) -> dict[str, Any]:
    """Return how a model computes on this machine, and what its answers keep."""
    from paddock.runner.speed import SpeedBook

    manner = SpeedBook(settings.pool).manner(model)
    if manner is None:
        return {}
    keeps = {"drafts_keep_answers": manner.drafts} if manner.drafts is not None else {}
    return {"greedy_answers": manner.promise(), "flash_attention": manner.flash(), **keeps}


def as_told(card: Card) -> dict[str, Any]:
    """Give a card as `/api/show` tells it, with the file's path and size."""
    texts = ("license", "modelfile", "parameters", "template", "system", "path")
    return {
        **{name: getattr(card, name) for name in texts if getattr(card, name)},
        "details": {**asdict(card.details), "families": list(card.details.families)},
        "messages": [{"role": one.role, "content": one.content} for one in card.messages],
        "model_info": dict(card.model_info),
        **({"projector_info": dict(card.projector_info)} if card.projector_info else {}),
        "tensors": [{**asdict(one), "shape": list(one.shape)} for one in card.tensors],
        "capabilities": list(card.capabilities),
        "modified_at": card.modified_at.isoformat(),
        "size": card.size_bytes,
    }
