"""Tests of several files, cassettes without a test, and Ctrl-C."""

import os
import signal
from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest
from tests.fakes.pool import FakePool
from tests.runner.testing.bench import Bench, Nobody


def test_a_cassette_without_a_test_is_told_and_dropped_when_recording(bench: Bench) -> None:
    bench.record()
    bench.edit("name: two documents", "name: both documents")
    bench.write("tests/cassettes/other.two-documents.jsonl", '{"cassette": 1}\n')
    bench.write("tests/cassettes/pipeline.notes.jsonl", '{"not": "ours"}\n')
    bench.write("tests/cassettes/pipeline.long.two-documents.jsonl", '{"cassette": 1}\n')
    old = os.path.relpath(bench.cassette)

    suite = bench.suite("record")
    assert suite.notes == (f"{old} belonged to no test, and was removed",)
    assert sorted(file.name for file in bench.cassette.parent.iterdir()) == [
        "other.two-documents.jsonl", "pipeline.both-documents.jsonl",
        "pipeline.long.two-documents.jsonl",  # of a `pipeline.long.yaml`
        "pipeline.notes.jsonl",
    ]  # fmt: skip
    bench.edit("name: both documents", "name: all documents")
    suite = bench.suite("replay", pool=Nobody())
    gone = os.path.relpath(bench.cassette.with_name("pipeline.both-documents.jsonl"))
    assert suite.notes == (f"{gone} belongs to no test; `--record` removes it",)


def test_ctrl_c_ends_it_and_what_was_recorded_is_kept(bench: Bench) -> None:
    bench.record()
    bench.edit("- id: each\n", "- id: each\n    max_parallel: 1\n")
    bench.edit("Sum up:", "Please sum up:")
    requests = []

    def interrupting(request: ChatRequest) -> str:
        requests.append(request)
        if len(requests) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return "in time"

    with pytest.raises(KeyboardInterrupt):
        bench.suite("record", pool=FakePool(answer=interrupting, delay_s=0.05))
    prompts = [
        line["asked"]["messages"][0][1] for line in bench.lines()[1:] if line["kind"] == "chat"
    ]
    assert "Please sum up: Document 0, about the ferry. (plain)" in prompts
    assert "Sum up: Document 0, about the ferry. (plain)" in prompts, "nothing is dropped yet"
    assert not list(Path(bench.folder).rglob(".pipeline*"))

    bench.record()
    assert len(bench.pool.chats) < 2
