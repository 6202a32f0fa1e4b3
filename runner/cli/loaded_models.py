"""The models in memory, of every service, as `paddock ps` shows them; what services answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from paddock.engine.system import units
from paddock.engine.system.records import Struct
from paddock.runner.daemon import service_client, service_lookup
from paddock.runner.daemon.service_client import ServiceClient, ServiceError
from paddock.runner.progress import printing
from paddock.runner.settings import Settings

_FOREVER_S = 100 * 365 * 86400.0  # a `keep_alive` below zero is reported as centuries
_ID_CHARS = 12


class LoadedModels(Struct, frozen=True):
    client: ServiceClient
    rows: list[dict[str, Any]]
    n_queued: int


@contextmanager
def loaded_models(settings: Settings) -> Iterator[list[LoadedModels]]:
    """Yield the loaded models of every service; print which does not answer."""
    with service_answers(settings, "/api/ps", printing.print_err) as answers:
        found = []
        for name, client, answer in answers:
            rows = [{**row, "service": name} for row in answer.get("models") or []]
            found.append(LoadedModels(client, rows, int(answer.get("queue_depth") or 0)))
        yield found


@contextmanager
def service_answers(
    settings: Settings,
    path: str,
    note: Callable[[str], None],
    within_s: float = service_client.ANSWER_TIMEOUT_S,
) -> Iterator[list[tuple[str, ServiceClient, dict[str, Any]]]]:
    """Yield what every service answers at a path; `note` is called for one that does not.

    Raises:
        ServiceError: no service runs, or none answers.
    """
    found, faults = [], []
    with ExitStack() as stack:
        for name, client in service_lookup.all_services(settings):
            stack.enter_context(client)
            try:
                found.append((name, client, client.get(path, within_s)))
            except ServiceError as error:
                faults.append(error)
        if not found:
            raise faults[0]
        for fault in faults:
            note(str(fault))
        yield found


LOADED_HEAD = ("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "RUNNING", "QUEUE", "TOKENS/S",
               "UNTIL", "SERVICE")  # fmt: skip


def loaded_table(models: list[dict[str, Any]], now: datetime) -> str:
    rows: list[tuple[str, ...]] = [LOADED_HEAD]
    notes, home = [], f"{Path.home()}/"
    for model in models:
        size, on_device = int(model.get("size") or 0), int(model.get("size_vram") or 0)
        name, rate = str(model.get("name", "")), model.get("tokens_per_second")
        rows.append((
            f"~/{name.removeprefix(home)}" if name.startswith(home) else name,
            str(model.get("digest", ""))[:_ID_CHARS],
            units.size(size),
            processor_text(size, on_device),
            str(model.get("context_length") or ""),
            str(model.get("running", "")),
            str(model.get("queue_depth", "")),
            units.speed(rate) if rate else "",
            until_text(str(model.get("expires_at") or ""), now),
            str(model.get("service", "")),
        ))  # fmt: skip
        if model.get("fallback"):
            notes.append(f"{name} {model['fallback']}")
    return "\n\n".join([printing.table(rows), *notes])


def processor_text(size: int, on_device: int) -> str:
    """Return which processor computes a model, as `ollama ps` writes it.

    >>> processor_text(100, 0), processor_text(100, 100), processor_text(100, 75)
    ('100% CPU', '100% GPU', '25%/75% CPU/GPU')
    """
    if not on_device or not size:
        return "100% CPU"
    share = min(100, round(100 * on_device / size))
    return "100% GPU" if share == 100 else f"{100 - share}%/{share}% CPU/GPU"


def until_text(expires_at: str, now: datetime) -> str:
    """Return when a model will be unloaded.

    >>> now = datetime.fromisoformat("2026-11-20T12:00:00+00:00")
    >>> until_text("2026-11-20T12:04:10+00:00", now)
    'in 4 min 10 s'
    """
    try:
        left_s = (datetime.fromisoformat(expires_at) - now).total_seconds()
    except (ValueError, TypeError):
        return ""
    if left_s > _FOREVER_S:
        return "for ever"
    return f"in {units.duration(left_s)}" if left_s > 0 else "soon"
