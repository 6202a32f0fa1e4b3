"""Commands that move models: `pull` and `push`. By the running service, else by this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.runner.display import console

from .completion import model_names
from .exits import DONE, INTERRUPTED, guarded
from .machine import Json

if TYPE_CHECKING:
    from paddock.engine.store.progress import Progress
    from paddock.engine.store.transfer.options import TransferOptions
    from paddock.runner.client import Client
    from paddock.runner.settings import Settings

_Insecure = Annotated[bool, typer.Option("--insecure", help="Speak to registries by plain HTTP.")]
_Tell = Callable[[str, int | None, int | None], None]
"""Takes a status, and how much of how much."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is to be moved, as the person wrote it."""

    verb: str
    model: str
    insecure: bool = False
    as_name: str | None = None

    def body(self) -> dict[str, object]:
        """Give the request to a service."""
        named = {"as": self.as_name} if self.as_name else {}
        return {"model": self.model, "insecure": self.insecure, **named}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("pull")(guarded(pull))
    app.command("push")(guarded(push))


def pull(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A name, hf:OWNER/REPO[:QUANT], an URL or a file."),
    ],
    as_name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="What it is to be called here.")
    ] = None,
    insecure: _Insecure = False,
    as_json: Json = False,
) -> int:
    """Bring a model; what was begun before is continued."""
    from paddock.engine.store.transfer.sources import read_source
    from paddock.runner.service import is_near
    from paddock.runner.settings import read_settings

    from .fitting import Watch

    source = read_source(model, as_name)
    settings = read_settings(Path.cwd())
    watch = Watch(settings.pool) if is_near(settings.address) else None
    console.tell(f"{source.name.short} from {source}")
    status = _move(
        _Wish("pull", model, insecure, as_name), settings, watch.coming if watch else None
    )
    if status == DONE and watch is not None:
        watch.look_at(source.name.short)
    if as_json:
        console.say_json({"ok": status == DONE, "model": source.name.short})
    return status


def push(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Where to: HOST/NAMESPACE/MODEL[:TAG].",
            autocompletion=model_names,
        ),
    ],
    insecure: _Insecure = False,
    as_json: Json = False,
) -> int:
    """Bring a model to a registry."""
    from paddock.runner.settings import read_settings

    status = _move(_Wish("push", model, insecure), read_settings(Path.cwd()), None)
    if as_json:
        console.say_json({"ok": status == DONE, "model": model})
    return status


def _move(wish: _Wish, settings: Settings, heed: Callable[[int], None] | None) -> int:
    """Show how far it is until it is done; `heed` is told the sizes of what comes."""
    from paddock.runner import service
    from paddock.runner.display.bars import following

    client = service.find(settings)
    try:
        with following() as teller:

            def tell(status: str, total: int | None, completed: int | None) -> None:
                teller.tell(status, total, completed)
                if heed is not None and total:
                    heed(total)

            if client is not None:
                with client:
                    _by_service(client, wish, tell)
            else:
                import asyncio

                asyncio.run(_by_ourselves(settings, wish, tell))
    except KeyboardInterrupt:
        console.tell(f"Interrupted. `paddock {wish.verb} {wish.model}` goes on where it stopped.")
        return INTERRUPTED
    return DONE


def _by_service(client: Client, wish: _Wish, tell: _Tell) -> None:
    from contextlib import closing

    from paddock.engine.store.transfer.sources import FromFile, read_source

    source = read_source(wish.model, wish.as_name) if wish.verb == "pull" else None
    if isinstance(source, FromFile):
        # A service takes no paths: what lies here is sent to it.
        from paddock.engine.gguf import part_names
        from paddock.engine.store.recipe import Recipe
        from paddock.runner.making import make_by_service

        path = source.path.expanduser()
        files: dict[str, str | Path] = {
            name: path.with_name(name) for name in part_names(path.name)
        }
        make_by_service(client, Recipe(source.name.short, files=files), tell)
        return
    with closing(client.stream(f"/api/{wish.verb}", wish.body())) as lines:
        for line in lines:
            tell(str(line.get("status", "")), line.get("total"), line.get("completed"))


async def _by_ourselves(settings: Settings, wish: _Wish, tell: _Tell) -> None:
    async for one in _moving(settings, wish):
        tell(one.status, one.total, one.completed)


def _moving(settings: Settings, wish: _Wish) -> AsyncIterator[Progress]:
    from paddock.engine.models import ModelFinder
    from paddock.engine.store.transfer.pull import pull
    from paddock.engine.store.transfer.push import push

    finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)
    options = transfer_options(settings, finder.kept(), insecure=wish.insecure)
    if wish.verb == "push":
        return push(finder.store, wish.model, options=options)
    return pull(finder.store, wish.model, options=options, as_name=wish.as_name)


def transfer_options(
    settings: Settings, kept: set[str], *, insecure: bool = False
) -> TransferOptions:
    """Give what holds for every transfer that somebody at this machine asks for."""
    from paddock.engine.store.transfer.options import TransferOptions

    return TransferOptions(
        insecure=insecure,
        trusted_hosts=settings.service.trusted_hosts,
        accepts_paths=True,
        keep=tuple(kept),
    )
