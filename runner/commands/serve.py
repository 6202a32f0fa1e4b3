"""`paddock serve`: the pool behind HTTP, until it is asked to end."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.runner.display import console

from .exits import DONE, CommandError, guarded

if TYPE_CHECKING:
    import socket

    from paddock.engine.api.server import PortTaken
    from paddock.runner.settings import Settings

KEYS = "api-keys"
"""In the state folder: where a file of keys is proposed."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve")(guarded(serve))


def serve(
    host: Annotated[
        str | None, typer.Option(metavar="HOST[:PORT]", help="127.0.0.1:11434 by default.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free one.")] = None,
    models: Annotated[str | None, typer.Option(metavar="DIR", help="The store.")] = None,
    api_keys: Annotated[
        str | None, typer.Option("--api-keys", metavar="FILE", help="One key in each line.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve other machines without keys.")
    ] = False,
    origins: Annotated[
        str | None, typer.Option(metavar="LIST", help="Web pages that may ask, besides local ones.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="N[/s]", help="Requests a minute of one key.")
    ] = None,
    keep_alive: Annotated[
        str | None,
        typer.Option("--keepalive", "--keep-alive", metavar="TIME", help="How long a model stays."),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Log each request, load and eviction.")
    ] = False,
) -> int:
    """Serve models over HTTP: Ollama's API and OpenAI's."""
    from paddock.runner.settings import read_settings

    given: dict[str, object] = {
        "host": host, "models": models, "api_keys": api_keys, "insecure": insecure or None,
        "origins": origins, "rate": rate, "keep_alive": keep_alive, "debug": debug or None,
    }  # fmt: skip
    flags = {name: value for name, value in given.items() if value is not None}
    settings = read_settings(Path.cwd(), flags=flags)
    if port is not None:
        settings = with_port(settings, port)
    refuse_open(settings)
    with _door(settings) as door:
        _log(is_debug=settings.is_debug)
        if settings.is_debug:
            settings = replace(settings, service=replace(settings.service, access_log=True))
        _run(settings, door)
    return DONE


def with_port(settings: Settings, port: int) -> Settings:
    """Give the settings with another port."""
    return replace(
        settings,
        service=replace(settings.service, port=port),
        address=replace(settings.address, port=port),
    )


def refuse_open(settings: Settings) -> None:
    """Refuse to serve other machines without keys, unless that is asked for.

    Raises:
        CommandError: with the line that makes a key and serves.
    """
    service = settings.service
    if service.is_loopback or service.is_insecure or service.api_keys_file is not None:
        return
    from paddock.engine.api.keys import how_to_make

    file = settings.state_dir / KEYS
    make = f"mkdir -p '{file.parent}' && {how_to_make(file)}"
    raise CommandError(
        f"Whoever reaches {service.netloc} could use this machine: there are no API keys.\n"
        f"  {make} && paddock serve --host {service.netloc} --api-keys '{file}'"
    )


def _door(settings: Settings) -> socket.socket:
    """Take the port before anything slow is begun.

    Raises:
        CommandError: another program has it, with the line that helps.
        CannotListen: it cannot be had at all.
    """
    from paddock.engine.api.server import PortTaken, listen

    try:
        return listen(settings.service.host, settings.service.port)
    except PortTaken as error:
        raise CommandError(_taken(error, settings)) from None


def _taken(error: PortTaken, settings: Settings) -> str:
    """Say who has the port, and what to type."""
    from paddock.runner import service

    from .neighbours import holder, is_unit

    who = service.identify(settings.address)
    pid, name = holder(error.port)
    told = f" ({name}, process {pid})" if pid else ""
    if who == "paddock":
        return f"Paddock serves at {settings.address.url} already{told}.\n  paddock ps"
    if who == "Ollama" and pid and is_unit(pid, "ollama.service"):
        remedy = "sudo systemctl stop ollama && paddock serve"
    else:
        remedy = f"paddock serve --host {settings.service.host} --port {_free_port(error.port)}"
    return f"Port {error.port} is taken by {who or 'another program'}{told}.\n  {remedy}"


def _free_port(near: int) -> int:
    """Find a port that could be had, above one that could not."""
    import socket

    for port in range(near + 1, min(near + 50, 65536)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return 0


def _log(*, is_debug: bool) -> None:
    import logging

    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("paddock").setLevel(logging.DEBUG if is_debug else logging.INFO)


def _run(settings: Settings, door: socket.socket) -> None:
    import asyncio

    from paddock.engine.api import access_log, server
    from paddock.runner.hosting import hosted
    from paddock.runner.residence.hosting import offered

    async def run() -> None:
        async with hosted(settings) as service, offered(settings, service.pool):
            await server.serve(service, door, lambda where: _ready(settings, where))

    with access_log.to_stream() if settings.service.access_log else nullcontext():
        asyncio.run(run())
    console.tell("Stopped.")


def _ready(settings: Settings, door: socket.socket) -> None:
    """Say where it is, and who may ask."""
    real = with_port(settings, door.getsockname()[1])
    console.tell(f"Paddock serves at {real.address.url}, models in {settings.pool.models_dir}.")
    service = settings.service
    if not service.is_loopback:
        who = "whoever has a key" if service.api_keys_file else "ANYBODY, WITHOUT A KEY"
        console.tell(f"It listens on {real.service.netloc}: {who} may use it.")
    if settings.without_effect:
        console.tell(f"Without effect here: {', '.join(settings.without_effect)}.")
    console.tell("Ctrl-C ends it.")
