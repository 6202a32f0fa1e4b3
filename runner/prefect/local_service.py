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
from paddock.runner.daemon.daemon_session import DaemonSession, daemon_session, is_daemon_running
from paddock.runner.daemon.on_demand_pool import ServicePool
from paddock.runner.settings import Settings

from .run_mode import ServiceUse, service_use


@asynccontextmanager
async def local_service(
    use: ServiceUse, bound: BoundPlan, settings: Settings, note: Callable[[str], None]
) -> AsyncIterator[DaemonSession | None]:
    """Yield this machine's service, started if needed; None: not used."""
    needs_service = not settings.pool_urls and any(not spec.pool for spec in used_models(bound))
    if not needs_service or (use == "found" and not is_daemon_running(settings)):
        yield None
        return
    async with daemon_session(settings, note) as daemon:
        yield daemon


@asynccontextmanager
async def shared_default_pool(settings: Settings) -> AsyncIterator[Pool]:
    """Yield one pool for several runs: where a run would use this machine's service, that."""
    note = partial(print, file=sys.stderr)
    is_alone = service_use(None, os.environ) == "none"
    if is_alone or settings.pool_urls or settings.pool.is_exact:  # it may have tuned copies
        async with open_default_pool(settings) as pool:
            yield pool
    else:
        session = daemon_session(settings, note)
        async with session as daemon, ServicePool(settings, daemon) as pool:
            yield pool


def pool_on_demand(settings: Settings, daemon: DaemonSession) -> OpenPool | None:
    """Return what opens the service's pool; None where it may have tuned copies, unwanted here."""
    return None if settings.pool.is_exact else partial(ServicePool, settings, daemon)
