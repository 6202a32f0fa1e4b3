"""A run as OpenTelemetry spans: run, steps, items, model calls, and what a call waited for.

Off unless the setting `otel` says otherwise. Spans go to the collector that OpenTelemetry's own
variables name (`OTEL_EXPORTER_OTLP_ENDPOINT`; this machine's port 4318 without it), by a thread of
the SDK's with a bounded queue: no run waits for a collector, but up to `FLUSH_S` at its end. Names
of attributes follow the GenAI conventions where these have one. Prompts and answers are sent only
with `content`, and secrets are redacted in all. The SDK is the extra `otel`.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Span, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from paddock.engine.request import Usage
from paddock.engine.system.text import counted, shorten
from paddock.runner.config.pipeline_secrets import Redact

from .events import LONGEST_TEXT, ItemState, ModelCall, Observer
from .report import Report

FLUSH_S = 5.0
_WAITS = ("load", "queue", "prefill", "decode")
_OPERATIONS = {"chat": "chat", "embed": "embeddings"}
_GOOD = ("completed", "done", "fresh", "skipped", "waiting")


@contextmanager
def otel_spans(
    note: Callable[[str], None], redact: Redact, *, is_with_content: bool
) -> Iterator[Observer]:
    """Yield an observer that sends a run's spans; `note` is given how many did not arrive."""
    for name in ("opentelemetry.exporter.otlp", "opentelemetry.sdk"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what they lose is counted below
    exporter = _CountingExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "paddock"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("paddock")
    spans = RunSpans(tracer, redact, is_with_content=is_with_content)
    try:
        yield spans
    finally:
        spans.close()
        flush = threading.Thread(target=provider.shutdown, name="otel", daemon=True)
        flush.start()
        flush.join(FLUSH_S)  # the SDK waits longer for a collector that takes a connection only
        n_lost = spans.n_spans - exporter.n_sent
        if n_lost:
            note(
                f"{n_lost} of {counted(spans.n_spans, 'span')} did not reach the collector that "
                "OTEL_EXPORTER_OTLP_ENDPOINT names (this machine's port 4318 without it)"
            )


class _CountingExporter(OTLPSpanExporter):
    """Counts the spans that a collector has taken."""

    n_sent = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        self.n_sent += len(spans) if result is SpanExportResult.SUCCESS else 0
        return result


class RunSpans(Observer):
    """An observer whose events become spans."""

    def __init__(self, tracer: Tracer, redact: Redact, *, is_with_content: bool) -> None:
        self._tracer = tracer
        self._redact = redact
        self._is_with_content = is_with_content
        self._run: Span | None = None
        self._steps: dict[str, Span] = {}
        self._items: dict[tuple[str, str], Span] = {}
        self._ends: dict[str, int] = {}
        """When the last item of each step ended, in nanoseconds."""
        self.n_spans = 0
        """Those that have ended."""

    def began(self, run: str, pipeline: str, steps: Sequence[str]) -> None:
        """Begin the run's span, below that of `TRACEPARENT` if the caller set one."""
        carrier = {"traceparent": os.environ.get("TRACEPARENT", "")}
        parent = TraceContextTextMapPropagator().extract(carrier)
        name = self._text(pipeline)
        told = {"paddock.run": run, "paddock.pipeline": name, "gen_ai.workflow.name": name}
        self._run = self._tracer.start_span(f"run {name}", parent, attributes=told)

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
        told: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "paddock",
            "gen_ai.request.model": call.model,
            "gen_ai.usage.input_tokens": call.usage.prompt_tokens,
            "gen_ai.usage.output_tokens": call.usage.completion_tokens,
            "paddock.usage.reused_tokens": call.usage.prompt_reused_tokens,
            "paddock.call": call.hash,
        }
        if call.done_reason:
            told["gen_ai.response.finish_reasons"] = [call.done_reason]
        if self._is_with_content and call.kind == "chat":
            told |= _content(call)
        began = int(call.began * 1e9)
        span = self._begin(f"{operation} {call.model}", parent, began, told)
        for name, at, seconds in _waits(call.usage, began):
            self._end(self._begin(name, span, at, {}), "done", None, at + int(seconds * 1e9))
        self._end(span, "done", None)

    def ended(self, report: Report) -> None:
        """End the run's span with the report's figures."""
        if self._run is None:
            return
        for name, n in (*report.counts.items(), ("calls", report.calls)):
            self._run.set_attribute(f"paddock.{name}", n)
        self._close_parts()
        run, self._run = self._run, None
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
        return _encodable(shorten(self._redact(text), LONGEST_TEXT))

    def _step(self, step: str) -> Span:
        if step not in self._steps:
            self._steps[step] = self._begin(f"step {step}", self._run, None, {"paddock.step": step})
        return self._steps[step]

    def _begin_item(self, step: str, key: str) -> Span:
        span = self._step(step)
        if key:
            told = {"paddock.step": step, "paddock.item": self._text(key)}
            span = self._begin(f"item {step}", span, None, told)
        self._items[step, key] = span
        return span

    def _begin(
        self, name: str, parent: Span | None, at: int | None, told: Mapping[str, Any]
    ) -> Span:
        context = set_span_in_context(parent) if parent is not None else None
        return self._tracer.start_span(name, context, attributes=told, start_time=at)

    def _end(self, span: Span, state: str, why: str | None, at: int | None = None) -> None:
        if state not in _GOOD:
            span.set_status(Status(StatusCode.ERROR, self._text(why or "")))
        self.n_spans += span.is_recording()  # it may be none of the sample
        span.end(at)


def _waits(usage: Usage, began: int) -> Iterator[tuple[str, int, float]]:
    """Yield the parts of a call, one after the other: name, beginning, seconds."""
    for name in _WAITS:
        seconds = float(getattr(usage, f"{name}_s"))
        if seconds > 0:
            yield name, began, seconds
            began += int(seconds * 1e9)


def _content(call: ModelCall) -> dict[str, str]:
    """Return prompt and answer as the conventions write messages."""
    said = _message("assistant", call.answer) | {"finish_reason": call.done_reason or "stop"}
    found = {"gen_ai.output.messages": [said]}
    with suppress(ValueError, KeyError):  # a secret that was a number or a name of the request
        messages = json.loads(call.request)["messages"]
        found["gen_ai.input.messages"] = [_message(role, text) for role, text, *_ in messages]
    return {
        name: _encodable(json.dumps(messages, ensure_ascii=False))
        for name, messages in found.items()
    }


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def _encodable(text: str) -> str:
    """Return a text with lone surrogates, as of a file's name, written out."""
    return text.encode("utf-8", "backslashreplace").decode()
