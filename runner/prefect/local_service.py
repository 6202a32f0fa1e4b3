"""This machine's service as runs use it: started where they need it; its pool opens on demand."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from paddock.engine.request import Pool
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.core.calls.model_pools import OpenPool, open_default_pool, used_models
from paddock.runner.daemon.daemon_session import DaemonSession, ServicePool, daemon_session
from paddock.runner.settings import Settings

from .run_mode import uses_service


@asynccontextmanager
async def service_of_run(
    bound: BoundPlan, settings: Settings, note: Callable[[str], None]
) -> AsyncIterator[DaemonSession | None]:
    """Yield this machine's service, started when a model is asked; None: none is asked here."""
    if settings.pool_urls or all(spec.pool for spec in used_models(bound)):
        yield None
        return
    async with daemon_session(settings, note) as daemon:
        yield daemon


@asynccontextmanager
async def shared_default_pool(settings: Settings) -> AsyncIterator[Pool]:
    """Yield one pool for several runs: where a run would use this machine's service, that."""
    note = partial(print, file=sys.stderr)
    if (
        not uses_service(None, os.environ) or settings.pool_urls or settings.pool.is_exact
    ):  # it may have tuned copies
        async with open_default_pool(settings) as pool:
            yield pool
    else:
        session = daemon_session(settings, note)
        async with session as daemon, ServicePool(settings, daemon) as pool:
            yield pool


def pool_on_demand(settings: Settings, daemon: DaemonSession) -> OpenPool | None:
    """Return what opens the service's pool; None where it may have tuned copies, unwanted here."""
    return None if settings.pool.is_exact else partial(ServicePool, settings, daemon)
