"""Commands about the service that runs: `ps` and `stop`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from paddock.runner.display import console

from .completion import model_names
from .exits import DONE, guarded
from .machine import Json

_FOREVER_S = 100 * 365 * 86400.0  # `keep_alive` below zero is told as centuries
_ID_CHARS = 12


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("ps")(guarded(ps))
    app.command("stop")(guarded(stop))


def ps(as_json: Json = False) -> int:
    """List the models in memory, and how busy they are."""
    from paddock.runner import service
    from paddock.runner.settings import read_settings

    with service.demand(read_settings(Path.cwd())) as client:
        answer = client.get("/api/ps")
    if as_json:
        console.say_json(answer)
    else:
        console.say(table(answer.get("models") or [], datetime.now(UTC)))
    return DONE


def stop(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Names, as `paddock ps` shows them.",
            autocompletion=model_names,
        ),
    ],
    as_json: Json = False,
) -> int:
    """Let models go from memory, as soon as their answers are done."""
    from paddock.runner import service
    from paddock.runner.settings import read_settings

    with service.demand(read_settings(Path.cwd())) as client:
        for model in models:
            client.post("/api/generate", {"model": model, "keep_alive": 0, "stream": False})
    if as_json:
        console.say_json({"ok": True, "models": models})
    return DONE


def table(models: list[dict[str, Any]], now: datetime) -> str:
    """Lay out what is in memory as `ollama ps` does, with queue and speed."""
    head = ("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "RUNNING", "QUEUE", "TOKENS/S", "UNTIL")
    told = console.table([head, *(_row(model, now) for model in models)])
    notes = [
        f"{model.get('name', '')} {model['fallback']}" for model in models if model.get("fallback")
    ]
    return "\n\n".join([told, *notes])


def _row(model: dict[str, Any], now: datetime) -> tuple[str, ...]:
    size, on_device = int(model.get("size") or 0), int(model.get("size_vram") or 0)
    rate = model.get("tokens_per_second")
    return (
        str(model.get("name", "")),
        str(model.get("digest", ""))[:_ID_CHARS],
        console.size(size),
        processor(size, on_device),
        str(model.get("context_length") or ""),
        str(model.get("running", "")),
        str(model.get("queue_depth", "")),
        console.speed(rate) if rate else "",
        until(str(model.get("expires_at") or ""), now),
    )


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
