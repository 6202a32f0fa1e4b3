"""`paddock compare`: run variants of a pipeline on the same documents, and say which is better."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from paddock.engine.system.files import write_output
from paddock.pipelines.keys import NumberMetricKeys, parse_seconds
from paddock.runner import api
from paddock.runner.bind.bind import check, read_plan
from paddock.runner.cli.arguments import (
    HERE,
    InputsOption,
    JsonOption,
    LimitOption,
    PoolOption,
    SampleOption,
    SeedOption,
    StratifyOption,
    given_settings,
    item_sample,
    option_values,
    parse_inputs,
    pipeline_file,
    remove_old_reports,
    require_reports,
)
from paddock.runner.cli.commands.validate_plan_run import plan_text
from paddock.runner.cli.exit_status import DONE, FAILED, CommandError, with_exit_status
from paddock.runner.cli.run_display import run_observer
from paddock.runner.compare import comparison_page, comparison_text
from paddock.runner.compare.adoption import CannotAdopt, adopted_text
from paddock.runner.compare.comparison import Comparison, GoldSource, compare
from paddock.runner.compare.gold import REVIEWS, Gold, UnreadableGold, gold_of_reviews, read_gold
from paddock.runner.compare.judge import judge_variants
from paddock.runner.compare.result_change import (
    EarlierResult,
    NothingShared,
    ResultChange,
    result_change,
)
from paddock.runner.compare.variant_runs import ComparedPipeline, run_variants
from paddock.runner.compare.variants import VariantOptions, compared_step
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews import ReviewStore
from paddock.runner.progress import console
from paddock.runner.settings import STATE_FOLDER, read_settings
from paddock.runner.testing.results import EXIT_TESTS_FAILED, junit_xml
from paddock.steps.readers.text_encoding import NotText, decode_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from paddock.pipelines.keys import GoldKeys, MetricName
    from paddock.pipelines.plan import Plan
    from paddock.runner.compare.variants import Variant
    from paddock.runner.progress.events import Observer
    from paddock.runner.settings import Settings

BUDGET_USED = 5


def register(app: typer.Typer) -> None:
    app.command("compare")(with_exit_status(compare_variants, CompareFlags))


@dataclass(frozen=True, slots=True)
class CompareFlags:
    """Arguments and options of `paddock compare`."""

    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE", help="A pipeline, or a folder with one; this folder by default."
        ),
    ] = None
    inputs: InputsOption = None
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME=MODEL,...", help="Models for a name under `models`."),
    ] = None
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", metavar="STEP=FILE,...", help="Prompt files for a step."),
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="STEP.KEY=VALUE,...",
            help="Values for a key of a step, such as bill.params.temperature=0,0.7.",
        ),
    ] = None
    step: Annotated[
        str | None, typer.Option(metavar="STEP", help="The step whose answers are compared.")
    ] = None
    gold: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="What is right: a CSV or JSON lines file, `reviews`, or steps.NAME.output.",
        ),
    ] = None
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A model that says which of two answers is better; each against the first.",
        ),
    ] = None
    sample: SampleOption = None
    limit: LimitOption = None
    seed: SeedOption = None
    stratify: StratifyOption = None
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Stop after this time; the same command goes on."),
    ] = None
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="An earlier result of --json; exit with 4 if this one is worse."
        ),
    ] = None
    allow_loss: Annotated[
        float,
        typer.Option(
            metavar="X", min=0, max=1, help="With --against: how much worse is not worse."
        ),
    ] = 0.0
    adopt: Annotated[
        str | None,
        typer.Option(
            metavar="VARIANT", help="Write this variant, by its letter or name, into the YAML."
        ),
    ] = None
    as_json: JsonOption = False
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML for CI.")] = (
        None
    )
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the comparison as one HTML page.")
    ] = None
    pool: PoolOption = None
    allow: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Permissions: network, secrets."),
    ] = None


def compare_variants(flags: CompareFlags) -> int:
    """Compare models, prompts and parameters on your documents; outputs stay as they are.

    Each combination of values is a variant. Calls are never made twice: the same command goes on,
    and a variant that is added costs only itself.
    """
    reads = [*option_values(flags.inputs), *option_values(flags.prompts)]
    reads += [str(file) for file in (flags.gold, flags.against) if file is not None]
    require_reports({"junit.xml": flags.junit, "compare.html": flags.html}, reads)
    path = pipeline_file(HERE if flags.file is None else flags.file, "compare")
    plan = read_plan(path)
    check(plan)
    options = VariantOptions(flags.models or (), flags.prompts or (), flags.settings or ())
    variants = options.variants(plan)
    chosen = None if flags.adopt is None else _chosen(flags.adopt, variants)
    earlier = None if flags.against is None else _earlier(flags.against)
    # stdout carries one object: what a plug-in prints goes to stderr.
    with redirect_stdout(sys.stderr) if flags.as_json else nullcontext():
        found = _compared(flags, path, plan, variants)
    if flags.junit is not None:
        write_output(flags.junit, junit_xml(comparison_text.comparison_suites(found, str(path))))
    if flags.html is not None:
        write_output(flags.html, comparison_page.comparison_page(found))
    if flags.as_json:
        console.print_json(found.as_json())
    else:
        console.print_out(comparison_text.comparison_text(found))
    change = None if earlier is None else _changes(found, earlier, flags)
    for line in () if change is None else (*change.shared, *change.losses):
        console.print_err(console.printable_line(line))
    if chosen is not None:
        _adopt(chosen, found, plan, flags)
    if any(one.run.is_over_budget for one in found.variants):
        return BUDGET_USED
    if any(one.run.fault for one in found.variants):
        return FAILED
    return EXIT_TESTS_FAILED if change is not None and change.losses else DONE


def _chosen(name: str, variants: Sequence[Variant]) -> Variant:
    """Return the variant of a letter or name.

    Raises:
        CommandError: there is none.
    """
    short = comparison_text.letters([one.name for one in variants])
    for one in variants:
        if name in (one.name, short[one.name]):
            return one
    known = ", ".join(f"{letter} ('{full}')" for full, letter in short.items())
    raise CommandError(f"There is no variant '{name}' to adopt.\n  There are: {known}.")


def _adopt(chosen: Variant, found: Comparison, plan: Plan, flags: CompareFlags) -> None:
    """Write a variant into the pipeline's file, and print what becomes stale.

    Raises:
        CommandError: it could not be run, or the file cannot be changed.
    """
    fault = next(one.run.fault for one in found.variants if one.run.variant == chosen)
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
    write = console.print_err if flags.as_json else console.print_out
    write(f"\n{console.printable_line(f'{path}: adopted {chosen.name}.')}")
    own = given_settings(pool=flags.pool, allow=flags.allow)
    settings = read_settings(path.parent, flags=own)
    write(plan_text(api.plan(path, parse_inputs(flags.inputs), settings=settings)))


def _earlier(file: Path) -> EarlierResult:
    """Return an earlier result.

    Raises:
        CommandError: the file has none.
    """
    try:
        return EarlierResult.model_validate_json(file.read_bytes(), strict=True)
    except OSError as error:
        raise CommandError(f"{file}: cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        what = f" ({at}: {first['msg']})" if at else ""
        words = f"{file}: this is no result of `paddock compare --json`{what}."
        raise CommandError(words) from None


def _changes(found: Comparison, earlier: EarlierResult, flags: CompareFlags) -> ResultChange:
    """Return what is worse than before.

    Raises:
        CommandError: the two cannot be compared.
    """
    try:
        return result_change(found, earlier, flags.allow_loss)
    except NothingShared as error:
        raise CommandError(f"{flags.against}: {error}") from None


def _compared(
    flags: CompareFlags, path: Path, plan: Plan, variants: Sequence[Variant]
) -> Comparison:
    own = given_settings(pool=flags.pool, allow=flags.allow)
    settings = read_settings(path.parent, flags=own)
    keys = plan.pipeline.gold
    step = compared_step(plan, variants, flags.step or (keys.step if keys else None))
    origin = flags.gold or (keys.from_ if keys else None)
    is_expression = origin is not None and origin.startswith("steps.")
    gold = None
    if origin is not None and not is_expression:
        folder = Path() if flags.gold else path.parent
        gold = _read_gold(origin, folder, path, settings, keys)
    compared = ComparedPipeline(
        path, plan, step, parse_inputs(flags.inputs), settings,
        key=keys.key if keys else None,
        gold=origin if is_expression else None,
        budget_s=_seconds(flags.budget),
        sample=item_sample(flags.sample, flags.limit, flags.seed, flags.stratify),
    )  # fmt: skip

    remove_old_reports(flags.junit, flags.html)

    def watch(variant: Variant) -> AbstractContextManager[Observer]:
        console.print_err(console.printable_line(variant.name))
        return run_observer(is_quiet_stdout=flags.as_json)

    runs = run_variants(compared, variants, watch)
    judgement = judge_variants(compared, runs, flags.judge) if flags.judge else None
    return compare(plan.pipeline.name, step, runs, GoldSource(gold, _metrics(keys)), judgement)


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else parse_seconds(text)
    except ValueError as error:
        raise CommandError(f"'--budget {text}' {error}.") from None


def _metrics(keys: GoldKeys | None) -> dict[str, tuple[MetricName, float]]:
    written = {} if keys is None else keys.metrics
    return {
        name: ("number", one.number) if isinstance(one, NumberMetricKeys) else (one, 0.0)
        for name, one in written.items()
    }


def _read_gold(
    origin: str, folder: Path, pipeline: Path, settings: Settings, keys: GoldKeys | None
) -> Gold:
    """Return gold data of a file, or of the decisions in the ledger.

    Raises:
        CommandError: it cannot be read.
    """
    if origin == REVIEWS:
        state = pipeline.parent.absolute() / STATE_FOLDER
        with Ledger(state, is_readonly=True, url=settings.ledger_url) as ledger:
            reviews = ReviewStore(ledger).decided(is_whole=True)
            return gold_of_reviews(reviews, pipeline.name)
    column = keys.key.rpartition(".")[2] if keys and keys.key else ""
    file = folder / origin
    try:
        return read_gold(decode_text(file.read_bytes()).text, str(file), column)
    except OSError as error:
        raise CommandError(f"{file}: cannot be read: {error.strerror}.") from None
    except NotText as error:
        raise CommandError(f"{file}: {error}") from None
    except UnreadableGold as error:
        raise CommandError(str(error)) from None
