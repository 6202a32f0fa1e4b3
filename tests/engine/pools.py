"""Pools with real worker processes, one for each piece of work or one for many."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from paddock.engine.backends.local import LocalPool
from paddock.engine.request import ChatRequest, Message, ModelSpec
from paddock.engine.settings import PoolSettings
from paddock.engine.workers.worker_process import WorkerProcess
from paddock.engine.workers.worker_protocol import WorkerOptions

CHAT = ModelSpec("smollm2:135m", n_ctx_tokens=2048)
VECTORS = ModelSpec("all-minilm", role="embed")

# One thread, so that tests which run next to one another do not wait in each other's barriers.
SETTINGS = PoolSettings(n_threads=1, models_dir=Path("/nonexistent"), profile_s=0)

# The bundled model goes on with " e f g …": for 22 tokens the likeliest is ahead of the next by at
# least 2 in logits with AMX and with AVX2 alone; their rounding differs by 0.2 to 1.4.
LETTERS = "a b c d e f g h i j k l m n o p q r s t u v w x y z\n"
SURE_PROMPT = LETTERS * 6 + LETTERS[:7]


@asynccontextmanager
async def opened(settings: PoolSettings = SETTINGS, **options: Any) -> AsyncIterator[LocalPool]:
    """Yield a pool of a test's own."""
    async with LocalPool(settings, **options) as pool:
        yield pool


def ask(
    text: str, model: ModelSpec = CHAT, params: Mapping[str, Any] | None = None, **extra: Any
) -> ChatRequest:
    messages = (Message("system", "You are a helpful assistant."), Message("user", text))
    return ChatRequest(model, messages, {"max_tokens": 24, **(params or {})}, **extra)


def started_by(*command: str) -> Callable[[WorkerOptions, float], Awaitable[WorkerProcess]]:
    """Return what starts the workers of a pool by this command."""

    def start(load: WorkerOptions, timeout_s: float) -> Awaitable[WorkerProcess]:
        return WorkerProcess.started(load, timeout_s, command)

    return start
