"""`paddock service`: the local service that keeps models and Prefect for all runs here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.runner.display import console

from .exits import DONE, FAILED, guarded
from .machine import Json

if TYPE_CHECKING:
    from paddock.runner.residence.record import Residence
    from paddock.runner.settings import Settings

STOP_S = 30.0
_LOOK_S = 0.05


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="service",
        help="The local service: one pool and one Prefect server for all runs on this machine.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("status")(guarded(status))
    group.command("start")(guarded(start))
    group.command("stop")(guarded(stop))
    group.command("logs")(guarded(logs))
    app.add_typer(group)


def status(as_json: Json = False) -> int:
    """Say whether it runs, what it holds, and who uses it; ends with 1 where none runs."""
    from paddock.runner.residence import control, find
    from paddock.runner.settings import read_settings

    settings = read_settings(Path.cwd())
    own = find.find(settings)
    found = find.everyone(settings.state_dir)
    told = [{**control.ask(one), "socket": str(one.socket), "is_ours": one == own} for one in found]
    apart = None if any(one.kind == "serve" for one in found) else _served_at(settings)
    if as_json:
        console.say_json({"running": bool(told), "services": told, "serve": apart})
    elif told:
        console.say("\n\n".join(_text(one, settings.state_dir) for one in told))
        if apart:
            console.say(
                f"\n`paddock serve` runs apart from it, at {apart}: `paddock ps` shows both."
            )
    else:
        console.say("No local service runs. The next `paddock run` that has work to do starts one.")
    return DONE if told else FAILED


def _served_at(settings: Settings) -> str | None:
    """Return where `paddock serve` of this machine answers; None: it does not."""
    from paddock.runner import service

    address = settings.address
    is_there = service.is_near(address) and service.identify(address) == "paddock"
    return address.url if is_there else None


def start(as_json: Json = False) -> int:
    """Start it now, and wait until Prefect answers; the first run would start it too."""
    import asyncio

    from paddock.runner.residence.ensure import ensure
    from paddock.runner.residence.lodging import Lodging
    from paddock.runner.settings import read_settings

    settings = read_settings(Path.cwd())

    async def ready() -> tuple[Residence, dict[str, Any]]:
        residence = await ensure(settings, tell=console.tell)
        return residence, await Lodging(residence).prefect(150.0)

    residence, prefect = asyncio.run(ready())
    if as_json:
        console.say_json({"pid": residence.pid, "prefect": prefect})
    else:
        console.say(
            f"The local service runs (process {residence.pid}).{_page(prefect, settings.state_dir)}"
        )
    return DONE


def stop(as_json: Json = False) -> int:
    """End it; a run that uses it goes on by starting another."""
    from paddock.runner.residence import control, find
    from paddock.runner.settings import read_settings

    state_dir = read_settings(Path.cwd()).state_dir
    found = find.everyone(state_dir)
    for residence in found:
        control.ask(residence, "/stop", {})
    deadline = time.monotonic() + STOP_S
    while (left := find.everyone(state_dir)) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    pids = [one.pid for one in found]
    if as_json:
        console.say_json({"stopped": pids, "running": [one.pid for one in left]})
    elif left:
        console.tell(f"Process {left[0].pid} does not end. End it by `kill -9 {left[0].pid}`.")
    elif pids:
        console.say("Stopped.")
    else:
        console.say("No local service runs.")
    return FAILED if left else DONE


def logs(
    lines: Annotated[
        int, typer.Option("-n", "--lines", min=1, help="How many, from the end.")
    ] = 50,
) -> int:
    """Show the end of its log."""
    from paddock.runner.residence.place import log_of
    from paddock.runner.settings import read_settings

    file = log_of(read_settings(Path.cwd()).state_dir)
    try:
        text = file.read_text("utf-8", "replace")
    except FileNotFoundError:
        console.say(f"There is no log yet at {file}.")
        return DONE
    console.say("\n".join(text.splitlines()[-lines:]))
    return DONE


def _text(told: dict[str, Any], state_dir: Path) -> str:
    """Write what one service tells."""
    by = "" if told["kind"] == "background" else f", held by `paddock {told['kind']}`"
    head = f"Runs for {console.duration(told['since_s'])} (process {told['pid']}{by})."
    rows = [head, *_models(told["models"]), *_leases(told), _prefect(told["prefect"], state_dir)]
    if not told["is_ours"]:
        rows.append("It serves another version of Paddock, or other settings than those here.")
    return "\n".join(rows)


def _models(models: list[dict[str, Any]]) -> list[str]:
    if not models:
        return ["Models: none in memory."]
    return [
        f"Model {one['name']}: {one['state']}, "
        f"{console.size(one['host_bytes'] + one['device_bytes'])}, "
        f"{one.get('running', 0):,} running, {one.get('waiting', 0):,} waiting"
        for one in models
    ]


def _leases(told: dict[str, Any]) -> list[str]:
    rows = [
        f"In use by {one['pipeline']} (process {one['pid']}) for {console.duration(one['held_s'])}."
        for one in told["leases"]
    ]
    if rows or told["requests"]:
        ends = ["It ends when they have: a newer one runs."] if told["is_retired"] else []
        return rows + ends
    if told["kind"] != "background":
        return []
    left_s = max(0.0, told["idle_s"] - told["quiet_s"])
    return [f"Nobody uses it; it ends in {console.duration(left_s)} unless a run comes."]


def _prefect(prefect: dict[str, Any], state_dir: Path) -> str:
    if prefect["state"] == "off":
        return "Prefect: not started."
    if prefect["state"] == "ready":
        return f"Prefect:{_page(prefect, state_dir)}"
    why = f": {prefect['why']}" if prefect["why"] else ""
    return f"Prefect: {prefect['state']}{why}"


def _page(prefect: dict[str, Any], state_dir: Path) -> str:
    from paddock.runner.prefect_auth import password_file

    if prefect.get("state") != "ready":
        return ""
    url = str(prefect["url"]).removesuffix("/api")
    file = password_file(state_dir)
    return f" Runs are shown at {url}\n  That page asks for a password: {file} has it."
