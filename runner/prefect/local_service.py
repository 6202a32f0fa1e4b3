"""This machine's service as runs use it: started where they need it; its pool opens on demand."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from paddock.engine.request import Pool
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.core.model_pools import OpenPool, open_home_pool, used_models
from paddock.runner.daemon.daemon_session import DaemonSession, daemon_session, is_daemon_running
from paddock.runner.daemon.on_demand_pool import ServicePool
from paddock.runner.settings import Settings

from .run_mode import RunMode, run_mode


@asynccontextmanager
async def local_service(
    mode: RunMode, bound: BoundPlan, settings: Settings, note: Callable[[str], None]
) -> AsyncIterator[DaemonSession | None]:
    """Yield this machine's service, started if needed; None: not used."""
    needs_service = mode.prefect == "service" or (
        not settings.pool_urls and any(not spec.pool for spec in used_models(bound))
    )
    if not needs_service or (mode.service == "found" and not is_daemon_running(settings)):
        yield None
        return
    wants_prefect = mode.prefect == "service"
    async with daemon_session(
        settings, pipeline=bound.name, wants_prefect=wants_prefect, tell=note
    ) as daemon:
        yield daemon


@asynccontextmanager
async def shared_home_pool(settings: Settings, name: str) -> AsyncIterator[Pool]:
    """Yield one pool for several runs: where a run would use this machine's service, that."""
    note = partial(print, file=sys.stderr)
    is_alone = run_mode(None, os.environ).service == "none"
    if is_alone or settings.pool_urls or settings.pool.is_exact:  # it may have tuned copies
        async with open_home_pool(settings) as pool:
            yield pool
    else:
        session = daemon_session(settings, pipeline=name, wants_prefect=False, tell=note)
        async with session as daemon, ServicePool(settings, daemon) as pool:
            yield pool


def pool_on_demand(settings: Settings, daemon: DaemonSession) -> OpenPool | None:
    """Return what opens the service's pool; None where it may have tuned copies, unwanted here."""
    return None if settings.pool.is_exact else partial(ServicePool, settings, daemon)
