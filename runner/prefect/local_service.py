"""This machine's service as runs use it: its pool, which opens at the first call of a model."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from paddock.engine.request import Pool
from paddock.runner.core.calls.model_pools import OpenPool, open_default_pool
from paddock.runner.daemon.daemon_session import ServicePool
from paddock.runner.settings import Settings

from .run_mode import uses_service


def service_pool(settings: Settings, note: Callable[[str], None]) -> OpenPool | None:
    """Return what opens the service's pool; None where it may have tuned copies, unwanted here."""
    return None if settings.pool.is_exact else partial(ServicePool, settings, note)


def shared_default_pool(settings: Settings) -> AbstractAsyncContextManager[Pool]:
    """Return one pool for several runs: where a run would use this machine's service, that."""
    service = None
    if uses_service(None, os.environ) and not settings.pool_urls:
        service = service_pool(settings, partial(print, file=sys.stderr))
    return open_default_pool(settings) if service is None else service()
