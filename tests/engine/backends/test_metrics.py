import subprocess
import sys
from collections import Counter
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from paddock.engine.backends.local import LocalPool
from paddock.engine.backends.metrics import Metrics
from paddock.engine.memory.pool_stats import ModelStats
from paddock.engine.request import ChatRequest, EmbedRequest, Message, ModelSpec
from paddock.engine.settings import PoolSettings

VECTORS = ModelSpec("all-minilm", role="embed")


def numbers(metrics: Metrics, model: str) -> Counter[str]:
    """Add up a model's samples by their names, without the buckets of histograms."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            if sample.labels.get("model") == model and "le" not in sample.labels:
                found[sample.name.removeprefix("paddock_")] += sample.value  # type: ignore[assignment]
    return found


async def test_a_real_pool_counts_what_it_did(noise: ModelSpec) -> None:
    settings = PoolSettings(n_threads=1, models_dir=Path("/nonexistent"), profile_s=0)
    async with LocalPool(settings) as pool:
        rules = Message("system", "Read what follows and answer in one sentence. " * 6)
        params = {"max_tokens": 8, "ignore_eos": True}
        streams = [
            pool.chat(ChatRequest(noise, (rules, Message("user", f"{n}?")), params))
            for n in range(3)
        ]
        usages = [(await stream.reply()).usage for stream in streams]
        reply = await pool.embed(EmbedRequest(VECTORS, ("one", "two", "three")))
        seen = pool.metrics.snapshot()
        text = pool.metrics.text().decode()
        all_of_chat = numbers(pool.metrics, noise.ref)
        all_of_vectors = numbers(pool.metrics, "all-minilm")
    chat, vectors = seen[noise.ref], seen["all-minilm"]
    assert (chat.n_loads, chat.n_answers, chat.n_evictions, chat.n_deaths) == (1, 3, 0, 0)
    assert all_of_chat["load_seconds_total"] > 0
    assert chat.prompt_tokens == sum(usage.prompt_tokens for usage in usages)
    assert chat.prompt_reused_tokens == sum(usage.prompt_reused_tokens for usage in usages) > 0
    completed = sum(usage.completion_tokens for usage in usages)
    assert all_of_chat["completion_tokens_total"] == completed
    waits = (all_of_chat["queue_seconds_count"], all_of_chat["outside_seconds_count"])
    assert (chat.first_token_s.n, *waits) == (3, 3, 3)
    assert 0 < chat.first_token_s.quantile(0.5) < 60
    assert chat.between_tokens_s.n == completed - 3
    assert chat.between_tokens_s.total > 0
    assert chat.batch_tokens >= chat.prompt_tokens - chat.prompt_reused_tokens
    assert all_of_chat["step_seconds_count"] == all_of_chat["batch_tokens_count"] > 0
    assert chat.cells_used > 0
    assert (vectors.n_texts, vectors.text_tokens) == (3, reply.usage.prompt_tokens)
    assert vectors.batch_tokens == reply.usage.prompt_tokens
    assert all_of_vectors["batch_sequences_sum"] == 3
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"paddock_loads", "paddock_first_token_seconds", "paddock_cells_used"} <= names
    assert f'paddock_answers_total{{model="{noise.ref}",reason="length"}} ' in text


def test_gauges_of_requests_are_those_of_now_not_of_the_last_step() -> None:
    metrics, last = Metrics(), {"n_tokens": 3, "n_sequences": 3, "done": [], "chunks": []}
    metrics.turn("m", last)
    two = [ModelStats("m", "ready", n, 4, 0, n_running=1) for n in (3, 1)]
    text = metrics.text(two).decode()
    assert 'paddock_running_sequences{model="m"} 2.0' in text
    assert 'paddock_waiting_sequences{model="m"} 2.0' in text
    idle = metrics.text([ModelStats("m", "ready", 0, 4, 0)]).decode()
    assert 'paddock_running_sequences{model="m"} 0.0' in idle


def test_time_between_tokens_is_shared_by_those_that_come_together() -> None:
    times = iter([1.0, 1.5, 2.5, 9.0])
    metrics = Metrics(clock=lambda: next(times))
    frame = {"n_tokens": 1, "done": []}
    metrics.turn("m", {**frame, "chunks": [{"id": 1, "n_tokens": 1}]})
    metrics.turn("m", {**frame, "chunks": [{"id": 1, "n_tokens": 1}, {"id": 2, "n_tokens": 1}]})
    metrics.turn("m", {**frame, "chunks": [{"id": 1, "n_tokens": 1}] * 2, "done": [{"id": 1}]})
    spread = metrics.snapshot()["m"].between_tokens_s
    assert (spread.n, spread.total, spread.mean) == (3, 1.5, 0.5)
    metrics.died("m", "killed by SIGKILL")
    metrics.turn("m", {**frame, "chunks": [{"id": 2, "n_tokens": 1}]})
    assert metrics.snapshot()["m"].between_tokens_s.n == 3, "a new worker's 2 is another"


def test_what_needs_no_model_does_not_pay_for_metrics() -> None:
    code = "import paddock.engine.backends.local, sys; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
