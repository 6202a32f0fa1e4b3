from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from paddock.engine.backends.local import LocalPool
from paddock.engine.backends.metrics import Metrics
from paddock.engine.memory.pool_stats import fan_out
from paddock.engine.request import ChatRequest, EmbedRequest, Message, ModelSpec
from paddock.engine.settings import PoolSettings

CHAT = ModelSpec("smollm2:135m", n_ctx_tokens=1024)
VECTORS = ModelSpec("all-minilm", role="embed")


def test_a_real_pool_counts_what_it_did() -> None:
    async def main() -> None:
        settings = PoolSettings(n_threads=1, models_dir=Path("/nonexistent"), profile_s=0)
        async with asyncio.timeout(200), LocalPool(settings) as pool:
            rules = Message("system", "Read what follows and answer in one sentence. " * 6)
            streams = [
                pool.chat(ChatRequest(CHAT, (rules, Message("user", f"{n}?")), {"max_tokens": 8}))
                for n in range(3)
            ]
            usages = [(await stream.reply()).usage for stream in streams]
            reply = await pool.embed(EmbedRequest(VECTORS, ("one", "two", "three")))
            seen = pool.metrics.snapshot().models
            text = pool.metrics.text().decode()
        chat, vectors = seen["smollm2:135m"], seen["all-minilm"]
        assert (chat.n_loads, chat.n_answers, chat.n_evictions, chat.n_deaths) == (1, 3, 0, 0)
        assert chat.load_s > 0
        assert chat.prompt_tokens == sum(usage.prompt_tokens for usage in usages)
        assert chat.prompt_reused_tokens == sum(usage.prompt_reused_tokens for usage in usages) > 0
        assert chat.completion_tokens == sum(usage.completion_tokens for usage in usages)
        assert (chat.first_token_s.n, chat.queue_s.n, chat.outside_s.n) == (3, 3, 3)
        assert 0 < chat.first_token_s.quantile(0.5) < 60
        assert chat.between_tokens_s.n == chat.completion_tokens - 3
        assert chat.between_tokens_s.total > 0
        assert chat.batch_tokens.total >= chat.prompt_tokens - chat.prompt_reused_tokens
        assert chat.step_s.n == chat.batch_tokens.n > 0
        assert chat.cells_used > 0
        assert (vectors.n_texts, vectors.text_tokens) == (3, reply.usage.prompt_tokens)
        assert vectors.batch_tokens.total == reply.usage.prompt_tokens
        assert vectors.batch_sequences.total == 3
        names = {family.name for family in text_string_to_metric_families(text)}
        assert {"paddock_loads", "paddock_first_token_seconds", "paddock_cells_used"} <= names
        assert 'paddock_answers_total{model="smollm2:135m",reason="length"} ' in text

    asyncio.run(main())


def test_time_between_tokens_is_shared_by_those_that_come_together() -> None:
    times = iter([1.0, 1.5, 2.5, 9.0])
    metrics = Metrics(clock=lambda: next(times))
    frame = {"n_tokens": 1, "done": []}
    metrics.turn("m", {**frame, "chunks": [{"id": 1, "n_tokens": 1}]})
    metrics.turn("m", {**frame, "chunks": [{"id": 1, "n_tokens": 1}, {"id": 2, "n_tokens": 1}]})
    metrics.turn("m", {**frame, "chunks": [{"id": 1, "n_tokens": 1}] * 2, "done": [{"id": 1}]})
    spread = metrics.snapshot().models["m"].between_tokens_s
    assert (spread.n, spread.total, spread.mean) == (3, 1.5, 0.5)
    metrics.died("m", "killed by SIGKILL")
    metrics.turn("m", {**frame, "chunks": [{"id": 2, "n_tokens": 1}]})
    assert metrics.snapshot().models["m"].between_tokens_s.n == 3, "a new worker's 2 is another"


def test_what_happens_to_models_and_requests_is_counted_by_its_reason() -> None:
    metrics, other = Metrics(), Metrics()
    both = fan_out(metrics, other)
    both.loaded("m", 0.5)
    both.unloaded("m", "room")
    both.loaded("m", 0.25)
    both.unloaded("m", "idle")
    both.refused("m", "busy")
    both.requeued("m")
    both.waited("m", 0.2)
    told = {"n_tokens": 9, "chunks": [], "done": [], "n_drafted": 8, "n_accepted": 6}
    both.turn("m", {**told, "n_preempted": 1, "n_cells_shared": 40})
    for one in (metrics, other):
        seen = one.snapshot().models["m"]
        assert (seen.n_loads, seen.load_s, seen.n_evictions) == (2, 0.75, 1)
        assert (seen.n_refused, seen.n_requeued, seen.outside_s.n) == (1, 1, 1)
        assert (seen.acceptance, seen.n_preemptions, seen.cells_shared) == (0.75, 1, 40)
    assert metrics.snapshot().models["m"].outside_s.quantile(0.5) == pytest.approx(0.15)


def test_what_needs_no_model_does_not_pay_for_metrics() -> None:
    code = "import paddock.engine.backends.local, sys; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
