"""Ask a worker for one real token, to know that it works and is not only there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from paddock.engine.errors import EngineError
from paddock.engine.request import ChatRequest, Message, ModelFacts, ModelSpec, Sampling

from .process import WorkerProcess
from .ticket import Ticket, WorkerGone


@dataclass(frozen=True, slots=True)
class Probe:
    """One model's answer."""

    name: str
    is_well: bool
    seconds: float
    why: str = ""
    """What is wrong."""


async def probe(
    facts: ModelFacts, worker: WorkerProcess, within_s: float, n_tokens: int = 1
) -> Probe:
    """Ask for a token or a few, or one vector, as an interactive request; loads nothing."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(within_s):
            await _answer(facts, worker, n_tokens)
    except TimeoutError:
        return Probe(facts.name, False, within_s, f"no token within {within_s:g} s")
    except (EngineError, WorkerGone) as error:
        return Probe(facts.name, False, loop.time() - began, str(error))
    return Probe(facts.name, True, loop.time() - began)


async def _answer(facts: ModelFacts, worker: WorkerProcess, n_tokens: int) -> None:
    if facts.role != "chat":
        query = "one" if facts.role == "rerank" else None
        await worker.embed(("one",), Ticket(), query=query)
        return
    request = ChatRequest(
        ModelSpec(facts.name), (Message("user", "one"),), priority="interactive", drafts=False
    )
    await worker.chat(request, Sampling(max_tokens=n_tokens), Ticket(), facts.n_ctx_tokens)
