"""Numbers of one pool: counted as things happen, read in code or in Prometheus' text form.

Knows a pool only by its events. Each pool has a registry of its own, so nothing is global. Times
between tokens are taken in the pool's process, where a caller sees the tokens come.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from paddock.engine.readings import ModelMetrics, PoolMetrics, count, spread, total
from paddock.engine.request import DoneReason, Usage
from paddock.engine.residency.events import Leaving, PoolEvents, Refusal

_SHORT_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_LONG_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_SEQUENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# Of answers that nobody waits for any more the last chunk stays known; the oldest are forgotten.
_N_STREAMS = 4096


class Metrics:
    """Counts what it hears; implements `paddock.engine.residency.events.PoolEvents`.

    Used in the pool's event loop. A step costs it 20 µs, and 1 µs for each answer that grows.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._registry = CollectorRegistry()
        self._models: dict[str, None] = {}
        self._last_chunk_at: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._make_counters()
        self._make_others()

    def _make_counters(self) -> None:
        self._loads = self._counter("loads", "Times a model was loaded")
        self._load_s = self._counter("load_seconds", "Time spent on loading")
        self._unloads = self._counter("unloads", "Times a model went", "reason")
        self._deaths = self._counter("worker_deaths", "Workers that ended unasked")
        self._widened = self._counter("context_widenings", "Contexts made anew for longer ones")
        self._requeued = self._counter("requeued", "Requests sent again after a worker's death")
        self._refused = self._counter("refused", "Requests that were not taken", "reason")
        self._answers = self._counter("answers", "Chats answered", "reason")
        self._prompt = self._counter("prompt_tokens", "Tokens of answered prompts")
        self._reused = self._counter("prompt_reused_tokens", "Of these, found in the KV cache")
        self._completion = self._counter("completion_tokens", "Tokens of answers")
        self._said = self._counter("said_tokens", "Tokens of answers, as they come")
        self._drafted = self._counter("drafted_tokens", "Tokens guessed ahead")
        self._accepted = self._counter("accepted_tokens", "Guessed tokens that were right")
        self._preemptions = self._counter("preemptions", "Sequences put back to make room")
        self._texts = self._counter("embedded_texts", "Texts embedded")
        self._text_tokens = self._counter("embedded_tokens", "Tokens of embedded texts")

    def _make_others(self) -> None:
        self._running = self._gauge("running_sequences", "Sequences in the last step")
        self._waiting = self._gauge("waiting_sequences", "Requests that wait inside the worker")
        self._cells = self._gauge("cells_used", "Cells of the KV cache in use")
        self._shared = self._gauge("cells_shared", "Cells that sharing saves")
        self._outside_s = self._histogram("outside_seconds", "Wait for a worker", _LONG_S)
        self._queue_s = self._histogram("queue_seconds", "Wait inside the worker", _LONG_S)
        self._first_s = self._histogram("first_token_seconds", "Request to first token", _LONG_S)
        self._between_s = self._histogram("between_tokens_seconds", "Token to token", _SHORT_S)
        self._step_s = self._histogram("step_seconds", "One forward pass", _SHORT_S)
        self._batch = self._histogram("batch_tokens", "Tokens of one step", _TOKENS)
        self._batch_rows = self._histogram("batch_sequences", "Sequences of one step", _SEQUENCES)
        self._embed_s = self._histogram("embed_seconds", "Requests for vectors", _LONG_S)

    def _counter(self, name: str, what: str, *more: str) -> Counter:
        return Counter(f"paddock_{name}", f"{what}.", ("model", *more), registry=self._registry)

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(f"paddock_{name}", f"{what}.", ("model",), registry=self._registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"paddock_{name}", f"{what}.", ("model",), registry=self._registry, buckets=buckets
        )

    # Reading

    def text(self) -> bytes:
        """Give everything in Prometheus' text form."""
        return generate_latest(self._registry)

    def snapshot(self) -> PoolMetrics:
        """Give the numbers of now."""
        return PoolMetrics({model: self._of(model) for model in self._models})

    def _of(self, model: str) -> ModelMetrics:
        return ModelMetrics(
            n_loads=count(self._loads, model),
            load_s=total(self._load_s, model),
            n_evictions=count(self._unloads, model, reason="room"),
            n_deaths=count(self._deaths, model),
            n_requeued=count(self._requeued, model),
            n_refused=count(self._refused, model),
            n_answers=count(self._answers, model),
            prompt_tokens=count(self._prompt, model),
            prompt_reused_tokens=count(self._reused, model),
            completion_tokens=count(self._completion, model),
            said_tokens=count(self._said, model),
            drafted_tokens=count(self._drafted, model),
            accepted_tokens=count(self._accepted, model),
            n_preemptions=count(self._preemptions, model),
            n_texts=count(self._texts, model),
            text_tokens=count(self._text_tokens, model),
            n_running=count(self._running, model),
            n_waiting=count(self._waiting, model),
            cells_used=count(self._cells, model),
            cells_shared=count(self._shared, model),
            outside_s=spread(self._outside_s, model),
            queue_s=spread(self._queue_s, model),
            first_token_s=spread(self._first_s, model),
            between_tokens_s=spread(self._between_s, model),
            step_s=spread(self._step_s, model),
            batch_tokens=spread(self._batch, model),
            batch_sequences=spread(self._batch_rows, model),
        )

    # Hearing

    def loaded(self, model: str, seconds: float) -> None:
        """A model is ready; it took so long."""
        self._models.setdefault(model)
        self._loads.labels(model).inc()
        self._load_s.labels(model).inc(seconds)

    def unloaded(self, model: str, why: Leaving) -> None:
        """A model has gone."""
        self._unloads.labels(model, why).inc()
        self._forget(model)

    def died(self, model: str, reason: str) -> None:
        """A worker ended unasked."""
        self._models.setdefault(model)
        self._deaths.labels(model).inc()
        self._forget(model)

    def widened(self, model: str, n_ctx_tokens: int) -> None:
        """A worker made its context anew."""
        self._widened.labels(model).inc()

    def waited(self, model: str, seconds: float) -> None:
        """A request was let into a worker."""
        self._models.setdefault(model)
        self._outside_s.labels(model).observe(seconds)

    def requeued(self, model: str) -> None:
        """A request whose worker died is sent again."""
        self._requeued.labels(model).inc()

    def refused(self, model: str, why: Refusal) -> None:
        """A request was not taken."""
        self._models.setdefault(model)
        self._refused.labels(model, why).inc()

    def turn(self, model: str, told: Mapping[str, Any]) -> None:
        """A worker made a step."""
        self._models.setdefault(model)
        if told["n_tokens"]:
            self._batch.labels(model).observe(told["n_tokens"])
            self._batch_rows.labels(model).observe(told.get("n_sequences", 0))
            self._step_s.labels(model).observe(told.get("step_s", 0.0))
        self._running.labels(model).set(told.get("n_sequences", 0) - len(told["done"]))
        self._waiting.labels(model).set(told.get("n_waiting", 0))
        self._cells.labels(model).set(told.get("n_cells_used", 0))
        self._shared.labels(model).set(told.get("n_cells_shared", 0))
        self._preemptions.labels(model).inc(told.get("n_preempted", 0))
        self._drafted.labels(model).inc(told.get("n_drafted", 0))
        self._accepted.labels(model).inc(told.get("n_accepted", 0))
        self._hear_chunks(model, told)

    def _hear_chunks(self, model: str, told: Mapping[str, Any]) -> None:
        """Note the time since each answer's last tokens; several at once share it."""
        n_new: dict[int, int] = {}
        for chunk in told["chunks"]:
            n_new[chunk["id"]] = n_new.get(chunk["id"], 0) + chunk["n_tokens"]
        now = self._clock() - told.get("age_s", 0.0)
        between_s = self._between_s.labels(model)
        self._said.labels(model).inc(sum(n_new.values()))
        for request_id, n in n_new.items():
            if not n:
                continue
            before = self._last_chunk_at.pop((model, request_id), None)
            self._last_chunk_at[model, request_id] = now
            if before is not None:
                for _ in range(n):
                    between_s.observe((now - before) / n)
        for done in told["done"]:
            self._last_chunk_at.pop((model, done["id"]), None)
        while len(self._last_chunk_at) > _N_STREAMS:
            self._last_chunk_at.popitem(last=False)

    def answered(self, model: str, reason: DoneReason, usage: Usage, first_s: float) -> None:
        """A chat has ended."""
        self._answers.labels(model, reason).inc()
        self._prompt.labels(model).inc(usage.prompt_tokens)
        self._reused.labels(model).inc(usage.prompt_reused_tokens)
        self._completion.labels(model).inc(usage.completion_tokens)
        self._queue_s.labels(model).observe(usage.queue_s)
        if first_s:
            self._first_s.labels(model).observe(first_s)

    def embedded(self, model: str, n_texts: int, n_tokens: int, seconds: float) -> None:
        """A request for vectors was answered."""
        self._texts.labels(model).inc(n_texts)
        self._text_tokens.labels(model).inc(n_tokens)
        self._embed_s.labels(model).observe(seconds)

    def _forget(self, model: str) -> None:
        """Drop what was known of a worker's answers: a new one counts its requests anew."""
        for key in [key for key in self._last_chunk_at if key[0] == model]:
            del self._last_chunk_at[key]
        for gauge in (self._running, self._waiting, self._cells, self._shared):
            gauge.labels(model).set(0)


def heard_by(*hearers: PoolEvents) -> PoolEvents:
    """Give one that tells all of these."""
    return cast(PoolEvents, _Several(hearers))


class _Several:
    """Passes every event on; what an event is called, `PoolEvents` says."""

    def __init__(self, hearers: tuple[PoolEvents, ...]) -> None:
        self._hearers = hearers

    def __getattr__(self, name: str) -> Callable[..., None]:
        heard = [getattr(one, name) for one in self._hearers]

        def tell(*what: Any) -> None:
            for hear in heard:
                hear(*what)

        return tell
