"""Monitoring endpoints: /metrics, /healthz, /readyz and /ui/state.json. Read only.

`/ui/state.json` is what the console's page on models shows. `/healthz` asks every worker for one
real token.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import psutil
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from paddock.engine.api.api_keys import STATE_PATH, key_name_of
from paddock.engine.api.request_log import Exchange, is_monitoring_path
from paddock.engine.api.service import Service, service_of
from paddock.engine.api.streaming import json_response
from paddock.engine.backends.metrics import HistogramReading, ModelMetrics
from paddock.engine.memory.pool_stats import ModelStats
from paddock.engine.system.hardware import read_gpus, read_memory, visible_gpus
from paddock.engine.system.records import Struct
from paddock.engine.workers.worker_process import ProbeResult

# A busy worker answers within a step or two.
PROBE_TIMEOUT_S = 10.0
_REPORT_FRESH_S = 1.0


class HealthReport(Struct, frozen=True):
    probes: tuple[ProbeResult, ...]
    at: float
    """By `time.monotonic`."""

    @property
    def is_well(self) -> bool:
        """Whether every worker answered; true where there is none."""
        return all(probe.is_well for probe in self.probes)

    def value(self, *, in_full: bool) -> dict[str, Any]:
        short: dict[str, Any] = {"status": "ok" if self.is_well else "unwell"}
        if not in_full:
            return short if self.is_well else {**short, "error": "a worker does not answer"}
        workers = [
            {
                "model": probe.name,
                "ok": probe.is_well,
                "seconds": round(probe.seconds, 4),
                **({} if probe.is_well else {"error": probe.why}),
            }
            for probe in self.probes
        ]
        ill = "; ".join(f"{probe.name}: {probe.why}" for probe in self.probes if not probe.is_well)
        return {**short, "workers": workers, **({"error": ill} if ill else {})}


class HealthProbe:
    """Probes the pool; concurrent callers share one probe."""

    def __init__(self) -> None:
        self._report: HealthReport | None = None
        self._asking: asyncio.Task[HealthReport] | None = None

    async def ask(
        self, probe: Callable[[float], Awaitable[tuple[ProbeResult, ...]]]
    ) -> HealthReport:
        """Return a report that is no older than a second."""
        known = self._report
        if known is not None and time.monotonic() - known.at < _REPORT_FRESH_S:
            return known
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._run(probe))
        # A caller that is cancelled must not cancel the probe of the others.
        return await asyncio.shield(self._asking)

    async def _run(
        self, probe: Callable[[float], Awaitable[tuple[ProbeResult, ...]]]
    ) -> HealthReport:
        self._report = HealthReport(await probe(PROBE_TIMEOUT_S), time.monotonic())
        return self._report


# Clients share the numbers; each asks once a second.
_STATE_FRESH_S = 0.4
# Starts a vendor's tool, which takes a tenth of a second and more.
_DEVICES_FRESH_S = 5.0
_N_RECENT = 30


class ServiceState:
    def __init__(self) -> None:
        self._known: dict[str, Any] | None = None
        self._read_at = float("-inf")
        self._devices: list[dict[str, Any]] = []
        self._devices_read_at = float("-inf")

    async def read(self, service: Service) -> dict[str, Any]:
        now = time.monotonic()
        if self._known is None or now - self._read_at >= _STATE_FRESH_S:
            self._read_at = now
            self._known = await service_state(service, await self._used_devices(service, now))
        return self._known

    async def _used_devices(self, service: Service, now: float) -> list[dict[str, Any]]:
        """Return the GPUs' memory where a model uses one."""
        if not any(model.device_bytes for model in service.pool.stats().resident):
            return []
        if now - self._devices_read_at >= _DEVICES_FRESH_S:
            self._devices_read_at = now
            gpus = visible_gpus(await asyncio.to_thread(read_gpus), os.environ)
            self._devices = [
                {"name": gpu.name, "total": gpu.memory_bytes, "free": gpu.free_bytes}
                for gpu in gpus
                if gpu.memory_bytes and gpu.free_bytes is not None
            ]
        return self._devices


async def service_state(service: Service, devices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the state of the service. Sizes are bytes, times seconds, moments since the epoch."""
    stats, request_log = service.pool.stats(), service.request_log
    memory = await asyncio.to_thread(read_memory)
    metrics = service.pool.metrics.snapshot()
    models = [_model_state(model, metrics.get(model.name)) for model in stats.resident]
    return {
        "version": service.version,
        "now": time.time(),
        "up_s": round(time.time() - psutil.Process().create_time(), 1),
        "memory": {"total": memory.total_bytes, "free": memory.free_bytes},
        "devices": devices,
        "models": models,
        "n_running": stats.n_running,
        "n_waiting": stats.n_waiting,
        "totals": _totals(metrics),
        "under_way": [
            _exchange_state(exchange)
            for exchange in request_log.running
            if not is_monitoring_path(exchange.path)
        ],
        "last": [
            _exchange_state(exchange) for exchange in list(request_log.last)[: -_N_RECENT - 1 : -1]
        ],
    }


def _model_state(model: ModelStats, metrics: ModelMetrics | None) -> dict[str, Any]:
    state: dict[str, Any] = {
        "name": model.name,
        "state": model.state,
        "users": model.n_users,
        "parallel": model.n_parallel,
        "running": model.n_running,
        "waiting": model.n_waiting,
        "context": model.n_ctx_tokens,
        "host_bytes": model.host_bytes,
        "device_bytes": model.device_bytes,
        "placed": model.placed,
        "fallback": model.fallback,
        "ready_s": model.ready_s,
        "expires_s": model.expires_s,
        "load_s": round(model.load_s, 3),
        "pinned": model.is_pinned,
        "adapters": list(model.adapters),
        "digest": model.digest[:12],
        "role": model.role,
        "n_cells": model.n_cells,
    }
    if metrics is None:
        return state
    return state | {
        "computed": metrics.batch_tokens,
        "said": metrics.streamed_tokens,
        "prompt": metrics.prompt_tokens,
        "reused": metrics.prompt_reused_tokens,
        "answered": metrics.n_answers,
        "texts": metrics.n_texts,
        "text_tokens": metrics.text_tokens,
        "cells": metrics.cells_used,
        "cells_shared": metrics.cells_shared,
        "drafted": metrics.drafted_tokens,
        "accepted": metrics.accepted_tokens,
        "first_token_s": _quantiles(metrics.first_token_s),
        "between_tokens_s": _quantiles(metrics.between_tokens_s),
    }


def _quantiles(reading: HistogramReading) -> dict[str, float] | None:
    if not reading.n:
        return None
    return {"p50": round(reading.quantile(0.5), 5), "p95": round(reading.quantile(0.95), 5)}


def _totals(metrics: Mapping[str, ModelMetrics]) -> dict[str, int]:
    every = metrics.values()
    return {
        "answers": sum(model.n_answers for model in every),
        "texts": sum(model.n_texts for model in every),
        "prompt": sum(model.prompt_tokens for model in every),
        "reused": sum(model.prompt_reused_tokens for model in every),
        "said": sum(model.streamed_tokens for model in every),
        "loads": sum(model.n_loads for model in every),
        "evictions": sum(model.n_evictions for model in every),
        "deaths": sum(model.n_deaths for model in every),
        "refused": sum(model.n_refused for model in every),
    }


def _exchange_state(exchange: Exchange) -> dict[str, Any]:
    return {
        "id": exchange.number,
        "at": exchange.at,
        "method": exchange.method[:20],
        "path": exchange.path[:120],
        "client": exchange.client,
        "key": exchange.key,
        "model": exchange.model[:120],
        "status": exchange.status,
        "fate": exchange.fate,
        "seconds": round(exchange.seconds, 3),
        "first_s": round(exchange.first_s, 3),
        "prompt": exchange.n_prompt_tokens,
        "reused": exchange.n_reused_tokens,
        "completion": exchange.n_completion_tokens,
    }


_NO_STORE = {"Cache-Control": "no-store"}


def monitoring_routes() -> list[BaseRoute]:
    health, state = HealthProbe(), ServiceState()

    async def get_health(request: Request) -> Response:
        service = service_of(request)
        report = await health.ask(service.pool.probe)
        # Where keys are required, only a client with one may see models' names.
        is_open = service.settings.api_keys_file is None
        value = report.value(in_full=is_open or bool(key_name_of(request.scope)))
        if report.is_well:
            return json_response(value, headers=_NO_STORE)
        return json_response(value, 503, {**_NO_STORE, "Retry-After": "5"})

    async def get_state(request: Request) -> Response:
        return json_response(await state.read(service_of(request)), headers=_NO_STORE)

    return [
        Route("/metrics", get_metrics),
        Route("/healthz", get_health),
        Route("/readyz", get_readiness),
        Route(STATE_PATH, get_state),
    ]


async def get_metrics(request: Request) -> Response:
    service = service_of(request)
    resident = service.pool.stats().resident
    text = service.pool.metrics.text(resident) + service.request_log.metrics.text()
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST, **_NO_STORE})


async def get_readiness(request: Request) -> Response:
    """Return whether new requests are accepted: 503 while the service stops."""
    if service_of(request).is_stopping:
        return json_response({"status": "stopping"}, 503, {**_NO_STORE, "Retry-After": "5"})
    return json_response({"status": "ready"}, headers=_NO_STORE)
