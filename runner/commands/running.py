"""Commands about models in memory, whichever service holds them: `ps` and `stop`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.runner.display import console

from . import model_ref
from .completion import model_names
from .exits import DONE, guarded
from .machine import Json, Prefix

if TYPE_CHECKING:
    from paddock.runner.client import Client
    from paddock.runner.settings import Settings

_FOREVER_S = 100 * 365 * 86400.0  # `keep_alive` below zero is told as centuries
_ID_CHARS = 12


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("ps")(guarded(ps))
    app.command("stop")(guarded(stop))


def ps(prefix: Prefix = "", as_json: Json = False) -> int:
    """List the models in memory, how busy they are, and which service holds them.

    That is `serve`, and the service in the background that runs share. RUNNING counts requests
    that are in a batch, QUEUE those that wait.
    """
    from paddock.runner.settings import read_settings

    held = _held(read_settings(Path.cwd()))
    rows = (row for one in held for row in one.rows)
    models = [row for row in rows if str(row.get("name", "")).lower().startswith(prefix.lower())]
    if as_json:
        n_queued = sum(one.n_queued for one in held)
        console.say_json({"models": models, "queue_depth": n_queued})
    else:
        console.say(table(models, datetime.now(UTC)))
    return DONE


@dataclass(frozen=True, slots=True)
class _Held:
    """What one service holds."""

    client: Client
    rows: list[dict[str, Any]]
    n_queued: int

    def has(self, ref: str) -> bool:
        """Return whether a model is in memory there."""
        return any(_full(str(row.get("name", ""))) == _full(ref) for row in self.rows)


def _held(settings: Settings) -> list[_Held]:
    """Ask every service what it holds; one that does not answer is told and left out.

    Raises:
        ServiceError: there is none, or none answers.
    """
    from paddock.runner import service
    from paddock.runner.client import ServiceError

    held, faults = [], []
    for name, client in service.everyone(settings):
        try:
            answer = client.get("/api/ps")
        except ServiceError as error:
            faults.append(error)
            continue
        rows = [{**row, "service": name} for row in answer.get("models") or []]
        held.append(_Held(client, rows, int(answer.get("queue_depth") or 0)))
    if not held:
        raise faults[0]
    for fault in faults:
        console.tell(str(fault))
    return held


def _full(ref: str) -> str:
    """Return a name so that all ways to write it are the same; a path as it is."""
    from paddock.engine.errors import InvalidName
    from paddock.engine.store.names import parse_name

    try:
        return parse_name(ref).key
    except InvalidName:
        return ref


def stop(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Names or files, as `paddock ps` shows them.",
            autocompletion=model_names,
        ),
    ],
    as_json: Json = False,
) -> int:
    """Let models go from memory when their answers are done, whichever service holds them."""
    from paddock.engine.store.names import is_path
    from paddock.runner.settings import read_settings

    held = _held(read_settings(Path.cwd()))
    for model in models:
        ref = model_ref.whole(model)
        there = [one for one in held if one.has(ref)]
        for one in there or held[: not is_path(ref)]:  # which says so where no such model exists
            one.client.post("/api/generate", {"model": ref, "keep_alive": 0, "stream": False})
        if not there:
            console.tell(f"'{model}' is not in memory.")
    if as_json:
        console.say_json({"ok": True, "models": models})
    return DONE


def table(models: list[dict[str, Any]], now: datetime) -> str:
    """Lay out what is in memory as `ollama ps` does, with queue and speed."""
    head = (
        "NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "RUNNING", "QUEUE", "TOKENS/S", "UNTIL",
        "SERVICE",
    )  # fmt: skip
    told = console.table([head, *(_row(model, now) for model in models)])
    notes = [
        f"{model.get('name', '')} {model['fallback']}" for model in models if model.get("fallback")
    ]
    return "\n\n".join([told, *notes])


def _row(model: dict[str, Any], now: datetime) -> tuple[str, ...]:
    size, on_device = int(model.get("size") or 0), int(model.get("size_vram") or 0)
    rate = model.get("tokens_per_second")
    return (
        _shown(str(model.get("name", ""))),
        str(model.get("digest", ""))[:_ID_CHARS],
        console.size(size),
        processor(size, on_device),
        str(model.get("context_length") or ""),
        str(model.get("running", "")),
        str(model.get("queue_depth", "")),
        console.speed(rate) if rate else "",
        until(str(model.get("expires_at") or ""), now),
        str(model.get("service", "")),
    )


def _shown(name: str) -> str:
    """Return a name, with the home folder of a path as `~`."""
    home = f"{Path.home()}/"
    return f"~/{name.removeprefix(home)}" if name.startswith(home) else name


def processor(size: int, on_device: int) -> str:
    """Say what computes a model, in `ollama ps`'s words.

    >>> processor(100, 0), processor(100, 100), processor(100, 75)
    ('100% CPU', '100% GPU', '25%/75% CPU/GPU')
    """
    if not on_device or not size:
        return "100% CPU"
    share = min(100, round(100 * on_device / size))
    return "100% GPU" if share == 100 else f"{100 - share}%/{share}% CPU/GPU"


def until(expires_at: str, now: datetime) -> str:
    """Say when a model goes.

    >>> until("2026-11-20T12:04:10+00:00", datetime(2026, 11, 20, 12, tzinfo=UTC))
    'in 4 min 10 s'
    """
    try:
        left_s = (datetime.fromisoformat(expires_at) - now).total_seconds()
    except (ValueError, TypeError):
        return ""
    if left_s > _FOREVER_S:
        return "for ever"
    return f"in {console.duration(left_s)}" if left_s > 0 else "soon"
