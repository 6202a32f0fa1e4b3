"""Bring a run together with the machine's service, as its way says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
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
    """Give the service of this machine, started if need be; None: the run does without.

    A service that cannot be had is told, and the run goes on inside its own process.
    """
    if way.service == "none" or not _is_needed(way, bound, settings):
        yield None
        return
    from .residence.place import NoResidence
    from .residence.tenancy import is_there, tenancy

    own: Any = settings  # type checkers take the closet's name of the same class for another one
    if way.service == "found" and not is_there(own):
        yield None
        return
    async with AsyncExitStack() as stack:
        tenant: Tenant | None = None
        try:
            tenant = await stack.enter_async_context(
                tenancy(
                    own,
                    pipeline=bound.name,
                    wants_prefect=way.prefect == "service",
                    tell=tell,
                )
            )
        except NoResidence as error:
            tell(f"{error}\n  This run goes on without it.")
        yield tenant


def _is_needed(way: Way, bound: BoundPlan, settings: Settings) -> bool:
    """Tell whether a run has something to ask the service."""
    return way.prefect == "service" or (
        not settings.pool_urls and any(not spec.pool for spec in models_of(bound))
    )
