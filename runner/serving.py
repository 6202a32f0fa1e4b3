"""Bring a run together with the machine's service, as its way says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from .binding.bound import BoundPlan
from .pools import models_of
from .settings import Settings
from .tracking import Way

if TYPE_CHECKING:
    from .residence.tenancy import Tenant


@asynccontextmanager
async def served(
    way: Way, bound: BoundPlan, settings: Settings, tell: Callable[[str], None]
) -> AsyncIterator[Tenant | None]:
    """Yield this machine's service, which is started when it is needed; None: not used at all."""
    if way.service == "none" or not _is_needed(way, bound, settings):
        yield None
        return
    from .residence.tenancy import is_there, tenancy

    own: Any = settings  # type checkers take the closet's name of the same class for another one
    if way.service == "found" and not is_there(own):
        yield None
        return
    wants_prefect = way.prefect == "service"
    async with tenancy(own, pipeline=bound.name, wants_prefect=wants_prefect, tell=tell) as tenant:
        yield tenant


def _is_needed(way: Way, bound: BoundPlan, settings: Settings) -> bool:
    """Tell whether a run has something to ask the service."""
    return way.prefect == "service" or (
        not settings.pool_urls and any(not spec.pool for spec in models_of(bound))
    )
