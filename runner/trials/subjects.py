"""The tests of a file: which there are, and where each one's cassette lies.

Reads files; carries nothing out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.tree import Pipeline
from paddock.runner.binding.bind import check, plan_of

from .cassette import file_names
from .trial import Subject

CASSETTES = "tests/cassettes"
"""Where replies are recorded if a test does not say."""


@dataclass(frozen=True, slots=True)
class TestFile:
    """A file with its tests."""

    __test__ = False  # not one of pytest's

    file: Path
    name: str
    stem: str
    """What the names of its cassettes begin with."""
    subjects: tuple[Subject, ...]
    notes: tuple[str, ...] = ()


def of_pipeline(file: Path) -> TestFile:
    """Read a pipeline's tests.

    Raises:
        PipelineError: with every fault of the file, its tests included.
    """
    plan = plan_of(file)
    check(plan)
    return tested(file, plan.pipeline, file.stem)


def tested(
    file: Path,
    pipeline: Pipeline,
    stem: str,
    *,
    cassettes: str = CASSETTES,
    text: str | None = None,
) -> TestFile:
    """Give the tests of a pipeline; `text` is what to run in place of the file's own.

    `cassettes` is the folder beside it for tests that name none.

    Raises:
        PipelineError: a test's folder of replies, or an input, cannot be used.
    """
    faults = [*_faults(file, pipeline)]
    if faults:
        raise PipelineError(faults)
    names = file_names(stem, [test.name for test in pipeline.tests])
    paths = {name for name, one in pipeline.inputs.items() if one.type in ("dir", "path")}
    subjects = tuple(
        Subject(
            file=file,
            group=pipeline.name,
            test=test,
            cassette=file.parent / (test.replay or cassettes) / names[test.name],
            paths=frozenset(paths),
            text=text,
        )
        for test in pipeline.tests
    )
    return TestFile(file, pipeline.name, stem, subjects)


def orphans(subjects: Iterable[Subject], stem: str) -> Iterator[Path]:
    """Give the cassettes of this file that belong to no test any more."""
    found = list(subjects)
    own = {subject.cassette for subject in found}
    for folder in sorted({cassette.parent for cassette in own}):
        for file in sorted(folder.glob("*.jsonl")):
            # What has another dot is of a file `x.y.yaml` beside `x.yaml`.
            is_named_so = file.name.removesuffix(".jsonl").rpartition(".")[0] == stem
            if is_named_so and file not in own and _is_cassette(file):
                yield file


def _is_cassette(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8") as lines:
            return "cassette" in json.loads(lines.readline(10_000))
    except (OSError, ValueError, TypeError):
        return False


def _faults(file: Path, pipeline: Pipeline) -> Iterator[Fault]:
    base = file.absolute().parent.resolve()
    for index, test in enumerate(pipeline.tests):
        if not (base / (test.replay or CASSETTES)).resolve().is_relative_to(base):
            what = f"the recorded replies of test '{test.name}' lie outside the pipeline's folder."
            mark = pipeline.mark(("tests", index, "replay"))
            yield Fault(what, f"Name a folder within it, such as {CASSETTES}.", mark)
