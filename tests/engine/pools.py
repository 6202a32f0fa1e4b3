"""Pools with real worker processes, one for each piece of work or one for many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paddock.engine.backends.local import LocalPool
from paddock.engine.request import ChatRequest, Message, ModelSpec
from paddock.engine.settings import PoolSettings

CHAT = ModelSpec("smollm2:135m", n_ctx_tokens=2048)
VECTORS = ModelSpec("all-minilm", role="embed")

# One thread, so that tests which run next to one another do not wait in each other's barriers.
SETTINGS = PoolSettings(n_threads=1, models_dir=Path("/nonexistent"), profile_s=0)

Work = Callable[[LocalPool], Awaitable[None]]
Run = Callable[[Work], None]


def go(work: Work, settings: PoolSettings = SETTINGS) -> None:
    async def main() -> None:
        async with asyncio.timeout(200), LocalPool(settings) as pool:
            await work(pool)

    asyncio.run(main())


def ask(
    text: str, model: ModelSpec = CHAT, params: Mapping[str, Any] | None = None, **more: Any
) -> ChatRequest:
    messages = (Message("system", "You are a helpful assistant."), Message("user", text))
    return ChatRequest(model, messages, {"max_tokens": 24, **(params or {})}, **more)


@contextmanager
def one_pool(settings: PoolSettings = SETTINGS) -> Iterator[Run]:
    """Run work in one pool after the other: its models are loaded once."""
    with asyncio.Runner() as runner:
        pool = LocalPool(settings)

        def run(work: Work) -> None:
            async def main() -> None:
                async with asyncio.timeout(200):
                    await work(pool)

            runner.run(main())

        yield run
        runner.run(pool.__aexit__(None, None, None))
