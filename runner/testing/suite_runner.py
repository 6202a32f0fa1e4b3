"""Test suites: read the tests of pipelines and `.prompt.yml` files, and run them file by file.

A `.prompt.yml` file becomes a pipeline of one step: each row of its data is a test, its evaluators
are the claims. Cassettes without a test are reported, and dropped when new ones are recorded.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from paddock.engine.request import Pool
from paddock.engine.system.item_samples import ItemSample
from paddock.engine.system.records import field, record, replace
from paddock.pipelines import prompt_file, yaml_source
from paddock.pipelines.comparison_keys import CompareKeys
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.input_values import PATH_TYPES
from paddock.pipelines.model import Pipeline
from paddock.pipelines.plan import read_plan
from paddock.pipelines.prompt_file import (
    PromptEvaluator,
    PromptFile,
    escape_template,
    is_prompt_file,
)
from paddock.runner.api import FILE_THREADS
from paddock.runner.bind.bind import bind_without_inputs
from paddock.runner.bind.variations import variants_of
from paddock.runner.core.calls.model_pools import open_default_pool
from paddock.runner.progress.drain import StopGate, stop_on_signals
from paddock.runner.settings import read_settings

from .case_runner import CaseInterrupted, CaseOptions, CaseSpec, ReplayMode, run_case
from .cassette import cassette_file_names, variant_cassette
from .data_sets import DataRow, read_data_set, sampled_rows
from .junit_and_markdown import CaseResult, SuiteResult

CASSETTE_FOLDER = "tests/cassettes"


@record(frozen=True, slots=True)
class SuiteFile:
    __test__ = False  # not one of pytest's

    file: Path
    name: str
    stem: str
    specs: tuple[CaseSpec, ...]
    notes: tuple[str, ...] = ()
    notes_if_asked: tuple[str, ...] = ()
    """Of its models: shown where not all replies are replayed."""
    variant: str = ""
    """Name of the variant that is tested; empty: the file as it is."""


def pipeline_suite(file: Path) -> SuiteFile:
    """Read a pipeline's tests.

    Raises:
        PipelineError: with every fault of the file, its tests included.
    """
    plan = read_plan(file)
    bind_without_inputs(plan)
    return case_specs(file, plan.pipeline, file.stem)


def variant_suites(file: Path, keys: CompareKeys) -> list[SuiteFile]:
    """Return a pipeline's tests for each variant of it, each with cassettes of its own.

    Raises:
        PipelineError: with every fault of the file, or of its variants.
    """
    if is_prompt_file(file.name):
        what = f"{file.name}: only the values of a pipeline can be varied."
        raise PipelineError.of(what, "Write one with the step `chat` and this prompt.")
    plan = read_plan(file)
    bind_without_inputs(plan)
    suites: list[SuiteFile] = []
    faults: list[Fault] = []
    for variant in variants_of(keys, plan.pipeline):
        text = json.dumps(variant.data(plan.pipeline.document.data), ensure_ascii=False)
        try:
            own = read_plan(file, text)
            bind_without_inputs(own)
            suite = case_specs(file, own.pipeline, file.stem, text=text)
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


def case_specs(
    file: Path,
    pipeline: Pipeline,
    stem: str,
    *,
    cassettes: str = CASSETTE_FOLDER,
    text: str | None = None,
) -> SuiteFile:
    """Return the tests of a pipeline; `text` is run instead of the file's own text.

    `cassettes` is the folder for tests that name none.

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
    names = cassette_file_names(stem, [test.name for test in pipeline.tests])
    paths = {name for name, spec in pipeline.inputs.items() if spec.type in PATH_TYPES}
    specs = tuple(
        CaseSpec(
            file=file,
            group=pipeline.name,
            test=test,
            cassette=file.parent / (test.replay or cassettes) / names[test.name],
            paths=frozenset(paths),
            text=text,
            rows=rows[test.name],
        )
        for test in pipeline.tests
    )
    return SuiteFile(file, pipeline.name, stem, specs)


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


SIMILAR_ENOUGH = 0.5
"""Minimum cosine of `github/similarity`, which passes from two stars of five."""
_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
PROMPT_CASSETTE_FOLDER = "cassettes"
JUDGED_QUALITIES: Mapping[str, str] = {
    "coherence": "The text is coherent: its sentences follow from one another and are in order.",
    "fluency": "The text is written in fluent and correct language.",
    "relevance": "The text answers this: {input}",
    "groundedness": "The text says nothing that cannot be found in this: {context}",
}
"""Evaluators with the prefix `github/` → requirement for the LLM judge."""


def prompt_file_suite(file: Path) -> SuiteFile:
    document = yaml_source.read_yaml(file)
    prompt = prompt_file.prompt_file_of(document)
    if faults := [*_prompt_file_faults(prompt, document)]:
        raise PipelineError(faults)
    vars_ = {name: f"{{{{ inputs.{_input_name(name)} }}}}" for name in prompt.variables}
    with_ = {"prompt": {"file": file.name}, "vars": vars_}
    pipeline: dict[str, Any] = {
        "name": prompt.name or file.name,
        "inputs": {_input_name(name): {"type": "json"} for name in prompt.variables},
        "steps": [{"id": "answer", "uses": "chat", "with": with_}],
        "returns": "steps.answer.text",
        "tests": [
            {
                "name": DataRow(number, {n: row[n] for n in prompt.variables if n in row}).name,
                "inputs": {
                    _input_name(name): _literal_value(row[name]) for name in prompt.variables
                },
                "files": [file.name],
                "expect": [
                    claim
                    for evaluator in prompt.evaluators
                    for claim in _evaluator_claims(evaluator, row)
                ],
            }
            for number, row in enumerate(prompt.test_data, 1)
        ],
    }
    if prompt.model and _is_stored_model(prompt.model):
        pipeline["models"] = {"own": prompt.model}
    text = json.dumps(pipeline, ensure_ascii=False)
    plan = read_plan(file, text)
    bind_without_inputs(plan)
    stem = file.name.rpartition(".")[0]
    suite = case_specs(file, plan.pipeline, stem, cassettes=PROMPT_CASSETTE_FOLDER, text=text)
    read = " ".join(evaluator.model_dump_json() for evaluator in prompt.evaluators)
    is_compared = "github/similarity" in read or "expected" in _PLACEHOLDER.findall(read)
    if not is_compared and any("expected" in row for row in prompt.test_data):
        note = f"{file.name}: no evaluator reads `expected`, so an answer that differs passes, too"
        suite = replace(suite, notes=(note,))
    if prompt.model and not _is_stored_model(prompt.model):
        note = f"{file.name}: its model '{prompt.model}' is not available; the default one is used"
        suite = replace(suite, notes_if_asked=(note,))
    return suite


def _prompt_file_faults(prompt: PromptFile, document: yaml_source.YamlDocument) -> Iterator[Fault]:
    for index, row in enumerate(prompt.test_data):
        for name in prompt.variables:
            if name not in row:
                what = f"the messages read '{name}', which this row of `testData` does not have."
                mark = document.mark(("testData", index))
                yield Fault(what, f"Add `{name}: …` to it.", mark)
        for name in row:
            if name not in prompt.variables and any(
                f"{{{{{name}}}}}" in turn.content for turn in prompt.messages
            ):
                what = f"'{name}' cannot be the name of a variable."
                remedy = "Use only letters, digits and `_`, also in the messages."
                yield Fault(what, remedy, document.key_mark(("testData", index, name)))
    for index, evaluator in enumerate(prompt.evaluators):
        dumped = evaluator.string and evaluator.string.model_dump(by_alias=True, exclude_none=True)
        for key, text in (dumped or {}).items():
            for name in dict.fromkeys(_PLACEHOLDER.findall(text)):
                rows = [n for n, row in enumerate(prompt.test_data, 1) if name not in row]
                if rows:
                    what = (
                        f"`{key}` reads '{name}', which row {rows[0]} of `testData` does not have."
                    )
                    remedy = f"Add `{name}: …` to each row, or write the text itself."
                    yield Fault(what, remedy, document.mark(("evaluators", index, "string", key)))
        if (
            evaluator.llm is not None
            and len({choice.choice for choice in evaluator.llm.choices}) < 2
        ):
            mark = document.mark(("evaluators", index, "llm", "choices"))
            what = "a judge with a single choice decides nothing."
            yield Fault(what, "Give it at least two different choices.", mark)
        name = (evaluator.uses or "").removeprefix("github/")
        if evaluator.uses is not None and name not in ("similarity", *JUDGED_QUALITIES):
            names = ", ".join(f"'github/{known}'" for known in ("similarity", *JUDGED_QUALITIES))
            mark = document.mark(("evaluators", index, "uses"))
            yield Fault(f"there is no evaluator '{evaluator.uses}'.", f"Known: {names}.", mark)


def _is_stored_model(model: str) -> bool:
    """Return whether this is a model reference, and not `publisher/name` of GitHub's catalogue."""
    return "/" not in model or model.startswith(("hf.co/", "./", "/")) or ":" in model


def _input_name(variable: str) -> str:
    return f"of_{variable.lower()}" if not re.match(r"[a-z][a-z0-9_]*\Z", variable) else variable


def _literal_value(value: Any) -> Any:
    return escape_template(value) if isinstance(value, str) else value


def _evaluator_claims(
    evaluator: PromptEvaluator, row: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    if evaluator.string is not None:
        filled = evaluator.string.model_copy(
            update={
                name: _PLACEHOLDER.sub(lambda found: _row_text(row.get(found[1], "")), text)
                for name, text in evaluator.string.model_dump().items()
                if isinstance(text, str)
            }
        )
        lowered = "text.strip().lower()"
        if filled.equals:
            yield {"equals": _literal_value(filled.equals)}
        if filled.contains:
            yield {"check": f"contains(text, {_quoted_literal(filled.contains)})"}
        if filled.starts_with:
            start = _quoted_literal(filled.starts_with.lower())
            yield {"check": f"{lowered}.startswith({start})"}
        if filled.ends_with:
            end = _quoted_literal(filled.ends_with.lower())
            yield {"check": f"{lowered}.endswith({end})"}
    elif evaluator.llm is not None:
        # A judge's prompt with the row's values, and `{{ text }}` for the answer
        first, *parts = _PLACEHOLDER.split(evaluator.llm.prompt)
        prompt = _literal_value(first)
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            value = _literal_value(_row_text(row.get(name, "")))
            prompt += ("{{ text }}" if name == "completion" else value) + _literal_value(text)
        judge = {
            "prompt": prompt,
            "choices": {choice.choice: float(choice.score) for choice in evaluator.llm.choices},
        }
        if evaluator.llm.system_prompt:
            judge["system"] = evaluator.llm.system_prompt
        yield {"judge": judge}
    elif evaluator.uses == "github/similarity":
        yield {
            "similar": _literal_value(_row_text(row.get("expected", ""))),
            "at_least": SIMILAR_ENOUGH,
        }
    elif evaluator.uses is not None:
        words = JUDGED_QUALITIES[evaluator.uses.removeprefix("github/")]
        given = {"input": row.get("input", ""), "context": row.get("context", row.get("input", ""))}
        texts = {name: _row_text(value) for name, value in given.items()}
        yield {"judge": _literal_value(words.format_map(texts))}


def _row_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _quoted_literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@record(frozen=True)
class SuiteOptions:
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


def read_suite(file: Path) -> SuiteFile:
    """Read the tests of a pipeline, or of a `.prompt.yml`.

    Raises:
        PipelineError: with every fault of the file, its tests included.
    """
    if is_prompt_file(file.name):
        return prompt_file_suite(file)
    return pipeline_suite(file)


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
    if_asked = file.notes_if_asked if any(case.source != "replay" for case in cases) else ()
    whole = (*file.notes, *if_asked, *notes)
    return SuiteResult(file.name, str(file.file), tuple(cases), whole, file.variant)


def _orphan_notes(file: SuiteFile, mode: ReplayMode) -> tuple[str, ...]:
    """Return notes about cassettes without a test; delete them when recording."""
    notes = []
    for cassette in orphaned_cassettes(file.specs, file.stem):
        shown = os.path.relpath(cassette)
        if mode == "record":
            cassette.unlink(missing_ok=True)
            notes.append(f"{shown} belonged to no test, and was removed")
        else:
            notes.append(f"{shown} belongs to no test; `--record` removes it")
    return tuple(notes)
