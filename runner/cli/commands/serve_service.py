"""Commands on services: `paddock serve` in the foreground, `paddock service` in the background."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from paddock.engine.system import units
from paddock.engine.system.light_dataclasses import asdict, dataclass
from paddock.engine.system.text import counted
from paddock.runner.cli.arguments import (
    ApiKeysOption,
    ExactOption,
    JsonOption,
    flag,
    given_settings,
    option,
)
from paddock.runner.cli.exit_status import DONE, FAILED, command_group
from paddock.runner.daemon import daemon_client, daemon_files, service_client
from paddock.runner.daemon.daemon_client import ensure_daemon
from paddock.runner.daemon.daemon_files import daemon_log
from paddock.runner.daemon.prefect_server import end_host
from paddock.runner.progress import printing
from paddock.runner.settings import read_settings


@dataclass(frozen=True, slots=True)
class ServeFlags:
    """Options of `paddock serve`."""

    host: str | None = option("127.0.0.1:11434 by default.", metavar="HOST[:PORT]")
    port: int | None = option("0: any free port.", min=0, max=65535)
    models: str | None = option("The model store.", metavar="DIR")
    api_keys: ApiKeysOption = None
    insecure: bool = flag("Serve other machines without keys.", "--insecure")
    origins: str | None = option("Web origins to allow, besides local ones.", metavar="LIST")
    rate: str | None = option("Requests per minute for each key.", metavar="N[/s]")
    keep_alive: str | None = option(
        "How long a model stays.", "--keepalive", "--keep-alive", metavar="TIME"
    )
    exact: ExactOption = False
    debug: bool = flag("Log each request, load and eviction.", "--debug")


def serve(flags: ServeFlags) -> int:
    """Serve models over HTTP: Ollama's API and OpenAI's."""
    from paddock.runner.cli.http_serving import serve_models

    own = asdict(flags)
    port = own.pop("port")  # the other options have the names of their settings
    serve_models(read_settings(Path.cwd(), flags=given_settings(**own)), port)
    return DONE


STOP_TIMEOUT_S = 30.0
_POLL_S = 0.05


def status(as_json: JsonOption = False) -> int:
    """Show whether it runs, its models and its users; exit with 1 if none runs."""
    settings = read_settings(Path.cwd())
    own = daemon_files.find_daemon(settings)
    found = daemon_files.running_daemons(settings.state_dir)
    services = [
        {**daemon_client.ask_daemon(daemon), "socket": str(daemon.socket), "is_ours": daemon == own}
        for daemon in found
    ]
    is_apart = (
        all(daemon.kind != "serve" for daemon in found)
        and service_client.is_this_machine(settings.address)
        and service_client.identify_service(settings) == "paddock"
    )
    apart = settings.address.url if is_apart else None
    if as_json:
        printing.print_json({"running": bool(services), "services": services, "serve": apart})
    elif services:
        printing.print_out("\n\n".join(_status_text(service) for service in services))
        if apart:
            printing.print_out(
                f"\n`paddock serve` also runs, at {apart}: `paddock ps` shows the models of both."
            )
    else:
        printing.print_out(
            "No local service runs. The next `paddock run` with work to do starts one."
        )
    return DONE if services else FAILED


def start(as_json: JsonOption = False) -> int:
    """Start it now; the first run would also start it."""
    daemon = asyncio.run(ensure_daemon(read_settings(Path.cwd()), printing.print_err))
    words = f"The local service runs (process {daemon.pid})."
    printing.print_result({"pid": daemon.pid}, words, as_json=as_json)
    return DONE


def stop(as_json: JsonOption = False) -> int:
    """Stop it, and a Prefect server that `--prefect` started; runs that need one start another."""
    state_dir = read_settings(Path.cwd()).state_dir
    found = daemon_files.running_daemons(state_dir)
    for daemon in found:
        daemon_client.ask_daemon(daemon, "/stop", {})
    host = end_host(state_dir)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while (left := daemon_files.running_daemons(state_dir)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    pids = [*(daemon.pid for daemon in found), *([] if host is None else [host])]
    if as_json:
        printing.print_json({"stopped": pids, "running": [daemon.pid for daemon in left]})
    elif left:
        printing.print_err(f"Process {left[0].pid} does not end. Kill it: `kill -9 {left[0].pid}`.")
    elif pids:
        printing.print_out("Stopped.")
    else:
        printing.print_out("No local service runs.")
    return FAILED if left else DONE


def logs(lines: int = option("Number of lines.", "-n", "--lines", default=50, min=1)) -> int:
    """Show the end of its log."""
    file = daemon_log(read_settings(Path.cwd()).state_dir)
    try:
        text = file.read_text("utf-8", "replace")
    except FileNotFoundError:
        printing.print_out(f"There is no log yet at {file}.")
        return DONE
    printing.print_out("\n".join(text.splitlines()[-lines:]))
    return DONE


def _status_text(service: dict[str, Any]) -> str:
    by = "" if service["kind"] == "background" else f", held by `paddock {service['kind']}`"
    rows = [f"Running for {units.duration(service['since_s'])} (process {service['pid']}{by})."]
    rows += [
        f"Model {model['name']}: {model['state']}, "
        f"{units.size(model['host_bytes'] + model['device_bytes'])}, "
        f"{model.get('running', 0):,} running, {model.get('waiting', 0):,} waiting"
        for model in service["models"]
    ] or ["Models: none in memory."]
    if service["requests"]:
        rows.append(f"In use by {counted(service['requests'], 'request')}.")
        rows += ["It ends after these: a newer service runs."] if service["is_retired"] else []
    elif service["kind"] == "background":
        left_s = max(0.0, service["idle_s"] - service["quiet_s"])
        rows.append(f"Idle; it ends in {units.duration(left_s)} unless a run starts.")
    if not service["is_ours"]:
        rows.append("It belongs to another version of Paddock, or to other settings than these.")
    return "\n".join(rows)


service = command_group(
    "service",
    "Local service: one pool for all runs on this machine.",
    {"status": status, "start": start, "stop": stop, "logs": logs},
)
