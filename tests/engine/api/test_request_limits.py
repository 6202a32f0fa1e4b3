"""How large bodies may be, and how slowly they may come."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from paddock.engine.api.request_limits import BodyLimit
from paddock.engine.api.request_log import RequestLog
from paddock.engine.settings import ServiceSettings
from tests.engine.api.small_service import SmallService

SMALL = ServiceSettings(max_body_bytes=1000)


async def pieces(size: int) -> AsyncIterator[bytes]:
    """A body whose length is not told beforehand."""
    for _ in range(size // 100):
        yield b"x" * 100


def test_a_body_up_to_the_limit_is_taken() -> None:
    house = SmallService(SMALL)
    assert house.ask("/api/chat", "POST", content=b"x" * 1000).text == "1000"
    assert house.ask("/api/chat", "POST", content=pieces(1000)).text == "1000"


@pytest.mark.parametrize("is_told", [True, False])
def test_a_larger_one_is_answered_by_413(is_told: bool) -> None:
    house = SmallService(SMALL)
    content = b"x" * 1100 if is_told else pieces(1100)
    refused = house.ask("/api/chat", "POST", content=content)
    assert refused.status_code == 413
    assert refused.json() == {"error": "request body too large: at most 1000 bytes are taken"}
    assert "connection" not in refused.headers
    assert 'paddock_http_refused_total{reason="size"} 1.0' in house.metrics()


@pytest.mark.parametrize("path", ["/api/blobs/sha256:" + "0" * 64, "/v1/files"])
def test_files_may_be_larger(path: str) -> None:
    assert SmallService(SMALL).ask(path, "POST", content=pieces(5000)).text == "5000"


@pytest.mark.parametrize("length", ["-1", "1e3", "²", "", "0x10", "99999999999999999999999999"])
def test_a_length_that_is_none_is_no_way_around_it(length: str) -> None:
    headers = {"Content-Length": length.encode()}
    refused = SmallService(SMALL).ask("/api/chat", "POST", content=pieces(1100), headers=headers)
    assert refused.status_code == 413


async def run(receive: Receive, *, idle_s: float, swallows: bool = False) -> list[Message]:
    """Send a body through the door to an application that reads all of it."""
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            while (await receive()).get("more_body"):
                pass
        except Exception:
            if not swallows:
                raise
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"whatever a handler says"})

    async def send(message: Message) -> None:
        sent.append(message)

    limit = BodyLimit(app, max_body_bytes=10_000_000, idle_s=idle_s, request_log=RequestLog())
    scope = {"type": "http", "method": "POST", "path": "/api/chat", "headers": []}
    await limit(scope, receive, send)
    return sent


@pytest.mark.parametrize("swallows", [False, True])
async def test_a_body_that_stands_still_is_answered_by_408(swallows: bool) -> None:
    parts = iter([{"type": "http.request", "body": b"abc", "more_body": True}])

    async def receive() -> Message:
        message = next(parts, None)
        if message is None:
            await asyncio.sleep(60)
            raise AssertionError
        return message

    sent = await run(receive, idle_s=0.05, swallows=swallows)
    assert sent[0]["status"] == 408
    reason = "the request's body came too slowly: 3 bytes so far"
    assert json.loads(sent[1]["body"]) == {"error": reason}


async def test_a_body_that_trickles_is_too_slow_as_well() -> None:
    n_sent = 0

    async def receive() -> Message:
        nonlocal n_sent
        n_sent += 1
        await asyncio.sleep(0.02)  # each part within the deadline for parts
        return {"type": "http.request", "body": b"a", "more_body": True}

    assert (await run(receive, idle_s=0.1))[0]["status"] == 408
    assert n_sent < 20
