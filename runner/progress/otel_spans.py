"""OpenTelemetry: a run as spans and metrics, and the requests of `paddock serve` as spans.

A run's spans are the run, steps, items, model calls, and what a call waited for; its metrics are
the tokens and seconds of calls. Off unless the setting `otel` says otherwise. All goes to the
collector that OpenTelemetry's own variables name (`OTEL_EXPORTER_OTLP_ENDPOINT`; this machine's
port 4318 without it), by threads of the SDK's with bounded queues: no run waits for a collector,
but up to `FLUSH_S` at its end. Names follow the GenAI conventions where these have one. Prompts and
answers are sent only with `content`, and secrets are redacted in all. The SDK is the extra `otel`.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from paddock.engine.request import Usage
from paddock.engine.system.text import counted, encodable, shorten
from paddock.runner.config.pipeline_secrets import Redact

from .events import LONGEST_TEXT, ModelCall, Observer
from .item_states import BAD, SHOWN, ItemState
from .report import Report

if TYPE_CHECKING:
    from paddock.engine.api.request_log import Exchange

FLUSH_S = 5.0
_WAITS = ("load", "queue", "prefill", "decode")
_OPERATIONS = {"chat": "chat", "embed": "embeddings"}
_GOOD = {"completed", *SHOWN} - BAD
# Bounds of the histograms, as the GenAI conventions advise.
_TOKEN_BOUNDS = [4**n for n in range(14)]
_SECOND_BOUNDS = [0.01 * 2**n for n in range(14)]


@contextmanager
def otel_spans(
    note: Callable[[str], None], redact: Redact, *, is_with_content: bool
) -> Iterator[Observer]:
    """Yield an observer that sends a run's spans; `note` is given how many did not arrive."""
    exporter, resource = _CountingExporter(), _resource()
    readers = []
    if os.environ.get("OTEL_METRICS_EXPORTER") != "none":  # as their specification has it
        readers = [PeriodicExportingMetricReader(OTLPMetricExporter())]
    meters = MeterProvider(readers, resource, shutdown_on_exit=False)
    with _tracer(exporter, resource, meters.shutdown) as tracer:
        meter = meters.get_meter("paddock")
        spans = RunSpans(tracer, meter, redact, is_with_content=is_with_content)
        try:
            yield spans
        finally:
            spans.close()
    n_lost = spans.n_spans - exporter.n_sent
    if n_lost:
        note(
            f"{n_lost} of {counted(spans.n_spans, 'span')} did not reach the collector that "
            "OTEL_EXPORTER_OTLP_ENDPOINT names (this machine's port 4318 without it)"
        )


@contextmanager
def request_spans() -> Iterator[Callable[[Exchange], None]]:
    """Yield what sends a service's request as a span, below that of its `traceparent`."""
    with _tracer(OTLPSpanExporter(), _resource()) as tracer:
        yield partial(_send_exchange, tracer)


def _send_exchange(tracer: Tracer, exchange: Exchange) -> None:
    attributes: dict[str, Any] = {
        "http.request.method": exchange.method,
        "url.path": exchange.path,
        "http.response.status_code": exchange.status,
        "paddock.fate": exchange.fate,
    }
    if exchange.model:
        attributes |= {
            "gen_ai.provider.name": "paddock",
            "gen_ai.request.model": exchange.model,
            "gen_ai.usage.input_tokens": exchange.n_prompt_tokens,
            "gen_ai.usage.output_tokens": exchange.n_completion_tokens,
            "paddock.usage.reused_tokens": exchange.n_reused_tokens,
        }
    attributes = {
        name: encodable(value) if isinstance(value, str) else value
        for name, value in attributes.items()
    }
    began = int(exchange.at * 1e9)
    span = tracer.start_span(
        encodable(f"{exchange.method} {exchange.path}"), _parent(exchange.traceparent),
        SpanKind.SERVER, attributes, start_time=began,
    )  # fmt: skip
    if exchange.status >= 500 or exchange.fate == "failed":
        span.set_status(Status(StatusCode.ERROR))
    span.end(began + int(exchange.seconds * 1e9))


def _parent(traceparent: str) -> Context:
    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})


def _resource() -> Resource:
    for name in ("opentelemetry.exporter.otlp", "opentelemetry.sdk"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a run counts what they lose
    named = OTELResourceDetector().detect()  # by the environment, which takes precedence
    return Resource.create({"service.name": "paddock", **named.attributes})


@contextmanager
def _tracer(
    exporter: OTLPSpanExporter, resource: Resource, also: Callable[[], object] = lambda: None
) -> Iterator[Tracer]:
    """Yield a tracer; at its end send what is left, and do `also` what is like it, both in time."""
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider.get_tracer("paddock")
    finally:

        def end() -> None:
            provider.shutdown()
            also()

        flush = threading.Thread(target=end, name="otel", daemon=True)
        flush.start()
        flush.join(FLUSH_S)  # the SDK waits longer for a collector that takes a connection only


class _CountingExporter(OTLPSpanExporter):
    """Counts the spans that a collector has taken."""

    n_sent = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        self.n_sent += len(spans) if result is SpanExportResult.SUCCESS else 0
        return result


class RunSpans(Observer):
    def __init__(
        self, tracer: Tracer, meter: Meter, redact: Redact, *, is_with_content: bool
    ) -> None:
        self._tracer = tracer
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            explicit_bucket_boundaries_advisory=_TOKEN_BOUNDS,
        )
        self._seconds = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            explicit_bucket_boundaries_advisory=_SECOND_BOUNDS,
        )
        self._redact = redact
        self._is_with_content = is_with_content
        self._run: Span | None = None
        self._steps: dict[str, Span] = {}
        self._items: dict[tuple[str, str], Span] = {}
        self._ends: dict[str, int] = {}
        """When the last item of each step ended, in nanoseconds."""
        self.n_spans = 0

    def began(self, run: str, pipeline: str, steps: Sequence[str]) -> None:
        parent = _parent(os.environ.get("TRACEPARENT", ""))
        name = self._text(pipeline)
        attributes = {"paddock.run": run, "paddock.pipeline": name, "gen_ai.workflow.name": name}
        self._run = self._tracer.start_span(f"run {name}", parent, attributes=attributes)

    def step(self, step: str, total: int | None, fresh: int) -> None:
        span = self._step(step)
        span.set_attribute("paddock.items", 1 if total is None else total)
        span.set_attribute("paddock.items.fresh", fresh)

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        """Begin or end an item's span; a top-level step without items has only its own."""
        if state == "running":
            span = self._items.get((step, key))
            if span is None:
                span = self._begin_item(step, key)
            elif detail:
                span.add_event(self._text(detail))
            return
        span = self._items.pop((step, key), None) or self._begin_item(step, key)
        self._items.pop((step, key), None)
        self._ends[step] = time.time_ns()
        span.set_attribute("paddock.state", state)
        if key:
            self._end(span, state, detail)
        else:
            self._end(self._steps.pop(step), state, detail)

    def call(self, step: str, key: str, call: ModelCall) -> None:
        """Add the span of a call that a model answered, with what it waited for."""
        if call.is_cached:
            return
        operation = _OPERATIONS.get(call.kind, call.kind)
        parent = self._items.get((step, key)) or self._steps.get(step) or self._run
        common = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "paddock",
            "gen_ai.request.model": call.model,
        }
        sides = {"input": call.usage.prompt_tokens, "output": call.usage.completion_tokens}
        for side, n in sides.items():
            self._tokens.record(n, {**common, "gen_ai.token.type": side})
        self._seconds.record(max(0.0, time.time() - call.began), common)
        attributes: dict[str, Any] = {
            **common,
            "gen_ai.usage.input_tokens": call.usage.prompt_tokens,
            "gen_ai.usage.output_tokens": call.usage.completion_tokens,
            "paddock.usage.reused_tokens": call.usage.prompt_reused_tokens,
            "paddock.call": call.hash,
        }
        if call.done_reason:
            attributes["gen_ai.response.finish_reasons"] = [call.done_reason]
        if self._is_with_content and call.kind == "chat":
            attributes |= _content(call)
        began = int(call.began * 1e9)
        span = self._begin(f"{operation} {call.model}", parent, began, attributes)
        for name, at, seconds in _waits(call.usage, began):
            self._end(self._begin(name, span, at, {}), "done", None, at + int(seconds * 1e9))
        self._end(span, "done", None)

    def ended(self, report: Report) -> None:
        if self._run is None:
            return
        for name, n in (*report.counts.items(), ("calls", report.calls)):
            self._run.set_attribute(f"paddock.{name}", n)
        self._close_parts()
        run = self._run
        self._run = None
        run.set_attribute("paddock.status", report.status)
        self._end(run, report.status, report.message)

    def close(self) -> None:
        """End what a run that broke off left open."""
        self._close_parts()
        if self._run is not None:
            self._end(self._run, "failed", "the run broke off")
            self._run = None

    def _close_parts(self) -> None:
        for span in self._items.values():
            if span not in self._steps.values():
                self._end(span, "done", None)
        for step, span in self._steps.items():
            self._end(span, "done", None, self._ends.get(step))
        self._items.clear()
        self._steps.clear()

    def _text(self, text: str) -> str:
        return encodable(shorten(self._redact(text), LONGEST_TEXT))

    def _step(self, step: str) -> Span:
        if step not in self._steps:
            self._steps[step] = self._begin(f"step {step}", self._run, None, {"paddock.step": step})
        return self._steps[step]

    def _begin_item(self, step: str, key: str) -> Span:
        span = self._step(step)
        if key:
            attributes = {"paddock.step": step, "paddock.item": self._text(key)}
            span = self._begin(f"item {step}", span, None, attributes)
        self._items[step, key] = span
        return span

    def _begin(
        self, name: str, parent: Span | None, at: int | None, attributes: Mapping[str, Any]
    ) -> Span:
        context = set_span_in_context(parent) if parent is not None else None
        return self._tracer.start_span(name, context, attributes=attributes, start_time=at)

    def _end(self, span: Span, state: str, why: str | None, at: int | None = None) -> None:
        if state not in _GOOD:
            span.set_status(Status(StatusCode.ERROR, self._text(why or "")))
        self.n_spans += span.is_recording()  # it may be none of the sample
        span.end(at)


def _waits(usage: Usage, began: int) -> Iterator[tuple[str, int, float]]:
    for name in _WAITS:
        seconds = float(getattr(usage, f"{name}_s"))
        if seconds > 0:
            yield name, began, seconds
            began += int(seconds * 1e9)


def _content(call: ModelCall) -> dict[str, str]:
    message = _message("assistant", call.answer) | {"finish_reason": call.done_reason or "stop"}
    found = {"gen_ai.output.messages": [message]}
    with suppress(ValueError, KeyError):  # a secret that was a number or a name of the request
        messages = json.loads(call.request)["messages"]
        found["gen_ai.input.messages"] = [_message(role, text) for role, text, *_ in messages]
    return {
        name: encodable(json.dumps(messages, ensure_ascii=False))
        for name, messages in found.items()
    }


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}
