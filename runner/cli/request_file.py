"""Answer a file of batch requests: by the running service, else by a pool in this process.

Each answer is written to disk before the next request is sent, so no request is answered twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from paddock.engine.api.errors import ApiError
from paddock.engine.api.openai.batch_lines import (
    BatchInterrupted,
    BatchLine,
    BatchProgress,
    LineAnswerer,
    answers_of,
    run_lines,
)
from paddock.engine.backends.local import LocalPool
from paddock.runner.daemon import service_client
from paddock.runner.daemon.service_client import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ServiceError
from paddock.runner.settings import Settings


def answer_requests(
    settings: Settings,
    source: Path,
    results: Path,
    at_once: int,
    follow: Callable[[BatchProgress], None],
) -> BatchProgress:
    """Answer every line of `source` that has no result yet; `follow` receives the progress.

    Raises:
        BadLines: a line is wrong; nothing was sent, and `results` is unchanged.
        ServiceError: the service or the pool ended.
        EngineError: the results cannot be written.
    """
    return asyncio.run(_report_progress(_run(settings, source, results, at_once), follow))


async def _report_progress(
    work: AsyncGenerator[BatchProgress, None], follow: Callable[[BatchProgress], None]
) -> BatchProgress:
    last: BatchProgress | None = None
    async with aclosing(work):
        async for last in work:
            follow(last)
    assert last is not None  # the first progress comes before any request
    return last


async def _run(
    settings: Settings, source: Path, results: Path, at_once: int
) -> AsyncGenerator[BatchProgress, None]:
    """Answer with the running service, else with a pool of our own.

    Raises:
        ServiceError: the service or the pool ended.
    """
    client = service_client.find_service(settings)
    try:
        async with AsyncExitStack() as stack:
            if client is not None:
                with client:
                    asking = _open_pool(client.url, client.headers, client.trusts_proxies)
                answer = await stack.enter_async_context(asking)
            else:
                answer = answers_of(await stack.enter_async_context(LocalPool(settings.pool)))
            lines = run_lines(answer, source, results, n_at_once=at_once)
            async for progress in await stack.enter_async_context(aclosing(lines)):
                yield progress
    except BatchInterrupted:
        words = "The service ended; the same command continues where it stopped."
        raise ServiceError(words) from None


@asynccontextmanager
async def _open_pool(
    url: str, headers: dict[str, str], trusts_proxies: bool
) -> AsyncIterator[LineAnswerer]:
    """Yield a function that sends one line to the service, and retries while it is busy."""
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None)
    headers = {**headers, "X-Paddock-Priority": "batch"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=timeout, limits=limits, trust_env=trusts_proxies
    ) as http:

        async def answer(line: BatchLine) -> dict[str, Any]:
            while True:
                asked = await http.post(line.url, json={**line.body, "stream": False})
                if asked.status_code not in (429, 503):
                    break
                await asyncio.sleep(_retry_after_s(asked.headers.get("retry-after", "")))
            told = asked.json()
            if asked.status_code >= 400:
                error = told.get("error") if isinstance(told, dict) else None
                said = error if isinstance(error, dict) else {"message": str(error)}
                raise ApiError(
                    asked.status_code,
                    str(said.get("message")),
                    kind=str(said.get("type") or ""),
                    code=said.get("code"),
                    param=said.get("param"),
                )
            return dict(told)

        yield answer


def _retry_after_s(retry_after: str) -> float:
    """Return the pause before a retry, at most 30 s.

    >>> _retry_after_s("5"), _retry_after_s("3600"), _retry_after_s("soon")
    (5.0, 30.0, 2.0)
    """
    return min(30.0, float(retry_after)) if retry_after.isdecimal() else 2.0
