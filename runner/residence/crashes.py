"""Tell Prefect of a run whose process is gone: nobody else would, and it would run for ever."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from .leases import Lease
from .prefect_server import PrefectServer

ANSWER_S = 10.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")

log = logging.getLogger(__name__)


def mark_crashed(server: PrefectServer) -> Callable[[Lease], Awaitable[None]]:
    """Give what marks a lease's Prefect run as crashed."""

    async def mark(lease: Lease) -> None:
        import httpx

        told = server.told
        if told.state != "ready":
            return
        url = f"{told.url}/flow_runs/{lease.flow_run}"
        words = f"Its process {lease.pid} is gone; the same command continues."
        state = {"type": "CRASHED", "name": "Crashed", "message": words}
        try:
            async with httpx.AsyncClient(timeout=ANSWER_S, trust_env=False) as client:
                known = (await client.get(url)).raise_for_status().json()
                if known.get("state_type") in ENDED:
                    return
                wish = {"state": state, "force": True}
                (await client.post(f"{url}/set_state", json=wish)).raise_for_status()
        except (httpx.HTTPError, ValueError) as error:
            log.warning("Prefect was not told that process %d is gone: %s", lease.pid, error)

    return mark
