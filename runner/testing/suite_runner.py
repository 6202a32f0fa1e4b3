"""Test suites: read the tests of pipelines, and run them file by file.

Cassettes without a test are reported, and dropped when new ones are recorded.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

from paddock.engine.request import Pool
from paddock.engine.system.item_samples import ItemSample
from paddock.engine.system.records import Struct, field, replace
from paddock.pipelines.comparison_keys import CompareKeys
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.input_values import PATH_TYPES
from paddock.pipelines.model import Pipeline
from paddock.pipelines.plan import read_plan
from paddock.runner.api import FILE_THREADS
from paddock.runner.bind.bind import bind_without_inputs
from paddock.runner.bind.variations import changed, variants_of
from paddock.runner.core.calls.model_pools import open_default_pool
from paddock.runner.progress.drain import StopGate, stop_on_signals
from paddock.runner.settings import read_settings

from .case_results import CaseResult, SuiteResult
from .case_runner import CaseInterrupted, CaseOptions, CaseSpec, ReplayMode, run_case
from .cassette import cassette_file_names, variant_cassette
from .data_sets import DataRow, read_data_set, sampled_rows

CASSETTE_FOLDER = "tests/cassettes"


class SuiteFile(Struct, frozen=True):
    __test__ = False  # not one of pytest's

    file: Path
    name: str
    specs: tuple[CaseSpec, ...]
    variant: str = ""
    """Name of the variant that is tested; empty: the file as it is."""


def read_suite(file: Path) -> SuiteFile:
    """Read a pipeline's tests.

    Raises:
        PipelineError: with every fault of the file, its tests included.
    """
    plan = read_plan(file)
    bind_without_inputs(plan)
    return case_specs(file, plan.pipeline)


def variant_suites(file: Path, keys: CompareKeys) -> list[SuiteFile]:
    """Return a pipeline's tests for each variant of it, each with cassettes of its own.

    Raises:
        PipelineError: with every fault of the file, or of its variants.
    """
    plan = read_plan(file)
    bind_without_inputs(plan)
    suites: list[SuiteFile] = []
    faults: list[Fault] = []
    for variant in variants_of(keys, plan.pipeline):
        text = json.dumps(changed(plan.pipeline.document.data, variant.changes), ensure_ascii=False)
        try:
            own = read_plan(file, text)
            bind_without_inputs(own)
            suite = case_specs(file, own.pipeline, text=text)
        except PipelineError as error:  # its places are those of the text that was made
            faults += (
                Fault(f"{file}: with {variant.name}: {fault.message}", fault.remedy)
                for fault in error.faults
            )
            continue
        values = " ".join(change.name for change in variant.changes)
        own_cassettes = (
            replace(spec, cassette=variant_cassette(spec.cassette, values), is_variant=True)
            for spec in suite.specs
        )
        suites.append(replace(suite, specs=tuple(own_cassettes), variant=variant.name))
    if faults:
        raise PipelineError(list(dict.fromkeys(faults)))
    return suites


def case_specs(file: Path, pipeline: Pipeline, *, text: str | None = None) -> SuiteFile:
    """Return the tests of a pipeline; `text` is run instead of the file's own text.

    Raises:
        PipelineError: the cassette folder of a test is outside of the pipeline's folder.
    """
    faults = list[Fault]()
    rows: dict[str, tuple[DataRow, ...]] = {}
    base = file.absolute().parent.resolve()
    for test in pipeline.tests:
        if not (base / (test.replay or CASSETTE_FOLDER)).resolve().is_relative_to(base):
            what = f"the cassette folder of test '{test.name}' is outside the pipeline's folder."
            mark = pipeline.mark((*pipeline.place_of_test(test.name), "replay"))
            faults.append(Fault(what, f"Name a folder in it, such as {CASSETTE_FOLDER}.", mark))
        try:
            rows[test.name] = read_data_set(file, pipeline, test)
        except PipelineError as error:
            faults += error.faults
    if faults:
        raise PipelineError(faults)
    names = cassette_file_names(file.stem, [test.name for test in pipeline.tests])
    paths = {name for name, spec in pipeline.inputs.items() if spec.type in PATH_TYPES}
    specs = tuple(
        CaseSpec(
            file=file,
            group=pipeline.name,
            test=test,
            cassette=file.parent / (test.replay or CASSETTE_FOLDER) / names[test.name],
            paths=frozenset(paths),
            text=text,
            rows=rows[test.name],
        )
        for test in pipeline.tests
    )
    return SuiteFile(file, pipeline.name, specs)


def orphaned_cassettes(specs: Iterable[CaseSpec], stem: str) -> Iterator[Path]:
    own = {spec.cassette for spec in specs}
    for folder in sorted({cassette.parent for cassette in own}):
        for file in sorted(folder.glob("*.jsonl")):
            # A name with another dot belongs to `x.y.yaml`, not to `x.yaml`.
            is_named_so = file.name.removesuffix(".jsonl").rpartition(".")[0] == stem
            if is_named_so and file not in own and _is_cassette(file):
                yield file


def _is_cassette(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8") as lines:
            return "cassette" in json.loads(lines.readline(10_000))
    except (OSError, ValueError, TypeError):
        return False


class SuiteOptions(Struct, frozen=True):
    mode: ReplayMode
    on_result: Callable[[SuiteFile, CaseResult], None] = lambda file, case: None
    on_begin: Callable[[str], None] = lambda name: None
    """Gets the name of each test that starts."""
    only: Collection[str] = ()
    """Names of tests; empty: all."""
    sample: ItemSample | None = None
    """Which rows of each data set are taken; None: all."""
    flags: Mapping[str, object] = field(default_factory=dict)
    pool: Pool | None = None


class UnknownCase(Exception):
    """No test has the requested name."""


def read_suites(files: Sequence[Path], varied: CompareKeys | None = None) -> list[SuiteFile]:
    """Read the tests of several files; `varied`: those of each variant with these values.

    Raises:
        PipelineError: with every fault of all of them.
    """
    suites: list[SuiteFile] = []
    faults: list[Fault] = []
    for file in files:
        try:
            suites += [read_suite(file)] if varied is None else variant_suites(file, varied)
        except PipelineError as error:
            faults += error.faults
    if faults:
        raise PipelineError(faults)
    return suites


def run_suites(files: Sequence[SuiteFile], options: SuiteOptions) -> tuple[SuiteResult, ...]:
    """Run tests and return their results.

    Raises:
        UnknownCase: `only` has an unknown name.
        KeyboardInterrupt: Ctrl-C; the running test was stopped in order.
        PipelineError: a settings file next to a pipeline needs more permissions than allowed.
        EngineError: this machine's pool cannot be opened.
    """
    names = [*dict.fromkeys(spec.test.name for file in files for spec in file.specs)]
    for name in sorted(set(options.only) - set(names)):
        listed = ", ".join(f"'{name}'" for name in names) or "none"
        raise UnknownCase(f"There is no test '{name}'.\n  There are: {listed}.")
    if options.sample is not None:
        files = [_sampled(file, options.sample) for file in files]

    async def main() -> tuple[SuiteResult, ...]:
        return tuple([await _run_suite(file, options) for file in files])

    try:
        return asyncio.run(main())
    except CaseInterrupted:
        raise KeyboardInterrupt from None


def _sampled(file: SuiteFile, sample: ItemSample) -> SuiteFile:
    specs = []
    for spec in file.specs:
        rows = sampled_rows(spec.rows, sample)
        n_out, is_first = len(spec.rows) - len(rows), sample.is_first
        specs.append(replace(spec, rows=rows, n_left_out=n_out, has_first_rows=is_first))
    return replace(file, specs=tuple(specs))


async def _run_suite(file: SuiteFile, options: SuiteOptions) -> SuiteResult:
    cases = []
    stop = asyncio.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(FILE_THREADS))
    settings = read_settings(file.file.parent, flags=options.flags)
    async with AsyncExitStack() as stack:
        stack.enter_context(stop_on_signals(stop, StopGate()))
        opened: list[Pool] = [options.pool] if options.pool is not None else []

        async def default_pool() -> Pool:
            if not opened:
                opened.append(await stack.enter_async_context(open_default_pool(settings)))
            return opened[0]

        of_cases = CaseOptions(
            options.mode, settings, settings.allow, os.environ, stop, default_pool
        )
        for spec in file.specs:
            if options.only and spec.test.name not in options.only:
                continue
            options.on_begin(spec.test.name)
            case = await run_case(spec, of_cases)
            options.on_result(file, case)
            cases.append(case)
    is_whole = not options.only and not file.variant
    notes = await asyncio.to_thread(_orphan_notes, file, options.mode) if is_whole else ()
    return SuiteResult(file.name, str(file.file), tuple(cases), notes, file.variant)


def _orphan_notes(file: SuiteFile, mode: ReplayMode) -> tuple[str, ...]:
    """Return notes about cassettes without a test; delete them when recording."""
    notes = []
    for cassette in orphaned_cassettes(file.specs, file.file.stem):
        shown = os.path.relpath(cassette)
        if mode == "record":
            cassette.unlink(missing_ok=True)
            notes.append(f"{shown} belonged to no test, and was removed")
        else:
            notes.append(f"{shown} belongs to no test; `--record` removes it")
    return tuple(notes)
