"""Tests of several files, cassettes without a test, and Ctrl-C."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest
from paddock.runner.trials import verb
from tests.fakes.pool import FakePool
from tests.runner.trials.bench import Bench, Nobody


def test_a_cassette_without_a_test_is_told_and_dropped_when_recording(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.record()
    bench.edit("name: two documents", "name: both documents")
    bench.write("tests/cassettes/other.two-documents.jsonl", '{"cassette": 1}\n')
    bench.write("tests/cassettes/pipeline.notes.jsonl", '{"not": "ours"}\n')
    old = os.path.relpath(bench.cassette)

    suite = bench.suite("record")
    assert suite.notes == (f"{old} belonged to no test, and was dropped",)
    assert sorted(file.name for file in bench.cassette.parent.iterdir()) == [
        "other.two-documents.jsonl", "pipeline.both-documents.jsonl", "pipeline.notes.jsonl",
    ]  # fmt: skip
    bench.edit("name: both documents", "name: all documents")
    suite = bench.suite("replay", pool=Nobody())
    gone = os.path.relpath(bench.cassette.with_name("pipeline.both-documents.jsonl"))
    assert suite.notes == (f"{gone} belongs to no test; `--record` drops it",)


def test_a_name_that_no_test_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(verb.NoSuchTest) as caught:
        Bench(tmp_path).suite(only={"three"})
    assert str(caught.value) == "There is no test 'three'.\n  There are: 'two documents'."


def test_ctrl_c_ends_it_and_leaves_the_cassette_as_it_was(tmp_path: Path) -> None:
    bench = Bench(tmp_path, n_documents=1)  # a second Ctrl-C would end the process at once
    bench.edit("returns.n == 2", "returns.n == 1")
    bench.record()
    before = bench.cassette.read_bytes()
    bench.edit("Sum up:", "Please sum up:")

    def interrupting(request: ChatRequest) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return "late"

    with pytest.raises(KeyboardInterrupt):
        bench.suite("record", pool=FakePool(answer=interrupting, delay_s=0.05))
    assert bench.cassette.read_bytes() == before
    assert not list(Path(bench.folder).rglob(".pipeline*"))
