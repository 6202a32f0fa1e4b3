"""What looks at the service: /metrics, /healthz, /readyz and the status page. Changes nothing."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from . import status_page
from .health import Health
from .keys import key_name_of
from .service import Service, service_of
from .streaming import json_response

_NOT_KEPT = {"Cache-Control": "no-store"}


def routes() -> list[BaseRoute]:
    """Give the routes of one application."""
    watch = _Watch()
    return [
        Route("/metrics", metrics),
        Route("/healthz", watch.healthz),
        Route("/readyz", readyz),
        *status_page.routes(),
    ]


async def metrics(request: Request) -> Response:
    """Give the pool's numbers and the service's own, for Prometheus."""
    service = service_of(request)
    text = service.pool.metrics.text() + service.journal.metrics.text()
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST, **_NOT_KEPT})


async def readyz(request: Request) -> Response:
    """Say whether new requests are taken: 503 as soon as the service is to end."""
    if service_of(request).is_stopping:
        return json_response({"status": "stopping"}, 503, {**_NOT_KEPT, "Retry-After": "5"})
    return json_response({"status": "ready"}, headers=_NOT_KEPT)


class _Watch:
    """The health of one application."""

    def __init__(self) -> None:
        self._health = Health()

    async def healthz(self, request: Request) -> Response:
        """Say whether each worker that is there gives a token: 200, or 503 and why not."""
        service = service_of(request)
        report = await self._health.ask(service.pool.probe)
        told = report.told(in_full=_is_known(service, request))
        if report.is_well:
            return json_response(told, headers=_NOT_KEPT)
        return json_response(told, 503, {**_NOT_KEPT, "Retry-After": "5"})


def _is_known(service: Service, request: Request) -> bool:
    """Whether who asks may know the models' names: whoever has a key, where there are keys."""
    return service.settings.api_keys_file is None or bool(key_name_of(request.scope))
