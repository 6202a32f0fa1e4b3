"""`paddock serve`: the HTTP service in the foreground; `paddock service`.

The background service of this machine.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.engine.system import units
from paddock.runner.cli.exit_status import DONE, FAILED, CommandError, with_exit_status
from paddock.runner.progress import console

from .init_schema_steps import JsonOption

if TYPE_CHECKING:
    import socket

    from paddock.engine.api.server import PortTaken
    from paddock.runner.daemon.daemon_files import DaemonInfo
    from paddock.runner.settings import Settings

KEYS_FILE_NAME = "api-keys"
"""In the state folder: where a file of keys is proposed."""


def register_serve(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve")(with_exit_status(serve))


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
    refuse_open_service(settings)
    with _open_port(settings) as door:
        _configure_logging(is_debug=settings.is_debug)
        if settings.is_debug:
            settings = replace(settings, service=replace(settings.service, access_log=True))
        _run_server(settings, door)
    return DONE


def with_port(settings: Settings, port: int) -> Settings:
    """Return the settings with another port."""
    return replace(
        settings,
        service=replace(settings.service, port=port),
        address=replace(settings.address, port=port),
    )


def refuse_open_service(settings: Settings) -> None:
    """Refuse to serve other machines without keys, unless that is asked for.

    Raises:
        CommandError: with the line that makes a key and serves.
    """
    service = settings.service
    if service.is_loopback or service.is_insecure or service.api_keys_file is not None:
        return
    from paddock.engine.api.api_keys import key_command

    file = settings.state_dir / KEYS_FILE_NAME
    make = f"mkdir -p '{file.parent}' && {key_command(file)}"
    raise CommandError(
        f"Whoever reaches {service.netloc} could use this machine: there are no API keys.\n"
        f"  {make} && paddock serve --host {service.netloc} --api-keys '{file}'"
    )


def _open_port(settings: Settings) -> socket.socket:
    """Take the port before anything slow is begun.

    Raises:
        CommandError: another program has it, with the line that helps.
        CannotListen: it cannot be had at all.
    """
    from paddock.engine.api.server import PortTaken, listen

    try:
        return listen(settings.service.host, settings.service.port)
    except PortTaken as error:
        raise CommandError(_port_taken_text(error, settings)) from None


def _port_taken_text(error: PortTaken, settings: Settings) -> str:
    """Return who has the port, and what to type."""
    from paddock.runner.cli.doctor import is_systemd_unit, port_holder
    from paddock.runner.daemon import service_client

    who = service_client.identify_server(settings.address)
    pid, name = port_holder(error.port)
    told = f" ({name}, process {pid})" if pid else ""
    if who == "paddock":
        return f"Paddock serves at {settings.address.url} already{told}.\n  paddock ps"
    if who == "Ollama" and pid and is_systemd_unit(pid, "ollama.service"):
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


def _configure_logging(*, is_debug: bool) -> None:
    import logging

    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("paddock").setLevel(logging.DEBUG if is_debug else logging.INFO)


def _run_server(settings: Settings, door: socket.socket) -> None:
    import asyncio

    from paddock.engine.api import request_log, server
    from paddock.runner.daemon.daemon_server import offer_pool
    from paddock.runner.daemon.service_client import hosted_service

    async def run() -> None:
        async with hosted_service(settings) as service, offer_pool(settings, service.pool):
            await server.serve(service, door, lambda where: _print_address(settings, where))

    with request_log.access_log_to_stream() if settings.service.access_log else nullcontext():
        asyncio.run(run())
    console.print_err("Stopped.")


def _print_address(settings: Settings, door: socket.socket) -> None:
    """Say where it is, and who may ask."""
    real = with_port(settings, door.getsockname()[1])
    console.print_err(
        f"Paddock serves at {real.address.url}, models in {settings.pool.models_dir}."
    )
    service = settings.service
    if not service.is_loopback:
        who = "whoever has a key" if service.api_keys_file else "ANYBODY, WITHOUT A KEY"
        console.print_err(f"It listens on {real.service.netloc}: {who} may use it.")
    if settings.without_effect:
        console.print_err(f"Without effect here: {', '.join(settings.without_effect)}.")
    console.print_err("Ctrl-C ends it.")


STOP_TIMEOUT_S = 30.0
_POLL_S = 0.05


def register_service(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="service",
        help="The local service: one pool and one Prefect server for all runs on this machine.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("status")(with_exit_status(status))
    group.command("start")(with_exit_status(start))
    group.command("stop")(with_exit_status(stop))
    group.command("logs")(with_exit_status(logs))
    app.add_typer(group)


def status(as_json: JsonOption = False) -> int:
    """Return whether it runs, what it holds, and who uses it; ends with 1 where none runs."""
    from paddock.runner.daemon import daemon_client, daemon_files
    from paddock.runner.settings import read_settings

    settings = read_settings(Path.cwd())
    own = daemon_files.find_daemon(settings)
    found = daemon_files.running_daemons(settings.state_dir)
    told = [
        {**daemon_client.ask_daemon(one), "socket": str(one.socket), "is_ours": one == own}
        for one in found
    ]
    apart = None if any(one.kind == "serve" for one in found) else _served_at(settings)
    if as_json:
        console.print_json({"running": bool(told), "services": told, "serve": apart})
    elif told:
        console.print_out("\n\n".join(_status_text(one, settings.state_dir) for one in told))
        if apart:
            console.print_out(
                f"\n`paddock serve` runs apart from it, at {apart}: `paddock ps` shows both."
            )
    else:
        console.print_out(
            "No local service runs. The next `paddock run` that has work to do starts one."
        )
    return DONE if told else FAILED


def _served_at(settings: Settings) -> str | None:
    """Return where `paddock serve` of this machine answers; None: it does not."""
    from paddock.runner.daemon import service_client

    address = settings.address
    is_there = (
        service_client.is_this_machine(address)
        and service_client.identify_server(address) == "paddock"
    )
    return address.url if is_there else None


def start(as_json: JsonOption = False) -> int:
    """Start it now, and wait until Prefect answers; the first run would start it too."""
    import asyncio

    from paddock.runner.daemon.daemon_client import DaemonLease, ensure_daemon
    from paddock.runner.settings import read_settings

    settings = read_settings(Path.cwd())

    async def ready() -> tuple[DaemonInfo, dict[str, Any]]:
        residence = await ensure_daemon(settings, tell=console.print_err)
        return residence, await DaemonLease(residence).prefect(150.0)

    residence, prefect = asyncio.run(ready())
    if as_json:
        console.print_json({"pid": residence.pid, "prefect": prefect})
    else:
        console.print_out(
            f"The local service runs (process {residence.pid}).{_prefect_page(prefect, settings.state_dir)}"
        )
    return DONE


def stop(as_json: JsonOption = False) -> int:
    """End it; a run that uses it goes on by starting another."""
    from paddock.runner.daemon import daemon_client, daemon_files
    from paddock.runner.settings import read_settings

    state_dir = read_settings(Path.cwd()).state_dir
    found = daemon_files.running_daemons(state_dir)
    for residence in found:
        daemon_client.ask_daemon(residence, "/stop", {})
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while (left := daemon_files.running_daemons(state_dir)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    pids = [one.pid for one in found]
    if as_json:
        console.print_json({"stopped": pids, "running": [one.pid for one in left]})
    elif left:
        console.print_err(f"Process {left[0].pid} does not end. End it by `kill -9 {left[0].pid}`.")
    elif pids:
        console.print_out("Stopped.")
    else:
        console.print_out("No local service runs.")
    return FAILED if left else DONE


def logs(
    lines: Annotated[
        int, typer.Option("-n", "--lines", min=1, help="How many, from the end.")
    ] = 50,
) -> int:
    """Show the end of its log."""
    from paddock.runner.daemon.daemon_files import daemon_log
    from paddock.runner.settings import read_settings

    file = daemon_log(read_settings(Path.cwd()).state_dir)
    try:
        text = file.read_text("utf-8", "replace")
    except FileNotFoundError:
        console.print_out(f"There is no log yet at {file}.")
        return DONE
    console.print_out("\n".join(text.splitlines()[-lines:]))
    return DONE


def _status_text(told: dict[str, Any], state_dir: Path) -> str:
    """Write what one service tells."""
    by = "" if told["kind"] == "background" else f", held by `paddock {told['kind']}`"
    head = f"Runs for {units.duration(told['since_s'])} (process {told['pid']}{by})."
    rows = [
        head,
        *_model_lines(told["models"]),
        *_lease_lines(told),
        _prefect_line(told["prefect"], state_dir),
    ]
    if not told["is_ours"]:
        rows.append("It serves another version of Paddock, or other settings than those here.")
    return "\n".join(rows)


def _model_lines(models: list[dict[str, Any]]) -> list[str]:
    if not models:
        return ["Models: none in memory."]
    return [
        f"Model {one['name']}: {one['state']}, "
        f"{units.size(one['host_bytes'] + one['device_bytes'])}, "
        f"{one.get('running', 0):,} running, {one.get('waiting', 0):,} waiting"
        for one in models
    ]


def _lease_lines(told: dict[str, Any]) -> list[str]:
    rows = [
        f"In use by {one['pipeline']} (process {one['pid']}) for {units.duration(one['held_s'])}."
        for one in told["leases"]
    ]
    if rows or told["requests"]:
        ends = ["It ends when they have: a newer one runs."] if told["is_retired"] else []
        return rows + ends
    if told["kind"] != "background":
        return []
    left_s = max(0.0, told["idle_s"] - told["quiet_s"])
    return [f"Nobody uses it; it ends in {units.duration(left_s)} unless a run comes."]


def _prefect_line(prefect: dict[str, Any], state_dir: Path) -> str:
    if prefect["state"] == "off":
        return "Prefect: not started."
    if prefect["state"] == "ready":
        return f"Prefect:{_prefect_page(prefect, state_dir)}"
    why = f": {prefect['why']}" if prefect["why"] else ""
    return f"Prefect: {prefect['state']}{why}"


def _prefect_page(prefect: dict[str, Any], state_dir: Path) -> str:
    from paddock.runner.daemon.prefect_auth import password_file

    if prefect.get("state") != "ready":
        return ""
    url = str(prefect["url"]).removesuffix("/api")
    file = password_file(state_dir)
    return f" Runs are shown at {url}\n  That page asks for a password: {file} has it."
