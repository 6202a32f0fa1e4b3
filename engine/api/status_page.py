"""The status page at /ui, and the numbers that it shows. Knows no prompt; changes nothing.

The page is three files beside this module, sent as they are: no build step, nothing from elsewhere.
It asks for `/ui/state.json` again and again, and draws what it gets.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from paddock.engine.hardware import read_gpus, read_memory, visible_gpus
from paddock.engine.readings import ModelMetrics, Spread
from paddock.engine.residency.stats import ModelStats

from .journal import Exchange, Journal, is_watching
from .service import Service, service_of
from .streaming import json_response

# Resolved, because an editable install is a tree of links that lacks the data files.
_FOLDER = Path(__file__).resolve().parent / "page"

_FILES = {
    "/ui": ("status.html", "text/html; charset=utf-8"),
    "/ui/page.css": ("status.css", "text/css; charset=utf-8"),
    "/ui/page.js": ("status.js", "text/javascript; charset=utf-8"),
}

_HEADERS = {
    # Nothing but the page's own two files and its own numbers; no frame around it.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

# Several open pages share one look; each of them asks once a second.
_FRESH_S = 0.4
# A vendor's tool is started for these, which takes a tenth of a second and more.
_DEVICES_FRESH_S = 5.0
_N_LAST = 30


def routes() -> list[BaseRoute]:
    """Give the routes of one application."""
    numbers = _Numbers()
    pages = [
        Route(path, _page(file, media_type), name=file)
        for path, (file, media_type) in _FILES.items()
    ]
    return [*pages, Route("/ui/state.json", numbers.endpoint)]


def _page(file: str, media_type: str) -> Any:
    async def endpoint(request: Request) -> Response:
        content = await asyncio.to_thread((_FOLDER / file).read_bytes)
        return Response(content, headers={**_HEADERS, "Content-Type": media_type})

    return endpoint


class _Numbers:
    """What the page shows, read at most so often."""

    def __init__(self) -> None:
        self._known: dict[str, Any] | None = None
        self._read_at = float("-inf")
        self._devices: list[dict[str, Any]] = []
        self._devices_read_at = float("-inf")

    async def endpoint(self, request: Request) -> Response:
        now = time.monotonic()
        if self._known is None or now - self._read_at >= _FRESH_S:
            self._read_at = now
            service = service_of(request)
            self._known = await state(service, await self._used_devices(service, now))
        return json_response(self._known, headers={"Cache-Control": "no-store"})

    async def _used_devices(self, service: Service, now: float) -> list[dict[str, Any]]:
        """Ask for the graphics devices' memory, where a model lies on one."""
        if not any(one.device_bytes for one in service.pool.stats().resident):
            return []
        if now - self._devices_read_at >= _DEVICES_FRESH_S:
            self._devices_read_at = now
            gpus = visible_gpus(await asyncio.to_thread(read_gpus), os.environ)
            self._devices = [
                {"name": one.name, "total": one.memory_bytes, "free": one.free_bytes}
                for one in gpus
                if one.memory_bytes and one.free_bytes is not None
            ]
        return self._devices


async def state(service: Service, devices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give what the service does now. Sizes are bytes, times seconds, moments since 1970."""
    stats, journal = service.pool.stats(), service.journal
    memory = await asyncio.to_thread(read_memory)
    told = service.pool.metrics.snapshot().models
    models = [_model(one, told.get(one.name)) for one in stats.resident]
    return {
        "version": service.version,
        "now": time.time(),
        "up_s": round(time.time() - journal.began_at, 1),
        "memory": {"total": memory.total_bytes, "free": memory.free_bytes},
        "devices": devices,
        "models": models,
        "n_running": stats.n_running,
        "n_waiting": stats.n_waiting,
        "totals": _totals(told),
        "under_way": [_exchange(one) for one in journal.running if not is_watching(one.path)],
        "last": [_exchange(one) for one in _newest(journal)],
    }


def _newest(journal: Journal) -> list[Exchange]:
    return list(journal.last)[: -_N_LAST - 1 : -1]


def _model(one: ModelStats, told: ModelMetrics | None) -> dict[str, Any]:
    return {
        "name": one.name,
        "state": one.state,
        "users": one.n_users,
        "parallel": one.n_parallel,
        "running": one.n_running,
        "waiting": one.n_waiting,
        "context": one.n_ctx_tokens,
        "host_bytes": one.host_bytes,
        "device_bytes": one.device_bytes,
        "placed": one.placed,
        "fallback": one.fallback,
        "ready_s": one.ready_s,
        "expires_s": one.expires_s,
        "load_s": round(one.load_s, 3),
        "pinned": one.is_pinned,
        "leased": one.is_leased,
        "adapters": list(one.adapters),
        "digest": one.digest[:12],
        "role": one.role,
        "n_cells": one.n_cells,
        **(_counts(told) if told else {}),
    }


def _counts(told: ModelMetrics) -> dict[str, Any]:
    return {
        "computed": round(told.batch_tokens.total),
        "said": told.said_tokens,
        "prompt": told.prompt_tokens,
        "reused": told.prompt_reused_tokens,
        "answered": told.n_answers,
        "texts": told.n_texts,
        "text_tokens": told.text_tokens,
        "cells": told.cells_used,
        "cells_shared": told.cells_shared,
        "drafted": told.drafted_tokens,
        "accepted": told.accepted_tokens,
        "first_token_s": _quantiles(told.first_token_s),
        "between_tokens_s": _quantiles(told.between_tokens_s),
    }


def _quantiles(spread: Spread) -> dict[str, float] | None:
    if not spread.n:
        return None
    return {"p50": round(spread.quantile(0.5), 5), "p95": round(spread.quantile(0.95), 5)}


def _totals(told: Mapping[str, ModelMetrics]) -> dict[str, int]:
    """Count over all models, those that have gone too."""
    every = told.values()
    return {
        "answers": sum(one.n_answers for one in every),
        "texts": sum(one.n_texts for one in every),
        "prompt": sum(one.prompt_tokens for one in every),
        "reused": sum(one.prompt_reused_tokens for one in every),
        "said": sum(one.said_tokens for one in every),
        "loads": sum(one.n_loads for one in every),
        "evictions": sum(one.n_evictions for one in every),
        "deaths": sum(one.n_deaths for one in every),
        "refused": sum(one.n_refused for one in every),
    }


def _exchange(one: Exchange) -> dict[str, Any]:
    return {
        "id": one.number,
        "at": one.at,
        "method": one.method[:20],
        "path": one.path[:120],
        "client": one.client,
        "key": one.key,
        "model": one.model[:120],
        "status": one.status,
        "fate": one.fate,
        "seconds": round(one.seconds, 3),
        "first_s": round(one.first_s, 3),
        "prompt": one.n_prompt_tokens,
        "reused": one.n_reused_tokens,
        "completion": one.n_completion_tokens,
    }
