"""Run the compared part of each variant, and read each item's result from the ledger.

A variant is an ordinary run, with a text of its own and under a file name of its own. So a
comparison that was interrupted goes on, and a call that the ledger knows is never made again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    nullcontext,
)
from pathlib import Path
from typing import Any

from paddock.engine.errors import EngineError
from paddock.engine.request import Pool
from paddock.engine.system.item_samples import ItemSample
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import cell_text
from paddock.pipelines.errors import PipelineError, text_without_places
from paddock.pipelines.plan import Plan, read_plan
from paddock.runner import api
from paddock.runner.bind.plan_walks import only_reads, steps_of
from paddock.runner.bind.variations import Variant, changed
from paddock.runner.core.calls import model_pools
from paddock.runner.core.calls.call_rows import cached_reply
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.core.run_records import StepRecord, read_lineage
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.prefect.run_tracking import run_prepared, shared_default_pool
from paddock.runner.progress.drain import StopGate, stop_on_signals
from paddock.runner.progress.events import Observer
from paddock.runner.progress.item_states import WITH_RESULT
from paddock.runner.progress.report import ItemReport, Report
from paddock.runner.settings import STATE_FOLDER, Settings

from .variants import ComparedPart, compared_part


class ItemAnswer(Struct, frozen=True):
    key: str
    output: Any = None
    """The value of the step's schema, else its text; None: there is none."""
    text: str = ""
    evidence: Any = None
    confidence: Any = None
    error: str | None = None
    gold_key: str | None = None
    """The item's name in gold data, by `gold.key`."""
    gold: Any = None
    """What another step said."""
    first_call_hash: str = ""
    """The hash of the compared step's first call."""
    busy: tuple[tuple[float, float], ...] = ()
    """From when to when models computed for it, as recorded with the calls, without waiting."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def is_done(self) -> bool:
        return self.error is None


class VariantRun(Struct, frozen=True):
    variant: Variant
    items: Mapping[str, ItemAnswer] = field(default_factory=dict)
    fault: str | None = None
    """Why it could not be carried out, or not to its end; one sentence."""
    notes: tuple[str, ...] = ()
    calls: int = 0
    cached_calls: int = 0
    is_over_budget: bool = False
    n_unsampled: int = 0
    """Items that are not in the sample."""
    schema: Any = None
    """Of the compared step's answer."""


class ComparedPipeline(Struct, frozen=True):
    file: Path
    plan: Plan
    step: str
    inputs: Mapping[str, Any]
    settings: Settings
    key: str | None = None
    """A bare expression: an item's name in gold data."""
    gold: str | None = None
    """A bare expression: what another step says is right."""
    until: float | None = None
    """When its budget is used up, by the monotonic clock."""
    sample: ItemSample | None = None
    pool: Pool | None = None
    """Replaces this machine's."""

    @property
    def left_s(self) -> float | None:
        return None if self.until is None else self.until - time.monotonic()

    def ledger(self) -> Ledger:
        state = self.file.parent.absolute() / STATE_FOLDER
        return Ledger(state, is_readonly=True, url=self.settings.ledger_url)

    def default_pool(self) -> AbstractAsyncContextManager[Pool]:
        if self.pool is not None:
            return nullcontext(self.pool)
        return shared_default_pool(self.settings)


Watch = Callable[[Variant], AbstractContextManager[Observer]]
"""Returns the display of a variant's run."""


def run_variants(
    compared: ComparedPipeline, variants: Sequence[Variant], watch: Watch
) -> list[VariantRun]:
    """Run the variants in their order, with one pool of models.

    Raises:
        KeyboardInterrupt: Ctrl-C; what was answered is in the ledger.
        LedgerError: the ledger cannot be used.
    """
    return asyncio.run(_Runner(compared, watch).all(variants))


class _Runner:
    def __init__(self, compared: ComparedPipeline, watch: Watch) -> None:
        self._compared = compared
        self._watch = watch
        self._stop = asyncio.Event()

    async def all(self, variants: Sequence[Variant]) -> list[VariantRun]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(api.FILE_THREADS))
        gate = StopGate()
        runs = []
        async with AsyncExitStack() as stack:
            stack.enter_context(stop_on_signals(self._stop, gate))
            default = await stack.enter_async_context(self._compared.default_pool())
            for variant in variants:
                runs.append(await self._run_variant(variant, default))
                if self._stop.is_set() or gate.is_closed:
                    raise KeyboardInterrupt
        return runs

    async def _run_variant(self, variant: Variant, default: Pool) -> VariantRun:
        left_s = self._compared.left_s
        if left_s is not None and left_s < 1:
            message = "it was not begun: the budget is used up. The same command goes on."
            return VariantRun(variant, fault=message, is_over_budget=True)
        try:
            return await self._run(variant, left_s, default)
        except (PipelineError, EngineError, model_pools.LookupInterrupted) as error:
            return VariantRun(
                variant, fault=text_without_places(error) or " ".join(str(error).split())
            )

    async def _run(self, variant: Variant, left_s: float | None, default: Pool) -> VariantRun:
        compared = self._compared
        data = changed(compared.plan.pipeline.document.data, variant.changes)
        plan = read_plan(compared.file, json.dumps(data))
        if faults := (*plan.pipeline.faults, *plan.faults):
            raise PipelineError(faults)
        part = compared_part(plan, compared.step, compared.key, compared.gold)
        budget = {} if left_s is None else {"budget": {"time": f"{int(left_s)}s"}}
        options = RunOptions(
            local=True,
            text=json.dumps({**part.data, **budget}),
            notify=False,
            variant_of=compared.file.name,
            trigger=f"compare: {variant.name}",
            sample=compared.sample,
        )
        file = part.file(compared.file, compared.inputs)
        environment = RunEnvironment(settings=compared.settings, stop=self._stop)
        prepared = api.prepare(file, compared.inputs, options, environment)
        steps = {step.id: step for step in steps_of(prepared.bound.nodes)}
        for needed in steps.values():
            if not only_reads(needed):
                kind = f"'{needed.id}' (`{needed.uses}`)"
                what = f"'{part.step}' reads {kind}, which may change something."
                remedy = "A comparison runs only steps that change nothing."
                raise PipelineError.of(what, remedy)
        step = steps[part.step]
        pools = model_pools.PoolOptions(default=default, secrets=prepared.secrets, stop=self._stop)
        with self._watch(variant) as observer:
            async with model_pools.open_pools(prepared.bound, compared.settings, pools) as (_, own):
                environment = replace(environment, pool=own, observer=observer)
                api.refuse_unready(prepared, options, environment)
                report = await run_prepared(prepared, options, environment)
        fault = report.message if report.status in ("failed", "budget", "interrupted") else None
        items = await asyncio.to_thread(self._items, file, part, report)
        skipped = [f"'{name}' is not run: what it made before is used." for name in part.skipped]
        return VariantRun(
            variant=variant,
            items=items,
            fault=fault,
            notes=(*skipped, *report.notes),
            calls=report.calls,
            cached_calls=report.cached_calls,
            is_over_budget=report.status == "budget",
            n_unsampled=sum(item.state == "unsampled" for item in report.items),
            schema=None if step.reply is None else step.reply.schema,
        )

    def _items(self, file: Path, part: ComparedPart, report: Report) -> dict[str, ItemAnswer]:
        block = part.block or part.step
        left_out = ("unsampled", "skipped", "deleted", "missing")
        results = {
            item.key: item
            for item in report.items
            if item.step == block and (item.error or item.state not in left_out)
        }
        answers: dict[str, ItemAnswer] = {}
        with self._compared.ledger() as ledger:
            for scope, *_ in ledger.rows(queries.SCOPES_OF_STEP, file=file.name, step=block):
                entries = ledger.entries(str(scope))
                lineage = LineageStore(ledger).of_scope(str(scope))
                for key in results.keys() & entries.keys():
                    steps = read_lineage(lineage.get(key)).steps
                    answers[key] = _item_answer(
                        ledger, part.step, results[key], entries[key], steps
                    )
        return {key: answers[key] for key in results if key in answers}


def answered_prompts(compared: ComparedPipeline, answers: Iterable[ItemAnswer]) -> dict[str, str]:
    prompts: dict[str, str] = {}
    with compared.ledger() as ledger:
        for answer in answers:
            row = ledger.call(answer.first_call_hash, is_whole=True)
            messages = [] if row is None else json.loads(row.request).get("messages", [])
            prompts[answer.key] = "\n\n".join(str(message[1]) for message in messages)
    return prompts


def _item_answer(
    ledger: Ledger, step: str, item: ItemReport, entry: Entry, steps: Sequence[StepRecord]
) -> ItemAnswer:
    prompt_tokens = 0
    completion_tokens = 0
    first_call_hash = ""
    busy: list[tuple[float, float]] = []
    for step_record in steps:
        for call in step_record.calls:
            row = ledger.call(call.hash) if call.kind == "chat" else None
            if row is None:
                continue
            usage = cached_reply(row).usage
            took_s = usage.prefill_s + usage.decode_s
            # Servers elsewhere do not say how long they computed.
            if took_s:
                busy.append((row.at - took_s, row.at))
            elif not call.is_known:
                busy.append((call.began + call.queue_s, call.began + call.seconds))
            prompt_tokens += usage.prompt_tokens
            completion_tokens += usage.completion_tokens
            if step_record.id == step:
                first_call_hash = first_call_hash or call.hash
    answer = ItemAnswer(
        item.key,
        first_call_hash=first_call_hash,
        busy=tuple(busy),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )
    if item.state not in WITH_RESULT:
        return replace(answer, error=item.error or entry.error or f"it is {item.state}")
    result = ledger.load_value(entry.returns, entry.returns_object) or {}
    facts = result.get("answer")
    if facts is None:
        return replace(answer, error="the step was skipped")
    output = facts.get("output")
    return replace(
        answer,
        output=facts.get("text") if output is None else output,
        text=facts.get("text") or "",
        evidence=facts.get("evidence"),
        confidence=facts.get("confidence"),
        gold_key=None if result.get("key") is None else cell_text(result["key"]),
        gold=result.get("gold"),
    )
