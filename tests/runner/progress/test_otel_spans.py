"""A run's spans, as a collector gets them over OTLP."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from paddock.engine.system.records import replace
from paddock.runner.api import run
from paddock.runner.progress import otel_spans
from paddock.runner.progress.otel_spans import request_spans
from paddock.runner.progress.report import Report
from tests.fakes.http_server import Answer, Request, serving
from tests.fakes.pool import FakePool
from tests.live import CHAT, live_service
from tests.runner.world import Notes, World, run_arguments, settings

PIPELINE = """
description: Letters.
inputs: {folder: {type: dir, default: ./inbox}}
models: {writer: {ref: "smollm2:135m"}}
steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.folder }}"}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: say, uses: chat, with: {prompt: "Shorter: {{ steps.text.text }}"}}
"""


@dataclass
class Collector:
    """A collector's HTTP endpoint that keeps what it gets."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    metrics: dict[str, Metric] = field(default_factory=dict)

    def named(self, name: str) -> Span:
        (span,) = [span for span in self.spans if span.name == name]
        return span


@contextmanager
def collector() -> Iterator[Collector]:
    found = Collector()

    def answer(request: Request) -> Answer:
        if request.path == "/v1/metrics":
            for metric in ExportMetricsServiceRequest.FromString(request.body).resource_metrics:
                for within in metric.scope_metrics:
                    found.metrics.update({metric.name: metric for metric in within.metrics})
        else:
            assert request.path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
                found.services.add(attributes(resource.resource)["service.name"])
                for scope in resource.scope_spans:
                    found.spans.extend(scope.spans)
        return Answer()

    with serving(answer) as server:
        found.url = server.url
        yield found


def traced(
    world: World, mode: str, url: str, monkeypatch: pytest.MonkeyPatch, flush_s: float = 60
) -> tuple[Report, Notes]:
    """Run with a setting and a collector; return the report and the run's notes."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setattr(otel_spans, "FLUSH_S", flush_s)
    notes = Notes()
    chosen: Any = replace(settings(world.folder), otel=mode, allow=frozenset({"secrets"}))
    pool = FakePool(answer=lambda request: f"said: {request.messages[-1].content[9:]}")
    around = run_arguments(local=True, pool=pool, observer=notes, settings=chosen)
    return run(world.file, None, *around), notes


def attributes(span: Any) -> dict[str, Any]:
    """Return the attributes of a span or of a metric's point as Python's values."""
    found = {}
    for attribute in span.attributes:
        kind = attribute.value.WhichOneof("value")
        found[attribute.key] = getattr(attribute.value, kind)
    return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, PIPELINE)
    world.write("inbox/a.txt", "alpha")
    world.write("inbox/b.txt", "bravo")
    return world


def test_run_steps_items_and_calls_are_spans_within_each_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{'ab' * 16}-{'cd' * 8}-01")
    with collector() as found:
        report, notes = traced(world, "on", found.url, monkeypatch)
    assert (report.status, notes.texts) == ("completed", [])
    assert {span.trace_id.hex() for span in found.spans} == {"ab" * 16}
    parents = {span.span_id: span for span in found.spans}
    top = found.named(f"run {report.pipeline}")
    assert top.parent_span_id.hex() == "cd" * 8
    assert attributes(top)["paddock.run"] == report.run
    assert attributes(top)["paddock.calls"] == 2
    calls = [span for span in found.spans if span.name.startswith("chat ")]
    assert len(calls) == 2
    for call in calls:
        values = attributes(call)
        assert values["gen_ai.operation.name"] == "chat"
        assert values["gen_ai.request.model"] == "smollm2:135m"
        assert values["gen_ai.usage.output_tokens"] > 0
        assert not [name for name in values if "messages" in name]
        item = parents[call.parent_span_id]
        assert attributes(item)["paddock.item"] in ("a.txt", "b.txt")
        assert item.start_time_unix_nano <= call.start_time_unix_nano
        assert call.end_time_unix_nano <= item.end_time_unix_nano
        step = parents[item.parent_span_id]
        assert step.name == "step each"
        assert step.parent_span_id == top.span_id
    assert found.named("step docs").parent_span_id == top.span_id


@pytest.mark.parametrize(
    ("name", "more", "service"),
    [("", "", "paddock"), ("letters", "", "letters"), ("", "service.name=bills,a=b", "bills")],
)
def test_the_service_has_the_name_that_the_environment_gives_it(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, more: str, service: str
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", name)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", more)
    with collector() as found:
        traced(world, "on", found.url, monkeypatch)
    assert found.services == {service}


def test_requests_of_a_service_are_spans_below_their_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
    with collector() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        with live_service(tmp_path) as live, live.client() as client, request_spans() as ended:
            live.service.request_log.on_end = ended
            body = {
                "model": CHAT,
                "prompt": "Hello",
                "options": {"num_predict": 2},
                "stream": False,
            }
            answer = client.post("/api/generate", json=body, headers={"traceparent": trace})
            assert answer.is_success
            client.get("/api/nothing", headers={"traceparent": "nonsense"})
            client.get("/healthz")
    (request_span, missing) = found.spans
    assert (request_span.trace_id.hex(), request_span.parent_span_id.hex()) == ("ab" * 16, "cd" * 8)
    assert (request_span.name, request_span.kind) == ("POST /api/generate", Span.SPAN_KIND_SERVER)
    values = attributes(request_span)
    assert values["gen_ai.request.model"] == CHAT
    assert values["gen_ai.usage.output_tokens"] == 2
    assert attributes(missing)["http.response.status_code"] == 404
    assert missing.parent_span_id == b""


def test_prompts_and_answers_are_sent_only_with_content(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collector() as found:
        traced(world, "content", found.url, monkeypatch)
    chats = [attributes(span) for span in found.spans if span.name.startswith("chat ")]
    prompts = {
        json.loads(chat["gen_ai.input.messages"])[0]["parts"][0]["content"] for chat in chats
    }
    assert prompts == {"Shorter: alpha", "Shorter: bravo"}
    answers = {
        json.loads(chat["gen_ai.output.messages"])[0]["parts"][0]["content"] for chat in chats
    }
    assert answers == {"said: alpha", "said: bravo"}


def test_secrets_are_in_no_span(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "2024")
    secret = 'secrets: {key: {env: API_KEY}}\nname: "of 2024"\n'
    written = PIPELINE.replace(
        "chat, with: {", 'chat, with: {system: "{{ secrets.key }}", params: {max_tokens: 2024}, '
    )
    world.file.write_text(secret + written, "utf-8")
    world.write("inbox/a 2024.txt", "in 2024")
    with collector() as found:
        report, notes = traced(world, "content", found.url, monkeypatch)
    assert (report.status, report.counts["new"], notes.texts) == ("completed", 3, [])
    all_attributes = [attributes(span) for span in found.spans]
    keys = {span["paddock.item"] for span in all_attributes if "paddock.item" in span}
    assert keys == {"a.txt", "b.txt", "a ***.txt"}
    assert not [span for span in found.spans if "2024" in span.name]
    texts = [value for span in all_attributes for value in span.values() if isinstance(value, str)]
    assert not [text for text in texts if "2024" in text]
    assert len([span for span in all_attributes if "gen_ai.output.messages" in span]) == 3


def test_a_collector_that_is_away_or_silent_costs_the_run_nothing_but_a_note(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")  # no thread outlives the test
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        report, notes = traced(world, "on", url, monkeypatch, flush_s=0.5)
    assert report.status == "completed"
    (note,) = notes.texts
    assert "spans did not reach the collector that OTEL_EXPORTER_OTLP_ENDPOINT names" in note
    world.write("inbox/c.txt", "charlie")
    report, notes = traced(world, "on", url, monkeypatch, flush_s=0.5)
    assert (report.status, len(notes.texts)) == ("completed", 1)
