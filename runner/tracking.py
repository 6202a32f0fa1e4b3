"""Who is tracked where: by Prefect's API where one is named, else by nobody but the ledger.

Imports no Prefect, so that a run without it never pays for it.
"""

from __future__ import annotations

from collections.abc import Mapping

REACH_S = 4.0  # an API that cannot be reached is an error within 5 s


class TrackingError(Exception):
    """Prefect's API cannot be used; says how to go on without it."""


def wants_prefect(local: bool | None, environ: Mapping[str, str]) -> bool:
    """Decide whether a run is a Prefect flow: what the caller says, else `PREFECT_API_URL`.

    Raises:
        TrackingError: it is asked for, and no API is named.
    """
    if local is True:
        return False
    has_api = bool(environ.get("PREFECT_API_URL", "").strip())
    if local is False and not has_api:
        raise TrackingError(
            "No Prefect API is named. Set PREFECT_API_URL, or use `--local` to run without it."
        )
    return has_api


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
