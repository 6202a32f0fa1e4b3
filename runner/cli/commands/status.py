"""Command `paddock status`: unattended pipelines, waiting orders, addresses of services."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from paddock.engine.system import units
from paddock.engine.system.text import counted
from paddock.runner.cli.arguments import JsonOption
from paddock.runner.cli.exit_status import DONE, FAILED
from paddock.runner.cli.history_text import runs_table
from paddock.runner.daemon import daemon_client, daemon_files, service_client, service_lookup
from paddock.runner.folders.state_folders import find_ledgers
from paddock.runner.ledger.run_history import recent_runs
from paddock.runner.progress import printing
from paddock.runner.settings import read_settings


def status(as_json: JsonOption = False) -> int:
    """Show `paddock up` with its triggers and orders, the services, the last runs.

    Exit with 1 if no `paddock up` answers.
    """
    settings = read_settings(Path.cwd())
    up, why = service_client.ask_up(settings)
    daemons = daemon_files.running_daemons(settings.state_dir)
    own = daemon_files.find_daemon(settings)
    services = [
        {**daemon_client.ask_daemon(daemon), "is_ours": daemon == own} for daemon in daemons
    ]
    where, serve = settings.address.url, service_lookup.identify_service(settings)
    found = recent_runs(find_ledgers([Path()]), limit=5)
    if as_json:
        runs = [past.as_json() for past in found.runs]
        answer = {"up": up, "why": why or None, "services": services, "runs": runs}
        printing.print_json({**answer, "serve": {"address": where, "program": serve}})
        return DONE if up is not None else FAILED
    lines = [*_up_lines(up, settings.unattended.address.url)] if up is not None else [why]
    for service in services:
        lines += _service_lines(service)
    answering = f"{serve}" if serve else "nothing answers"
    if serve is service_lookup.ServerKind.PADDOCK:
        answering = "`paddock serve` answers"
    lines.append(f"{where}: {answering}.")
    printing.print_out("\n".join(map(printing.printable_message, (*lines, *found.faults))))
    if found.runs:
        printing.print_out(runs_table(found.runs, {}))
    return DONE if up is not None else FAILED


def _up_lines(up: Mapping[str, Any], where: str) -> Iterator[str]:
    yield (
        f"`paddock up` at {where}, process {up['pid']}: {counted(len(up['running']), 'run')} at "
        f"work, {counted(up['waiting'], 'order')} waiting."
    )
    for made in up["pipelines"]:
        facts = ["paused"] if made["is_paused"] else []
        if made.get("running"):
            facts.append(f"{counted(made['running'], 'run')} at work")
        if made.get("waiting"):
            at = datetime.fromisoformat(made["waiting_since"]).timestamp()
            since = units.local_time(at, "%Y-%m-%d %H:%M")
            facts.append(f"{counted(made['waiting'], 'order')} waiting since {since}")
        facts += [] if made["is_open"] else [f"waits for its window {made['window']}"]
        yield f"{made['name']}: {', '.join((*facts, *made['missing']))}".removesuffix(": ")
        for trigger in made["triggers"]:
            yield f"- {trigger['trigger']}: {service_client.trigger_text(trigger)}"
    if not up["is_prefect_there"]:
        yield "Prefect's server does not answer: runs go on without, and are shown there later."
    for place, words in up["faults"].items():
        yield words if place in words else f"{place}: {words}"


def _service_lines(service: Mapping[str, Any]) -> Iterator[str]:
    by = "" if service["kind"] == "background" else f", held by `paddock {service['kind']}`"
    took = units.duration(service["since_s"])
    yield f"The local service runs for {took} (process {service['pid']}{by})."
    for model in service["models"]:
        yield (
            f"- model {model['name']}: {model['state']}, "
            f"{units.size(model['host_bytes'] + model['device_bytes'])}, "
            f"{model.get('running', 0):,} running, {model.get('waiting', 0):,} waiting"
        )
    if service["requests"]:
        yield f"- in use by {counted(service['requests'], 'request')}"
        if service["is_retired"]:
            yield "- it ends after these: a newer service runs"
    elif service["kind"] == "background":
        left = units.duration(max(0.0, service["idle_s"] - service["quiet_s"]))
        yield f"- idle; it ends in {left} unless a run starts"
    if not service["is_ours"]:
        yield "- it belongs to another version of Paddock, or to other settings than these"
