"""Prometheus metrics of one pool, counted from its events, and as typed values for code.

Each pool has its own registry, so nothing is global. Times between tokens are taken in the pool's
process, where a caller sees the tokens come. Imports prometheus_client (50 ms), so `local` imports
it when a pool is made.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from paddock.engine.memory.pool_stats import ModelStats, PoolEvents, RefusalReason, UnloadReason
from paddock.engine.request import DoneReason, Usage
from paddock.engine.system.records import Struct


class HistogramReading(Struct, frozen=True):
    n: int
    total: float
    buckets: tuple[tuple[float, int], ...]
    """Upper bound, and how many were not above it."""

    @property
    def mean(self) -> float:
        return self.total / self.n if self.n else 0.0

    def quantile(self, share: float) -> float:
        """Estimate below what this share lies, by a straight line through the bucket.

        >>> HistogramReading(4, 5.0, ((1.0, 2), (2.0, 4), (float("inf"), 4))).quantile(0.75)
        1.5
        """
        target = share * self.n
        low = 0.0
        n_below = 0
        for high, n in self.buckets:
            if n >= target and n > n_below:
                if high == float("inf"):
                    return low
                return low + (high - low) * (target - n_below) / (n - n_below)
            low, n_below = high, n
        return 0.0


class ModelMetrics(Struct, frozen=True):
    """Numbers of one model since the pool was opened, for the console and `ps`."""

    n_loads: int
    n_evictions: int
    """Times that it went to make room for another one."""
    n_deaths: int
    n_refused: int
    n_answers: int
    prompt_tokens: int
    prompt_reused_tokens: int
    streamed_tokens: int
    """Of answers under way, too, and of those that were broken off."""
    drafted_tokens: int
    accepted_tokens: int
    n_texts: int
    text_tokens: int
    cells_used: int
    cells_shared: int
    batch_tokens: int
    first_token_s: HistogramReading
    between_tokens_s: HistogramReading


def _samples(metric: MetricWrapperBase, model: str, **labels: str) -> Iterator[Any]:
    required = {"model": model, **labels}.items()
    for family in metric.collect():
        for sample in family.samples:
            if required <= sample.labels.items() and not sample.name.endswith("_created"):
                yield sample


def read_count(metric: MetricWrapperBase, model: str, **labels: str) -> int:
    return round(sum(float(sample.value) for sample in _samples(metric, model, **labels)))


def read_histogram(metric: Histogram, model: str) -> HistogramReading:
    n = 0
    amount = 0.0
    buckets = []
    for sample in _samples(metric, model):
        if sample.name.endswith("_count"):
            n = round(sample.value)
        elif sample.name.endswith("_sum"):
            amount = float(sample.value)
        else:
            buckets.append((float(sample.labels["le"]), round(sample.value)))
    return HistogramReading(n, amount, tuple(buckets))


_SHORT_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_LONG_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_SEQUENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# The last chunks of cancelled answers stay known; the oldest are dropped.
_N_STREAMS = 4096


class MetricRegistry:
    def __init__(self, *labels: str) -> None:
        self._labels = labels
        self._registry = CollectorRegistry()

    def counter(self, name: str, what: str, *labels: str) -> Counter:
        names = (*self._labels, *labels)
        return Counter(f"paddock_{name}", f"{what}.", names, registry=self._registry)

    def gauge(self, name: str, what: str) -> Gauge:
        return Gauge(f"paddock_{name}", f"{what}.", self._labels, registry=self._registry)

    def histogram(
        self, name: str, what: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        names = (*self._labels, *labels)
        return Histogram(
            f"paddock_{name}", f"{what}.", names, registry=self._registry, buckets=buckets
        )

    def text(self) -> bytes:
        return generate_latest(self._registry)


class Metrics(PoolEvents):
    """Counts the events of a pool.

    Used in the pool's event loop. A step costs it 20 µs, and 1 µs for each answer that grows.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._registry = made = MetricRegistry("model")
        self._models: dict[str, None] = {}
        self._last_chunk_at: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._loads = made.counter("loads", "Times a model was loaded")
        self._load_s = made.counter("load_seconds", "Time spent on loading")
        self._unloads = made.counter("unloads", "Times a model went", "reason")
        self._deaths = made.counter("worker_deaths", "Workers that ended unasked")
        self._widened = made.counter("context_widenings", "Contexts made again for longer ones")
        self._requeued = made.counter("requeued", "Requests sent again after a worker's death")
        self._refused = made.counter("refused", "Requests that were not taken", "reason")
        self._answers = made.counter("answers", "Chats answered", "reason")
        self._prompt = made.counter("prompt_tokens", "Tokens of answered prompts")
        self._reused = made.counter("prompt_reused_tokens", "Of these, found in the KV cache")
        self._completion = made.counter("completion_tokens", "Tokens of answers")
        self._streamed = made.counter("said_tokens", "Tokens of answers, as they come")
        self._drafted = made.counter("drafted_tokens", "Tokens guessed ahead")
        self._accepted = made.counter("accepted_tokens", "Guessed tokens that were right")
        self._preemptions = made.counter("preemptions", "Sequences put back to make room")
        self._texts = made.counter("embedded_texts", "Texts embedded")
        self._text_tokens = made.counter("embedded_tokens", "Tokens of embedded texts")
        self._running = made.gauge("running_sequences", "Requests that are being computed")
        self._waiting = made.gauge("waiting_sequences", "Requests that wait inside the worker")
        self._cells = made.gauge("cells_used", "Cells of the KV cache in use")
        self._shared = made.gauge("cells_shared", "Cells that sharing saves")
        self._outside_s = made.histogram("outside_seconds", "Wait for a worker", _LONG_S)
        self._queue_s = made.histogram("queue_seconds", "Wait inside the worker", _LONG_S)
        self._first_s = made.histogram("first_token_seconds", "Request to first token", _LONG_S)
        self._between_s = made.histogram("between_tokens_seconds", "Token to token", _SHORT_S)
        self._step_s = made.histogram("step_seconds", "One forward pass", _SHORT_S)
        self._batch = made.histogram("batch_tokens", "Tokens of one step", _TOKENS)
        self._batch_rows = made.histogram("batch_sequences", "Sequences of one step", _SEQUENCES)
        self._embed_s = made.histogram("embed_seconds", "Requests for vectors", _LONG_S)

    def text(self, resident: Sequence[ModelStats] = ()) -> bytes:
        for name in {model.name for model in resident}:
            replicas = [model for model in resident if model.name == name]
            n_running = sum(model.n_running for model in replicas)
            self._running.labels(name).set(n_running)
            self._waiting.labels(name).set(sum(model.n_users for model in replicas) - n_running)
        return self._registry.text()

    def snapshot(self) -> dict[str, ModelMetrics]:
        return {model: self._of(model) for model in self._models}

    def _of(self, model: str) -> ModelMetrics:
        return ModelMetrics(
            n_loads=read_count(self._loads, model),
            n_evictions=read_count(self._unloads, model, reason="room"),
            n_deaths=read_count(self._deaths, model),
            n_refused=read_count(self._refused, model),
            n_answers=read_count(self._answers, model),
            prompt_tokens=read_count(self._prompt, model),
            prompt_reused_tokens=read_count(self._reused, model),
            streamed_tokens=read_count(self._streamed, model),
            drafted_tokens=read_count(self._drafted, model),
            accepted_tokens=read_count(self._accepted, model),
            n_texts=read_count(self._texts, model),
            text_tokens=read_count(self._text_tokens, model),
            cells_used=read_count(self._cells, model),
            cells_shared=read_count(self._shared, model),
            batch_tokens=round(read_histogram(self._batch, model).total),
            first_token_s=read_histogram(self._first_s, model),
            between_tokens_s=read_histogram(self._between_s, model),
        )

    def loaded(self, model: str, seconds: float) -> None:
        self._models.setdefault(model)
        self._loads.labels(model).inc()
        self._load_s.labels(model).inc(seconds)

    def unloaded(self, model: str, why: UnloadReason) -> None:
        self._unloads.labels(model, why).inc()
        self._forget(model)

    def died(self, model: str, reason: str) -> None:
        self._models.setdefault(model)
        self._deaths.labels(model).inc()
        self._forget(model)

    def widened(self, model: str, n_ctx_tokens: int) -> None:
        self._widened.labels(model).inc()

    def waited(self, model: str, seconds: float) -> None:
        self._models.setdefault(model)
        self._outside_s.labels(model).observe(seconds)

    def requeued(self, model: str) -> None:
        self._requeued.labels(model).inc()

    def refused(self, model: str, why: RefusalReason) -> None:
        self._models.setdefault(model)
        self._refused.labels(model, why).inc()

    def turn(self, model: str, report: Mapping[str, Any]) -> None:
        self._models.setdefault(model)
        if report["n_tokens"]:
            self._batch.labels(model).observe(report["n_tokens"])
            self._batch_rows.labels(model).observe(report.get("n_sequences", 0))
            self._step_s.labels(model).observe(report.get("step_s", 0.0))
        self._cells.labels(model).set(report.get("n_cells_used", 0))
        self._shared.labels(model).set(report.get("n_cells_shared", 0))
        self._preemptions.labels(model).inc(report.get("n_preempted", 0))
        self._drafted.labels(model).inc(report.get("n_drafted", 0))
        self._accepted.labels(model).inc(report.get("n_accepted", 0))
        # Note the time since each answer's last tokens; several at once share it.
        n_new: dict[int, int] = {}
        for chunk in report["chunks"]:
            n_new[chunk["id"]] = n_new.get(chunk["id"], 0) + chunk["n_tokens"]
        now = self._clock() - report.get("age_s", 0.0)
        between_s = self._between_s.labels(model)
        self._streamed.labels(model).inc(sum(n_new.values()))
        for request_id, n in n_new.items():
            if not n:
                continue
            before = self._last_chunk_at.pop((model, request_id), None)
            self._last_chunk_at[model, request_id] = now
            if before is not None:
                for _ in range(n):
                    between_s.observe((now - before) / n)
        for done in report["done"]:
            self._last_chunk_at.pop((model, done["id"]), None)
        while len(self._last_chunk_at) > _N_STREAMS:
            self._last_chunk_at.popitem(last=False)

    def answered(self, model: str, reason: DoneReason, usage: Usage, first_s: float) -> None:
        self._answers.labels(model, reason).inc()
        self._prompt.labels(model).inc(usage.prompt_tokens)
        self._reused.labels(model).inc(usage.prompt_reused_tokens)
        self._completion.labels(model).inc(usage.completion_tokens)
        self._queue_s.labels(model).observe(usage.queue_s)
        if first_s:
            self._first_s.labels(model).observe(first_s)

    def embedded(self, model: str, n_texts: int, n_tokens: int, seconds: float) -> None:
        self._texts.labels(model).inc(n_texts)
        self._text_tokens.labels(model).inc(n_tokens)
        self._embed_s.labels(model).observe(seconds)

    def _forget(self, model: str) -> None:
        """Drop what was known of a worker's answers: a new one begins to count at 0."""
        for key in [key for key in self._last_chunk_at if key[0] == model]:
            del self._last_chunk_at[key]
        for gauge in (self._running, self._waiting, self._cells, self._shared):
            gauge.labels(model).set(0)
