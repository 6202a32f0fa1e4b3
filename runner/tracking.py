"""Who is served and tracked by whom: the local service, Prefect's API by its name, or nobody.

Imports no Prefect, so that a run without it never pays for it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

REACH_S = 4.0  # an API that cannot be reached is an error within 5 s


class TrackingError(Exception):
    """Prefect's API cannot be used; says how to go on without it."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a run is carried out."""

    service: Literal["none", "found", "started"]
    """Whether this machine's service is used: not at all, where it runs, or in any case."""
    prefect: Literal["none", "within", "api", "service"]
    """Where it is shown: nowhere, in the flow run that is current, by `PREFECT_API_URL`, or by the
    service."""


def way(
    local: bool | None, environ: Mapping[str, str], *, has_pool: bool = False, within: bool = False
) -> Way:
    """Decide how a run is carried out; `has_pool`: who calls brings a pool of its own.

    >>> way(None, {}), way(True, {}), way(None, {"CI": "1"})
    (Way(service='started', prefect='service'), Way(service='none', prefect='none'), \
Way(service='none', prefect='none'))
    """
    if local is True:
        return Way("none", "none")
    in_ci = is_ci(environ) and local is None
    if within:
        return Way("none" if has_pool else "found" if in_ci else "started", "within")
    if environ.get("PREFECT_API_URL", "").strip():
        return Way("none" if has_pool or in_ci else "started", "api")
    if in_ci or (has_pool and local is None):
        return Way("none", "none")
    return Way("started", "service")


def is_ci(environ: Mapping[str, str]) -> bool:
    """Tell whether this is a machine that builds and tests, where nothing may be left running."""
    return environ.get("CI", "").strip().lower() not in ("", "0", "false", "no", "off")


def is_within() -> bool:
    """Tell whether a flow run of Prefect's is current."""
    context = sys.modules.get("prefect.context")
    return context is not None and context.FlowRunContext.get() is not None


async def reach(environ: Mapping[str, str]) -> None:
    """Ask Prefect's API for a sign of life; any answer is one.

    Raises:
        TrackingError: there is none.
    """
    import httpx

    url = environ["PREFECT_API_URL"].strip().rstrip("/")
    try:
        async with httpx.AsyncClient(timeout=REACH_S) as client:
            await client.get(f"{url}/health")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TrackingError(
            f"Prefect's API at {url} cannot be reached ({error or type(error).__name__}). "
            f"Start it with `prefect server start`, correct PREFECT_API_URL, "
            f"or use `--local` to run without it."
        ) from error
