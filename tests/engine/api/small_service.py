"""A small application behind the service's real doors, and ways to ask it without a socket."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from paddock.engine.api.app import make_middleware
from paddock.engine.api.request_log import RequestLog
from paddock.engine.settings import ServiceSettings

EVERY = ["GET", "POST", "PUT", "DELETE"]


@dataclass
class SmallService:
    """An application with `routes` that tell how much they were sent, and its doors."""

    settings: ServiceSettings = field(default_factory=ServiceSettings)

    def __post_init__(self) -> None:
        self.request_log = RequestLog()
        self.app = Starlette(
            routes=[
                Route("/", _answer),
                Route("/healthz", _answer),
                Route("/ui", _answer),
                Route("/api/slow", _slow),
                Route("/api/blobs/{digest}", _answer, methods=EVERY),
                Route("/{path:path}", _answer, methods=EVERY),
            ],
            middleware=make_middleware(self.settings, self.request_log),
        )

    def ask(
        self,
        path: str = "/api/tags",
        method: str = "GET",
        *,
        client: str = "127.0.0.1",
        **extra: Any,
    ) -> httpx.Response:
        """Send one request; `Host` is `localhost:11434` unless the headers say otherwise."""

        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=(client, 5000))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost:11434"
            ) as asking:
                return await asking.request(method, path, **extra)

        return asyncio.run(go())

    def metrics(self) -> str:
        return self.request_log.metrics.text().decode()


async def _answer(request: Request) -> Response:
    return PlainTextResponse(f"{len(await request.body())}")


async def _slow(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one ", b"two ", b"three"):
            yield piece
            await asyncio.sleep(0.01)

    return StreamingResponse(pieces())
