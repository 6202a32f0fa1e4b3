"""GET /api/ps: what is in memory, for how long, and how busy it is.

Knows no model's file beyond its card. Beside Ollama's members stand ours: who waits, how fast
tokens come, how the cache is used.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.clock import expiry
from paddock.engine.api.service import Service, service_of
from paddock.engine.api.streaming import json_response
from paddock.engine.errors import EngineError
from paddock.engine.readings import ModelMetrics
from paddock.engine.residency.stats import ModelStats
from paddock.engine.store.cards import Card, describe

from .models import detailed, named


async def ps(request: Request) -> Response:
    """List what is in memory, that which stays longest first."""
    service = service_of(request)
    stats = service.pool.stats()
    metrics = service.pool.metrics.snapshot().models
    known = await asyncio.to_thread(_cards, service, [one.name for one in stats.resident])
    listed = [
        (_stay_s(one), _row(one, known.get(one.name), metrics.get(one.name)))
        for one in stats.resident
    ]
    listed.sort(key=lambda pair: float("inf") if pair[0] is None else pair[0], reverse=True)
    return json_response({"models": [row for _, row in listed], "queue_depth": stats.n_waiting})


def _cards(service: Service, names: list[str]) -> dict[str, Card]:
    """Describe those that are still on disk."""
    known = {}
    for name in names:
        try:
            known[name] = describe(service.finder, name)
        except (EngineError, OSError):
            continue
    return known


def _stay_s(one: ModelStats) -> float | None:
    """Tell for how long it stays if nobody asks from now on; None: for ever."""
    if one.is_pinned or one.keep_alive_s < 0:
        return None
    return one.keep_alive_s if one.expires_s is None else one.expires_s


def _row(one: ModelStats, card: Card | None, metrics: ModelMetrics | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        **named(one.name),
        "size": one.host_bytes + one.device_bytes,
        "digest": card.digest if card else one.digest,
        "details": detailed(card.details) if card else {},
        "expires_at": expiry(_stay_s(one)),
        "size_vram": one.device_bytes,
        "context_length": one.n_ctx_tokens,
        "state": one.state,
        "placed": one.placed,
        "parallel": one.n_parallel,
        "running": one.n_running,
        "queue_depth": one.n_waiting,
    }
    if one.fallback:
        told["fallback"] = one.fallback
    if metrics is not None:
        told["tokens_per_second"] = round(_tokens_per_s(one, metrics), 1)
        told["cache"] = {
            "used_tokens": metrics.cells_used,
            "shared_tokens": metrics.cells_shared,
            "prompt_tokens": metrics.prompt_tokens,
            "cached_tokens": metrics.prompt_reused_tokens,
        }
    return told


def _tokens_per_s(one: ModelStats, metrics: ModelMetrics) -> float:
    """Return how fast the tokens of all running answers come, by the mean of those that came."""
    mean_s = metrics.between_tokens_s.mean
    return one.n_running / mean_s if mean_s else 0.0
