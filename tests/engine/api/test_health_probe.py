"""Health: what the workers say, asked once for all who want to know."""

import asyncio

import pytest

from paddock.engine.api import monitoring
from paddock.engine.api.monitoring import HealthProbe, HealthReport
from paddock.engine.workers.worker_process import ProbeResult

WELL = ProbeResult("smollm2:135m", True, 0.05)
ILL = ProbeResult("qwen3:8b", False, 10.0, "no token within 10 s")


def test_strangers_are_told_no_names() -> None:
    assert HealthReport((WELL,), 0).value(in_full=False) == {"status": "ok"}
    body = HealthReport((WELL, ILL), 0).value(in_full=False)
    assert body == {"status": "unwell", "error": "a worker does not answer"}


async def test_a_question_meanwhile_shares_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "_REPORT_FRESH_S", 60.0)
    n_asked = 0

    async def probe(within_s: float) -> tuple[ProbeResult, ...]:
        nonlocal n_asked
        n_asked += 1
        await asyncio.sleep(0.05)
        return (WELL,)

    health = HealthProbe()
    hasty = asyncio.create_task(health.ask(probe))
    rest = [asyncio.create_task(health.ask(probe)) for _ in range(20)]
    await asyncio.sleep(0.01)
    hasty.cancel()  # one leaves; the others still get their answer
    assert all(report.is_well for report in await asyncio.gather(*rest))
    assert (await health.ask(probe)).is_well, "a report is good for a while"
    assert n_asked == 1
