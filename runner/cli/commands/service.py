"""Commands on services: `paddock serve` in the foreground, `paddock service` in the background."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from paddock.runner.cli.arguments import (
    JsonOption,
    api_keys_option,
    exact_flag,
    flag,
    given_settings,
    option,
)
from paddock.runner.cli.exit_status import DONE, FAILED, command_group
from paddock.runner.daemon import daemon_client, daemon_files
from paddock.runner.daemon.prefect_server import end_keeper
from paddock.runner.progress import printing
from paddock.runner.settings import read_settings


@dataclass(frozen=True, slots=True)
class ServeFlags:
    host: str | None = option("127.0.0.1:11434 by default.", metavar="HOST[:PORT]")
    port: int | None = option("0: any free port.", min=0, max=65535)
    models: str | None = option("The model store.", metavar="DIR")
    api_keys: str | None = api_keys_option()
    insecure: bool = flag("Serve other machines without keys.", "--insecure")
    origins: str | None = option("Web origins to allow, besides local ones.", metavar="LIST")
    rate: str | None = option("Requests per minute for each key.", metavar="N[/s]")
    keep_alive: str | None = option(
        "How long a model stays.", "--keepalive", "--keep-alive", metavar="TIME"
    )
    exact: bool = exact_flag()
    debug: bool = flag("Log each request, load and eviction.", "--debug")


def serve(flags: ServeFlags) -> int:
    from paddock.runner.cli.http_serving import serve_models

    own = asdict(flags)
    port = own.pop("port")  # the other options have the names of their settings
    serve_models(read_settings(Path.cwd(), flags=given_settings(**own)), port)
    return DONE


STOP_TIMEOUT_S = 30.0
_POLL_S = 0.05


def stop(as_json: JsonOption = False) -> int:
    """Stop it, and a Prefect server that `--prefect` started; runs that need one start another."""
    state_dir = read_settings(Path.cwd()).state_dir
    found = daemon_files.running_daemons(state_dir)
    for daemon in found:
        daemon_client.ask_daemon(daemon, "/stop", {})
    keeper = end_keeper(state_dir)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while (left := daemon_files.running_daemons(state_dir)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    pids = [*(daemon.pid for daemon in found), *([] if keeper is None else [keeper])]
    if as_json:
        printing.print_json({"stopped": pids, "running": [daemon.pid for daemon in left]})
    elif left:
        printing.print_err(f"Process {left[0].pid} does not end. Kill it: `kill -9 {left[0].pid}`.")
    elif pids:
        printing.print_out("Stopped.")
    else:
        printing.print_out("No local service runs.")
    return FAILED if left else DONE


service = command_group("service", {"stop": stop})
