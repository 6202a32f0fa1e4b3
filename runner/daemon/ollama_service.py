"""The HTTP service over a pool: of `paddock serve`, and Ollama's API of the background service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from paddock.engine.api.app import make_app
from paddock.engine.api.pool_server import pool_routes
from paddock.engine.api.request_log import RequestLogEvents
from paddock.engine.api.service import Service
from paddock.engine.backends.local import LocalPool
from paddock.engine.models.model_store import ModelStore
from paddock.engine.settings import ServiceSettings
from paddock.engine.system.distribution import own_version
from paddock.runner.settings import Settings


@asynccontextmanager
async def hosted_service(settings: Settings) -> AsyncIterator[Service]:
    async with LocalPool(settings.pool, events=RequestLogEvents()) as pool:
        yield Service(
            pool,
            ModelStore(settings.pool.models_dir),
            pool.models,
            settings.service,
            own_version(),
            extra_routes=pool_routes(pool, names_only=True),
        )


def ollama_app(pool: LocalPool) -> ASGIApp:
    """Return Ollama's API over a pool, for its owner alone."""
    store = ModelStore(pool.settings.models_dir)
    service = Service(pool, store, pool.models, ServiceSettings(), own_version(), takes_paths=True)
    return make_app(service)
