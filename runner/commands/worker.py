"""`paddock worker`: this machine works for a Paddock of several."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .exits import CommandError, guarded


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("worker")(guarded(worker))


def worker(
    name: Annotated[
        str | None, typer.Option(help="What this machine is called; its host's name by default.")
    ] = None,
    work_pool: Annotated[
        str | None, typer.Option("--work-pool", help="Where runs come from: PADDOCK_WORK_POOL.")
    ] = None,
    max_runs: Annotated[
        int | None, typer.Option("--max-runs", min=1, help="Runs at a time.")
    ] = None,
    allow: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="What pipelines may reach on this machine."),
    ] = None,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log one JSON object a line, runs' items too.")
    ] = False,
) -> int:
    """Take runs from a work pool, with models of this machine, until it is asked to end."""
    import asyncio
    import socket

    from paddock.runner import logs
    from paddock.runner.cluster.worker import work
    from paddock.runner.settings import read_settings

    given: dict[str, object] = {"work_pool": work_pool, "max_runs": max_runs, "allow": allow}
    given["log_json"] = log_json or None
    flags = {key: value for key, value in given.items() if value is not None}
    settings = read_settings(Path.cwd(), flags=flags)
    api_url = os.environ.get("PREFECT_API_URL", "").strip()
    if not api_url:
        raise CommandError("Set PREFECT_API_URL to the Prefect server from which runs come.")
    if not settings.unattended.work_pool:
        raise CommandError("Set PADDOCK_WORK_POOL, or use `--work-pool`; `paddock cluster init`.")
    if not settings.ledger_url:
        raise CommandError(
            "The ledger is a file, which one machine at a time can work with. Set PADDOCK_LEDGER "
            "to a PostgreSQL that all machines reach; `paddock cluster init` checks it."
        )
    logs.prepare(settings)
    if allow is not None:
        os.environ["PADDOCK_ALLOW"] = allow  # for the processes of its runs
    if settings.service.is_log_json:
        os.environ["PADDOCK_LOG_JSON"] = "1"  # for the processes of its runs
    return asyncio.run(work(settings, name or socket.gethostname(), api_url))
