"""A pipeline with tests in a folder of its own, tried without a model."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddock.runner.testing import suite_runner
from paddock.runner.testing.case_results import CaseResult, SuiteResult
from paddock.runner.testing.case_runner import ReplayMode
from tests.fakes.pool import FakePool

PIPELINE = """\
name: sums
inputs:
  folder: {type: dir, default: ./inbox}
  out: {type: dir, default: ./out}
  tone: plain
steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.folder }}"}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ steps.text.text }} ({{ inputs.tone }})"}}
      - uses: files.write
        with: {path: "{{ inputs.out }}/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}
    returns: {file: doc.relpath, sum: steps.sum.text}
  - {id: vecs, uses: embed, with: {texts: ["the ferry", "the bees"]}}
returns:
  n: steps.each.counts.new
  first: steps.each.results[0].sum
  vectors: steps.vecs.count
"""
TEST = """\
tests:
  - name: two documents
    inputs: {out: "{{ tmp }}/out"}
    replay: tests/cassettes
    expect:
      - {exists: "{{ tmp }}/out/0.txt"}
      - {check: returns.n == 2}
"""
CASSETTE = "tests/cassettes/pipeline.two-documents.jsonl"


@dataclass
class Bench:
    """A folder with a pipeline and its tests. `pool` is the latest trial's."""

    folder: Path
    pipeline: str = PIPELINE
    tests: str = TEST
    n_documents: int = 2
    pool: FakePool = field(default_factory=FakePool)

    def __post_init__(self) -> None:
        for number in range(self.n_documents):
            self.write(f"inbox/{number}.txt", f"Document {number}, about the ferry.")
        self.save()

    @property
    def file(self) -> Path:
        return self.folder / "pipeline.yaml"

    @property
    def cassette(self) -> Path:
        return self.folder / CASSETTE

    def save(self) -> None:
        self.write("pipeline.yaml", self.pipeline + self.tests)

    def edit(self, old: str, new: str) -> None:
        assert old in self.pipeline + self.tests
        self.pipeline = self.pipeline.replace(old, new)
        self.tests = self.tests.replace(old, new)
        self.save()

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.cassette.read_text("utf-8").splitlines()]

    def suite(
        self, mode: ReplayMode = "auto", *, pool: FakePool | None = None, **options: Any
    ) -> SuiteResult:
        self.pool = pool or FakePool()
        results: list[CaseResult] = []
        (suite,) = suite_runner.run_suites(
            [suite_runner.read_suite(self.file)],
            suite_runner.SuiteOptions(
                mode, lambda file, case: results.append(case), pool=self.pool, **options
            ),
        )
        assert tuple(results) == suite.cases
        return suite

    def case(self, mode: ReplayMode = "auto", **options: Any) -> CaseResult:
        (case,) = self.suite(mode, **options).cases
        return case

    def record(self) -> CaseResult:
        case = self.case("record")
        assert case.passed, case.problems
        return case

    def problem(
        self, claim: str, mode: ReplayMode = "auto", **options: Any
    ) -> tuple[str, str, str]:
        """Return the one problem that a test with this claim has, without any recording."""
        self.tests = f"tests:\n  - name: one\n    expect:\n      - {claim}\n"
        self.save()
        (problem,) = self.case(mode, **options).problems
        return problem.kind, problem.message, problem.detail


class Nobody(FakePool):
    """A pool that must not be asked anything."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("facts", "chat", "embed", "count_chat", "count_texts"):
            raise AssertionError(f"the pool was asked for {name}")
        return super().__getattribute__(name)
