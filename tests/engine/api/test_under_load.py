"""Many clients at once: no one is lost, and who does not fit is told when to come back."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.fakes import tiny
from tests.live import Live
from tests.waiting import PATIENCE_S

N_STREAMS = 200


def ask(number: int, n_tokens: int) -> dict[str, Any]:
    # A few tokens of a model of some kilobytes: what counts is how many ask, not what.
    return {
        "model": "noise",
        "prompt": f"{number} plus {number} is",
        "raw": True,
        "options": {"num_predict": n_tokens, "num_ctx": 256, "seed": number},
    }


async def streamed(client: httpx.AsyncClient, number: int, n_tokens: int) -> dict[str, Any]:
    """Ask, read line by line, and give the last line, with the status."""
    async with client.stream("POST", "/api/generate", json=ask(number, n_tokens)) as answer:
        lines = [line async for line in answer.aiter_lines()]
        headers = dict(answer.headers)
        return {**json.loads(lines[-1]), "status": answer.status_code, "headers": headers}


async def all_at_once(live: Live, n: int, n_tokens: int) -> list[dict[str, Any]]:
    limits = httpx.Limits(max_connections=n)
    async with httpx.AsyncClient(
        base_url=live.url, timeout=PATIENCE_S, limits=limits, trust_env=False
    ) as client:
        return list(
            await asyncio.gather(*(streamed(client, number, n_tokens) for number in range(n)))
        )


def test_two_hundred_streams_at_once_are_all_answered_in_bounded_memory(
    live: Live, tmp_path: Path
) -> None:
    live.add_model("noise", tiny.llama(tmp_path / "noise.gguf"))
    asyncio.run(all_at_once(live, 4, 2))
    before = psutil.Process().memory_info().rss
    answers = asyncio.run(all_at_once(live, N_STREAMS, 4))
    assert [answer["status"] for answer in answers] == [200] * N_STREAMS
    assert all(answer["done"] for answer in answers)
    assert all(0 < answer["eval_count"] <= 4 for answer in answers)
    grown = psutil.Process().memory_info().rss - before
    assert grown < 200 * 1024 * 1024, f"{grown / 1e6:.0f} MB more"
    live.until_idle()
