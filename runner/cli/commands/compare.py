"""`paddock compare`: run variants of a pipeline on the same documents, and say which is better."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from paddock.engine.system.files import write_output
from paddock.engine.system.item_samples import ItemSample
from paddock.engine.system.no_links import open_file
from paddock.engine.system.records import replace
from paddock.engine.system.text import counted
from paddock.pipelines.comparison_keys import CompareKeys, GoldKeys, MetricName, NumberMetricKeys
from paddock.pipelines.model import step_nodes
from paddock.pipelines.plan import Plan, read_plan
from paddock.runner import api
from paddock.runner.bind.pipeline_check import bind_for_comparison
from paddock.runner.bind.variations import Variant, letters, variants_of, varied_options
from paddock.runner.cli.arguments import (
    HERE,
    InputsOption,
    PipelineArgument,
    VariedFlags,
    option,
    option_values,
    parse_inputs,
    pipeline_file,
    remove_old_reports,
    report_option,
    require_reports,
)
from paddock.runner.cli.exit_status import DONE, FAILED, TESTS_FAILED, CommandError
from paddock.runner.cli.plan_text import plan_text
from paddock.runner.compare import comparison_page, comparison_text
from paddock.runner.compare.adoption import CannotAdopt, adopted_text
from paddock.runner.compare.comparison import Comparison, GoldSource, compare
from paddock.runner.compare.gold import REVIEWS, Gold, UnreadableGold, gold_of_reviews, read_gold
from paddock.runner.compare.regression_check import (
    EarlierResult,
    NothingShared,
    ResultChange,
    result_change,
)
from paddock.runner.compare.variant_runs import ComparedPipeline, answered_prompts, run_variants
from paddock.runner.compare.variants import compared_step
from paddock.runner.core.traces.past_decisions import known_decisions
from paddock.runner.core.traces.scopes import step_name
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.progress import printing
from paddock.runner.progress.drain import INTERRUPTED
from paddock.runner.progress.events import Observer
from paddock.runner.progress.run_display import run_observer
from paddock.runner.settings import STATE_FOLDER, Settings, read_settings
from paddock.steps.readers.text_encoding import NotText, decode_text
from paddock.steps.registry import load_step

BUDGET_USED = 5
_EXCLUSIVE = ("model", "prompt", "set")
"""Keys of `compare` of which an option for one replaces all."""
_OF_STEP = "steps."
_NO_GOLD = GoldKeys.model_construct(from_="")
_LEAST_EXAMPLES = 5
"""Decisions from which on it is proposed to show some in the prompt."""


@dataclass(frozen=True)
class CompareFlags(VariedFlags):
    file: PipelineArgument = None
    inputs: InputsOption = None
    step: str | None = option("The step whose answers are compared.", metavar="STEP")
    gold: str | None = option(
        "What is right: a CSV or JSON lines file, `reviews`, or steps.NAME.output.", metavar="PATH"
    )
    budget: str | None = option("Stop after this time; the same command goes on.", metavar="TIME")
    against: Path | None = option(
        "An earlier result of --json; exit with 4 if this one is worse.", metavar="FILE"
    )
    allow_loss: float | None = option(
        "With --against: how much worse is not worse.", metavar="X", min=0, max=1
    )
    adopt: str | None = option(
        "Write this variant, by its letter or name, into the YAML.", metavar="VARIANT"
    )
    report: Path | None = report_option()


def compare_variants(flags: CompareFlags) -> int:
    """Compare models, prompts and parameters on your documents; outputs stay as they are.

    Each combination of values is a variant. Calls are never made twice: the same command goes on,
    and a variant that is added costs only itself.
    """
    reads = [*option_values(flags.inputs), *option_values(flags.prompts)]
    reads += [str(file) for file in (flags.gold, flags.against) if file is not None]
    require_reports({"compare.html": flags.report}, reads)
    path = pipeline_file(HERE if flags.file is None else flags.file, "compare")
    plan = read_plan(path)
    bind_for_comparison(plan)
    keys = _compare_keys(flags, plan)
    variants = variants_of(keys, plan.pipeline)
    if flags.adopt is not None:
        _chosen(flags.adopt, variants)  # before anything is run
    # A path begins here if it is an option's, and at the pipeline if it is one of the file
    earlier = None
    if keys.against is not None:
        against = (path.parent if flags.against is None else Path()) / keys.against
        earlier = against, _earlier(against)
    # stdout carries one object: what a plug-in prints goes to stderr.
    with redirect_stdout(sys.stderr) if flags.as_json else nullcontext():
        try:
            found = _compared(flags, keys, path, plan, variants)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(INTERRUPTED) from None
    if flags.report is not None:
        write_output(flags.report, comparison_page.comparison_page(found))
    printing.print_result(
        found.as_json(), comparison_text.comparison_text(found), as_json=flags.as_json
    )
    change = None if earlier is None else _changes(found, *earlier, keys.allow_loss)
    if flags.adopt is not None:
        chosen = _chosen(flags.adopt, [variant.run.variant for variant in found.variants])
        _adopt(chosen, found, plan, flags)
    if any(variant.run.is_over_budget for variant in found.variants):
        return BUDGET_USED
    if any(variant.run.fault for variant in found.variants):
        return FAILED
    return TESTS_FAILED if change is not None and change.losses else DONE


def _compare_keys(flags: CompareFlags, plan: Plan) -> CompareKeys:
    """Return `compare` of the file, with the options of the command in place of its keys."""
    written = dict(plan.pipeline.document.data.get("compare") or {})
    given: dict[str, Any] = {**varied_options(flags.models, flags.prompts, flags.settings)}
    if given:
        written = {key: value for key, value in written.items() if key not in _EXCLUSIVE}
    for name in ("step", "budget", "against", "allow_loss"):
        if (value := getattr(flags, name)) is not None:
            given[name] = str(value) if isinstance(value, Path) else value
    try:
        return CompareKeys.model_validate({**written, **given})
    except ValidationError as error:
        first = error.errors()[0]
    name = str(first["loc"][0])
    what = first.get("ctx", {}).get("error", first["msg"])
    raise CommandError(f"'--{name.replace('_', '-')} {getattr(flags, name)}' {what}.")


def _chosen(name: str, variants: Sequence[Variant]) -> Variant:
    short = letters([variant.name for variant in variants])
    for variant in variants:
        if name in (variant.name, short[variant.name]):
            return variant
    known = ", ".join(f"{letter} ('{full}')" for full, letter in short.items())
    raise CommandError(f"There is no variant '{name}' to adopt.\n  There are: {known}.")


def _adopt(chosen: Variant, found: Comparison, plan: Plan, flags: CompareFlags) -> None:
    fault = next(variant.run.fault for variant in found.variants if variant.run.variant == chosen)
    if fault is not None:
        raise CommandError(f"'{chosen.name}' is not adopted: {fault}")
    document = plan.pipeline.document
    path = Path(document.file)
    try:
        text = path.read_bytes().decode("utf-8")
        new = adopted_text(text, str(path), chosen, document.data)
    except CannotAdopt as error:
        raise CommandError(str(error)) from None
    write_output(path, new)
    write = printing.print_err if flags.as_json else printing.print_out
    write(f"\n{printing.printable_line(f'{path}: adopted {chosen.name}.')}")
    settings = read_settings(path.parent, flags=flags.given_settings())
    write(plan_text(api.plan(path, parse_inputs(flags.inputs), settings=settings)))


def _content(file: Path) -> bytes:
    try:
        with open_file(file, follows_links=True) as opened:
            return opened.read()
    except OSError as error:
        raise CommandError(f"{file}: cannot be read: {error.strerror}.") from None


def _earlier(file: Path) -> EarlierResult:
    text = _content(file)
    if not text.strip():
        raise CommandError(
            f"{file} is empty: a shell empties the file that `>` names before a command begins. "
            "Write the new result to another file."
        )
    try:
        return EarlierResult.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        what = f" ({at}: {first['msg']})" if at else ""
        message = f"{file}: this is no result of `paddock compare --json`{what}."
        raise CommandError(message) from None


def _changes(
    found: Comparison, file: Path, earlier: EarlierResult, allow_loss: float
) -> ResultChange:
    try:
        change = result_change(found, earlier, allow_loss)
    except NothingShared as error:
        raise CommandError(f"{file}: {error}") from None
    for line in (*change.shared, *change.losses):
        printing.print_err(printing.printable_line(line))
    return change


def _compared(
    flags: CompareFlags, keys: CompareKeys, path: Path, plan: Plan, variants: Sequence[Variant]
) -> Comparison:
    settings = read_settings(path.parent, flags=flags.given_settings())
    of_gold = plan.pipeline.gold or _NO_GOLD
    step = compared_step(plan, variants, keys.step or of_gold.step)
    origin = flags.gold or of_gold.from_
    metrics: dict[str, tuple[MetricName, float]] = {
        name: ("number", metric.number) if isinstance(metric, NumberMetricKeys) else (metric, 0.0)
        for name, metric in of_gold.metrics.items()
    }
    folder = path.parent if flags.gold is None else Path()
    source = GoldSource(_read_gold(origin, folder, path, settings, of_gold), metrics)
    compared = ComparedPipeline(
        path, plan, step, parse_inputs(flags.inputs), settings,
        key=of_gold.key,
        gold=origin if origin.startswith(_OF_STEP) else None,
        until=None if keys.budget is None else time.monotonic() + keys.budget,
        sample=flags.item_sample() or (ItemSample(keys.sample) if keys.sample else None),
    )  # fmt: skip
    remove_old_reports(flags.report)

    def watch(variant: Variant) -> AbstractContextManager[Observer]:
        printing.print_err(printing.printable_line(variant.name))
        return run_observer(is_quiet_stdout=flags.as_json)

    found = compare(plan.pipeline.name, step, run_variants(compared, variants, watch), source)
    advice = _examples_advice(compared, variants)
    found = replace(found, notes=(*found.notes, *advice))
    if flags.report is None:
        return found
    # The page shows what was asked.
    shown = found.differences[: comparison_page.MOST_DIFFERENCES]
    prompts = answered_prompts(compared, (next(iter(diff.answers.values())) for diff in shown))
    differences = (replace(diff, prompt=prompts.get(diff.key, "")) for diff in found.differences)
    return replace(found, differences=tuple(differences))


def _examples_advice(compared: ComparedPipeline, variants: Sequence[Variant]) -> Iterator[str]:
    key = f"{compared.step}.examples"
    node = next(step for step in step_nodes(compared.plan.pipeline) if step.id == compared.step)
    changes = [change.target for variant in variants for change in variant.changes]
    is_tried = any(target == key or target.startswith(f"{key}.") for target in changes)
    takes_some = "examples" in load_step(node.uses).params.model_fields
    if not takes_some or node.params.data.get("examples") or is_tried:
        return
    name = step_name(compared.file.name, compared.step)
    with compared.ledger() as ledger:
        known = known_decisions(ReviewStore(ledger))[name]
    if len(known.decisions) >= _LEAST_EXAMPLES:
        n = counted(len(known.decisions), "decision")
        yield f"{n} could stand in its prompt as examples: compare with `--set {key}.k=0,4`."


def _read_gold(
    origin: str, folder: Path, pipeline: Path, settings: Settings, keys: GoldKeys
) -> Gold | None:
    """Return gold data of a file, or of the decisions in the ledger; None: the run makes it."""
    if not origin or origin.startswith(_OF_STEP):
        return None
    if origin == REVIEWS:
        state = pipeline.parent.absolute() / STATE_FOLDER
        with Ledger(state, is_readonly=True, url=settings.ledger_url) as ledger:
            reviews = ReviewStore(ledger).decided(is_whole=True)
            return gold_of_reviews(reviews, pipeline.name)
    column = (keys.key or "").rpartition(".")[2]
    file = folder / origin
    try:
        return read_gold(decode_text(_content(file)).text, str(file), column)
    except NotText as error:
        raise CommandError(f"{file}: {error}") from None
    except UnreadableGold as error:
        raise CommandError(str(error)) from None
