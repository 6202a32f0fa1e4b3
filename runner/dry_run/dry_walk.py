"""Walk the steps of items as a run would, without side effects, and count their model calls.

Steps that only read are run, with a pool, files and stores of their own: the ledger answers, no
model is asked, nothing is written. A reply that the ledger does not have is a placeholder of one
character (`UNKNOWN`), so that the steps behind it can go on, and what depends on it counts as "at
most"; with `is_long`, token counts take it for the longest possible answer. Steps that change
something, call tools or come from unknown plug-ins are left out; what reads them is bounded by the
YAML alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paddock.engine.backends import token_counting
from paddock.engine.errors import EngineError, PromptTooLong
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    Constraint,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelSpec,
    Reply,
    Tool,
    Usage,
    reserved_tokens,
    resolve_sampling,
)
from paddock.engine.system.samples import SEED, draw
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError, Reference
from paddock.pipelines.keys import WrongInput
from paddock.runner.bind.bound import (
    BoundBlock,
    BoundNode,
    BoundPlan,
    BoundStep,
    all_steps,
    with_inputs,
)
from paddock.runner.bind.evidence_sources import EvidenceFinder
from paddock.runner.bind.inputs_and_parameters import BindError, Scope
from paddock.runner.bind.reply import ScopedReply
from paddock.runner.core.blocks import BlockRunner, BlockState, is_block_skipped
from paddock.runner.core.call_cache import LedgerPool, cached_reply, cached_vectors
from paddock.runner.core.items import ItemRun, item_result, item_tools, sub_pipeline_context
from paddock.runner.core.retry_and_quarantine import StepFailed, is_step_skipped, times
from paddock.runner.core.run_context import ItemOutputs, RunContext
from paddock.steps.base import (
    UNKNOWN,
    CallForecast,
    EmbedModel,
    ItemName,
    OutsideRoots,
    ReplyNotCached,
    SearchHit,
    StepError,
    StepSkipped,
    Tools,
    Vector,
    VectorRow,
)
from paddock.steps.run_pipeline import named_outputs
from paddock.steps.vectors.open_stores import OpenStores, StoreHandle
from paddock.steps.vectors.where_filter import Where

from .call_bounds import (
    NO_CALLS,
    CallBounds,
    between_lengths,
    bound_step,
    bound_steps,
    unbounded_steps,
    with_repairs,
)

_SURELY_FITS = 0.25
"""Of a context: a prompt whose upper estimate is below it is not counted with the vocabulary,
which takes a second to load. An answer keeps at most as much free unless its author said more."""


@dataclass
class AskedPrompts:
    """What a dry run has asked for so far, and whether the ledger has any reply at all."""

    has_history: bool
    by: dict[str, str] = field(default_factory=dict)
    """By the request's hash: the item that asked for it first."""

    def copy(self) -> AskedPrompts:
        """Return what was asked so far, to go on from in another way."""
        return AskedPrompts(self.has_history, dict(self.by))


class DryPool(LedgerPool):
    """Implements `paddock.engine.request.Pool` for one step of one item."""

    def __init__(
        self,
        *parts: Any,
        asked: AskedPrompts,
        item: str,
        looks_up: bool,
        counts_exactly: bool,
        is_long: bool = False,
        raises: bool = False,
    ) -> None:
        """`parts`: those of `LedgerPool`; `raises`: an unknown reply is `ReplyNotCached`."""
        super().__init__(*parts)
        self._asked = asked
        self._item = item
        self._looks_up = looks_up
        self._counts_exactly = counts_exactly
        self._is_long = is_long
        self._raises = raises
        self._own: set[str] = set()
        self.calls = CallBounds()
        self.n_unknown = 0
        self.n_known = 0
        self.refs: set[str] = set()

    # --- counting

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count a prompt's tokens, roughly where it is far from the limit."""
        more = await self._more(model, [one.content for one in messages])
        bound = token_counting.most_in_chat(messages)
        if self._is_exact(model) and not tools:
            reserved, room = await self._reserved(model, {})
            if 4 * reserved <= room and bound + more < _SURELY_FITS * room:
                return bound + more
            return more + await super().count_chat(model, messages, tools)
        return more + (bound if self._is_long else token_counting.least_in_chat(messages))

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        more = [await self._more(model, [text]) for text in texts]
        count = token_counting.most_tokens if self._is_long else token_counting.least_tokens
        is_exact = self._is_exact(model)
        counted = await super().count_texts(model, texts) if is_exact else list(map(count, texts))
        return [n + m for n, m in zip(counted, more, strict=True)]

    def _is_exact(self, model: ModelSpec) -> bool:
        return self._counts_exactly and not model.pool

    async def _more(self, model: ModelSpec, texts: Sequence[str]) -> int:
        n = sum(text.count(UNKNOWN) for text in texts) if self._is_long else 0
        return n * (await self._reserved(model, {}))[0] if n else 0

    async def _reserved(self, model: ModelSpec, params: Mapping[str, Any]) -> tuple[int, int]:
        """Return the tokens that are kept for an answer, and those of the context."""
        n_ctx_tokens = (await self.facts(model)).n_ctx_tokens
        max_tokens = resolve_sampling(params, model.params).max_tokens
        return reserved_tokens(max_tokens, n_ctx_tokens), n_ctx_tokens

    # --- asking

    async def ask(self, request: ChatRequest, *, tells: bool) -> AsyncIterator[Chunk | Reply]:
        """Yield the known reply, or a placeholder; raise PromptTooLong as the real pool would."""
        found = await self.looked_up(request)
        if found.row is not None:
            self.n_known += 1
            yield cached_reply(found.row)
            return
        n_tokens = await self.count_chat(request.model, request.messages, request.tools)
        reserved, room = await self._reserved(request.model, request.params)
        if n_tokens + reserved > room:
            raise PromptTooLong(n_tokens, reserved, room)
        texts = [message.content for message in request.messages]
        self._counted(request.model.ref, found.hash, texts)
        yield Reply(_placeholder(request.constraint), "stop", Usage(), "")

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Return the known vectors, or placeholders."""
        found = await self.looked_up_vectors(request)
        if found.row is not None:
            self.n_known += 1
            return cached_vectors(found.row)
        self._counted(request.model.ref, found.hash, request.texts)
        return EmbedReply(tuple((0.0,) for _ in request.texts), Usage(), "")

    def _counted(self, ref: str, hash_: str, texts: Sequence[str]) -> None:
        """Count a call whose reply is not known."""
        is_partly_unknown = any(UNKNOWN in text for text in texts)
        by = self._asked.by.get(hash_)
        if self._looks_up and by == self._item and hash_ not in self._own and not is_partly_unknown:
            self.n_known += 1  # an earlier step of the item has its reply by then
            return
        self._asked.by.setdefault(hash_, self._item)
        has_twin = by is not None or (is_partly_unknown and self._asked.has_history)
        is_sure = not self._looks_up or not has_twin
        self._own.add(hash_)
        self.calls += CallBounds(int(is_sure), 1)
        self.n_unknown += 1
        self.refs.add(ref)
        if self._raises:
            raise ReplyNotCached


def _placeholder(constraint: Constraint | None) -> str:
    """Return an answer that stands for one that is not known, in its form where that is simple."""
    if constraint is None or constraint.kind != "json_schema":
        return UNKNOWN
    return json.dumps(_filled_schema(json.loads(constraint.source)), ensure_ascii=False)


def _filled_schema(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return UNKNOWN
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or "properties" in schema:
        return {name: _filled_schema(one) for name, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [_filled_schema(schema.get("items"))] * max(1, schema.get("minItems", 1))
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    return {"boolean": False, "null": None}.get(str(kind), UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class DryReply(ScopedReply):
    """The step's `reply`: an unknown answer passes its checks."""

    pool: DryPool

    @property
    def repair(self) -> int:
        """How often an answer that is known is asked for again."""
        return 0 if self.pool.n_unknown else super().repair

    async def failures(self, output: Any, text: str) -> list[str]:
        return [] if self.pool.n_unknown else await super().failures(output, text)

    async def evidence(self, output: Any) -> Any:
        return None if self.pool.n_unknown else await super().evidence(output)


class DryOutputs(ItemOutputs):
    """The files of one item: knows what was written, and notes nothing."""

    async def _ignore(self, *_: Any, **__: Any) -> None: ...

    intend = wrote = holds = note_removed = _ignore
    note_rows_kept = note_file_read = note_rows_read = _ignore


@dataclass(frozen=True, slots=True)
class DryStores:
    """Implements `paddock.steps.base.VectorStores`: stores are read, never written."""

    real: OpenStores

    async def open(
        self,
        path: Path,
        dimensions: int | None,
        model: EmbedModel,
        *,
        is_new_allowed: bool = True,
    ) -> DryStore:
        store = await self.real.open(path, dimensions, model, is_new_allowed=is_new_allowed)
        return DryStore(store.writer, store.model, store.home, store.wanted)


class DryStore(StoreHandle):
    """A store that is only read."""

    async def replace(self, item: ItemName, rows: Sequence[VectorRow]) -> int:
        return 0

    async def nearest(self, vector: Vector, k: int, where: Where = None) -> list[SearchHit]:
        """Return the nearest rows; none where the vector is a placeholder."""
        return [] if len(vector) != self.dimensions else await super().nearest(vector, k, where)


def with_tree(surely: CallBounds, n_new: int, asked: AskedPrompts) -> CallBounds:
    """Add the calls of a tree whose prompts have parts that are not known yet."""
    n_later = n_new - (surely.most or 0)
    return CallBounds(surely.least + (0 if asked.has_history else n_later), n_new)


MAX_WALK_S = 5.0
"""A plan does not walk longer than that; items that are left are bounded or estimated."""

_READING_STEPS = frozenset(
    ("files.read", "files.rows", "files.scan", "split", "prompt", "chat", "summarise", "summarize",
     "embed", "search")
)  # fmt: skip
"""Built-in steps without side effects, with the outputs and stores of a dry run."""

_STEP_ERRORS = (StepError, EngineError, ExpressionError, OutsideRoots, ReplyNotCached)


@dataclass(frozen=True, slots=True)
class WalkPlace:
    """Context of a body in the walk, and its item."""

    context: RunContext
    record: ItemRun

    @classmethod
    def of(cls, context: RunContext, node: BoundNode, outer: tuple[str, ...] = ()) -> WalkPlace:
        """Return the place of a top-level step or block."""
        record = ItemRun.of(context, node, outer)
        outputs = DryOutputs(context, record.scope, record.key)
        return cls(context, replace(record, outputs=outputs))

    def item(self, run: BlockState, key: str) -> WalkPlace:
        """Return the place of an item of a block."""
        scope, outputs = run.work.scope, DryOutputs(self.context, run.work.scope, key)
        outer = (*run.outer, key)
        record = ItemRun(scope, key, run.work.shown(key), run.block.id, None, outer, outputs)
        return replace(self, record=record)


@dataclass(frozen=True, slots=True)
class WalkResult:
    """Calls and outputs of one step or block."""

    calls: CallBounds = NO_CALLS
    outputs: dict[str, Any] | None = field(default_factory=dict)
    """None: it is skipped; empty where they are not known."""
    is_unknown: bool = False
    """Whether `outputs` are, or contain, placeholders."""
    may_be_skipped: bool = False
    seen: CallForecast | None = None
    """Calls, and how many of them have replies; None where the step could not be walked."""
    refs: frozenset[str] = frozenset()
    """Names of the models that would be asked."""
    is_estimate: bool = False
    """Whether some of `calls` are those of other items, on average."""


class ItemEnds(Exception):
    """The item surely fails here: the steps behind it are not reached."""


class DryWalk:
    """A plan's walk over all stale items."""

    def __init__(self, ledger_has_calls: bool, *, counts_exactly: bool, fills_stores: bool) -> None:
        """`fills_stores`: the run may make a store that is not there yet."""
        self._fills_stores = fills_stores
        self._asked = AskedPrompts(ledger_has_calls)
        self._counts_exactly = counts_exactly
        self._ends_at: float | None = None  # set by the first item: to read a folder takes time

    # --- blocks

    async def block(self, run: BlockState, place: WalkPlace, unknown: frozenset[str]) -> WalkResult:
        """Walk every stale item; those left when the time is over are bounded or estimated.

        In a random order, so that those that were walked speak for the others.
        `unknown` are the steps around the block whose outputs are placeholders.
        """
        calls, refs, n_left = CallBounds(), set[str](), 0
        results, todo = list(run.results), run.todo()
        for item in sorted(todo, key=lambda item: draw(SEED, item.key)):
            scope = item.seen(run.block, run.scope)
            body = _BodyWalk(self, scope, place.item(run, item.key), set(unknown))
            walked = await self._in_time(run.block, body, item.key)
            refs |= body.refs
            if walked is None:
                n_left += 1
                walked = NO_CALLS, _unknown_result(item.key)
                refs |= _models_used(run.block.body)
            calls += walked[0]
            results[item.index] = walked[1]
        rest, n_walked = bound_steps(run.block.body).of_items(n_left), len(todo) - n_left
        is_estimate = rest.most is None and calls.most is not None and n_walked > 0
        calls += calls.estimate(n_left / n_walked) if is_estimate else rest
        offered = {**run.offered(), "results": [one for one in results if one is not None]}
        return WalkResult(calls, offered, bool(todo), refs=frozenset(refs), is_estimate=is_estimate)

    async def _in_time(
        self, block: BoundBlock, body: _BodyWalk, key: str
    ) -> tuple[CallBounds, Any] | None:
        """Walk one item; return its calls and its result, None where the time is over."""
        now = asyncio.get_running_loop().time()
        self._ends_at = self._ends_at or now + MAX_WALK_S
        if now >= self._ends_at:
            return None  # asked as well: where nothing waits, a timeout never comes
        try:
            async with asyncio.timeout_at(self._ends_at):
                await body.walk(block.body)
                return body.calls, item_result(block, body.scope, body.last)
        except TimeoutError:
            return None
        except ItemEnds:
            return body.calls, None
        except StepFailed:  # its `returns` read what is not known
            return body.calls, _unknown_result(key)

    # --- steps

    async def step(
        self,
        step: BoundStep,
        scope: Scope,
        place: WalkPlace,
        unknown: Iterable[str],
        *,
        is_after_changes: bool = False,
    ) -> WalkResult:
        """Walk one step. `unknown` are the steps whose outputs are placeholders or missing.

        `is_after_changes`: files and stores may be others by then.

        Raises:
            ItemEnds: it surely fails.
        """
        unknown = frozenset(unknown)
        is_partly_unknown = is_after_changes or bool(_steps_read(step.references) & unknown)
        may_be_skipped = False
        if step.if_ is not None and _steps_read(step.if_.references) & unknown:
            may_be_skipped = True
        else:
            try:
                if is_step_skipped(step, scope):
                    return WalkResult(outputs=None)
            except StepFailed as error:
                raise ItemEnds from error
        walked = await self._once(step, scope, place, is_partly_unknown)
        if not may_be_skipped:
            return walked
        return replace(walked, calls=walked.calls.perhaps(), is_unknown=True, may_be_skipped=True)

    async def _once(
        self, step: BoundStep, scope: Scope, place: WalkPlace, is_partly_unknown: bool
    ) -> WalkResult:
        if step.inner is not None:
            return await self._inner(step, scope, place, is_partly_unknown)
        if not _reads_only(step):
            return bound_of_step(step)
        before = self._asked.copy()
        walked = await self._tried(step, scope, place, is_partly_unknown, self._asked)
        n_unknown = walked.seen.n_calls - walked.seen.n_known if walked.seen is not None else 0
        if _is_sized(step) and (is_partly_unknown or n_unknown > 1 or not self._counts_exactly):
            longest = await self._tried(step, scope, place, is_partly_unknown, before, is_long=True)
            walked = replace(walked, calls=between_lengths(walked.calls, longest.calls))
        return walked

    async def _tried(
        self,
        step: BoundStep,
        scope: Scope,
        place: WalkPlace,
        is_partly_unknown: bool,
        asked: AskedPrompts,
        *,
        is_long: bool = False,
    ) -> WalkResult:
        """Carry out a step that only reads. `is_long`: as if each unknown answer were the longest.

        Raises:
            ItemEnds: it surely fails.
        """
        foresees = hasattr(step.kind, "foresee")
        tools, pool = await self._tools(step, scope, place, asked, is_long=is_long)
        try:
            params = step.params.render(scope)
        except BindError as error:
            if not is_partly_unknown:
                raise ItemEnds from error
            return bound_of_step(step)
        outputs: dict[str, Any] | None = {}
        seen, is_over = None, False
        try:
            if foresees:
                seen = await step.kind().foresee(params, tools)  # type: ignore[attr-defined]
                outputs = dict.fromkeys(("output", "evidence", "confidence"))
                outputs["text"] = UNKNOWN
            else:
                outputs = (await step.kind().run(params, tools)).model_dump(mode="json")
                if step.uses == "search" and is_partly_unknown and self._fills_stores:
                    outputs["hits"] = [{**hit, "text": UNKNOWN} for hit in outputs["hits"]]
            if step.returns is not None:
                outputs = step.returns.render(scope.with_step(step.id, outputs))
        except StepSkipped:
            outputs = None
        except _STEP_ERRORS as error:
            may_be_filled = step.uses == "search" and self._fills_stores
            is_partly_unknown = is_partly_unknown or may_be_filled
            is_sure = not (pool.n_unknown or is_partly_unknown)
            if is_sure and not (step.kind.roles and times(step.retry, "check")):
                raise ItemEnds from error
            outputs, is_over = {}, True
            if is_partly_unknown and not is_long:  # a template may read what is not there yet
                bound = bound_of_step(step)
                return replace(bound, calls=between_lengths(pool.calls, bound.calls))
        calls = pool.calls
        if seen is not None:
            calls = with_tree(calls, seen.n_calls - seen.n_known, asked)
        elif is_over and is_long:
            n_parts = len(params.over) if foresees else calls.most or 0
            calls = CallBounds(0, 2 * n_parts + 1)
        return WalkResult(
            with_repairs(step, calls, holds_forms=self._counts_exactly),
            outputs,
            is_unknown=is_partly_unknown or is_over or foresees or pool.n_unknown > 0,
            seen=seen or CallForecast(pool.n_known + pool.n_unknown, pool.n_known),
            refs=frozenset(pool.refs) or (_models_used([step]) if calls.most else frozenset()),
        )

    async def _tools(
        self, step: BoundStep, scope: Scope, place: WalkPlace, asked: AskedPrompts, *, is_long: bool
    ) -> tuple[Tools, DryPool]:
        record, context = place.record, place.context
        caller = context.caller(record.scope, step, record.shown_key, record.block)
        tools = item_tools(context, step, caller, record, scope)
        assert isinstance(tools.pool, LedgerPool)
        pool = DryPool(
            *tools.pool.parts,
            asked=asked,
            item=f"{record.scope}\n{record.key}",
            looks_up=caller.looks_up,
            counts_exactly=self._counts_exactly,
            is_long=is_long,
            raises=hasattr(step.kind, "foresee"),
        )
        reply, form = None, step.reply
        if form is not None:
            finder = labels = None
            with contextlib.suppress(StepError):  # what is not known yet may be no text
                finder = EvidenceFinder.of(form.evidence, form.schema, scope, tools)
            with contextlib.suppress(*_STEP_ERRORS):  # nor some list of labels, or vectors
                labels = await context.judge.labels.offered(step, scope, replace(tools, pool=pool))
            reply = DryReply(form, scope, finder, labels, pool=pool)
        return replace(tools, pool=pool, reply=reply, stores=DryStores(context.stores)), pool

    # --- pipelines that steps run

    async def _inner(
        self, step: BoundStep, scope: Scope, place: WalkPlace, is_partly_unknown: bool
    ) -> WalkResult:
        inner = step.inner
        assert inner is not None
        try:
            params = step.params.render(scope)
            bound = with_inputs(inner, params.inputs, place.context.bound.roots)
        except (BindError, WrongInput) as error:
            if not is_partly_unknown:
                raise ItemEnds from error
            return bound_of_step(step)
        context = sub_pipeline_context(place.context, step, place.record, bound)
        secrets = context.stats.secrets.of(bound.file)
        at = WalkPlace(context, place.record)
        body = _BodyWalk(self, Scope.of(bound.inputs, secrets), at, set(), is_whole_pipeline=True)
        if is_partly_unknown:
            body.is_unsure = True
        outputs: dict[str, Any] = {}
        await body.walk(bound.nodes)
        try:
            outputs = pipeline_outputs(step, bound, body.scope, scope)
        except ExpressionError:
            body.unknown.add(step.id)
        is_unknown = is_partly_unknown or bool(body.unknown)
        return WalkResult(body.calls, outputs, is_unknown=is_unknown, refs=frozenset(body.refs))


class _BodyWalk:
    """Walks the steps of one item, or of a pipeline that a step runs, in order."""

    def __init__(
        self,
        dry: DryWalk,
        scope: Scope,
        place: WalkPlace,
        unknown: set[str],
        *,
        is_whole_pipeline: bool = False,
    ) -> None:
        self._dry = dry
        self._place = place
        self._is_whole_pipeline = is_whole_pipeline
        self.scope = scope
        self.unknown = unknown
        """Steps whose outputs are placeholders or missing."""
        self.is_unsure = False
        """Whether what follows may not be reached, or may be fresh."""
        self.calls = CallBounds()
        self.refs: set[str] = set()
        self.last: Any = None
        self._perhaps_skipped: set[str] = set()
        self._has_changed = False
        """Whether an earlier step may have changed files or stores."""

    async def walk(self, nodes: Iterable[BoundNode]) -> None:
        """Walk them.

        Raises:
            ItemEnds: a step surely fails; `calls` has what is asked before.
        """
        for node in nodes:
            reads = _steps_read(node.references)
            if isinstance(node, BoundBlock):
                walked = await self._block(node, bool(reads & self.unknown))
            else:
                walked = await self._step(node)
            if reads & self._perhaps_skipped:
                walked = replace(walked, may_be_skipped=True)
            self._add(node, walked)

    def _add(self, node: BoundNode, walked: WalkResult) -> None:
        is_sure = not (walked.may_be_skipped or self.is_unsure)
        self.calls += walked.calls if is_sure else walked.calls.perhaps()
        self.refs |= walked.refs
        if walked.is_unknown:
            self.unknown.add(node.id)
        if walked.may_be_skipped:
            self._perhaps_skipped.add(node.id)
        if isinstance(node, BoundStep) and node.reply is not None and node.reply.checks:
            self.is_unsure = self.is_unsure or walked.is_unknown  # it may fail its checks
        if isinstance(node, BoundStep) and node.review is not None:
            self.is_unsure = True  # the item may wait for a person
        if isinstance(node, BoundStep) and not (_reads_only(node) or node.inner is not None):
            self._has_changed = True
        self.last = walked.outputs
        self.scope = self.scope.with_step(node.id, walked.outputs)

    async def _step(self, step: BoundStep) -> WalkResult:
        place = self._place
        if not self._is_whole_pipeline or not step.kind.roles:
            return await self._dry.step(
                step, self.scope, place, self.unknown, is_after_changes=self._has_changed
            )
        # At the top of a pipeline a step that asks models is an item of its own, and may be fresh.
        run = await self._settled(step)
        is_partly_unknown = bool(_steps_read(step.references) & self.unknown)
        if not run.todo() and not is_partly_unknown:
            if run.wait is not None:
                raise ItemEnds
            return WalkResult(outputs=run.results[0])
        at = WalkPlace.of(place.context, step, place.record.outer)
        walked = await self._dry.step(step, self.scope, at, self.unknown)
        if is_partly_unknown and run.work.items[0].entry is not None:
            walked = replace(walked, calls=walked.calls.perhaps())
        return walked

    async def _block(self, block: BoundBlock, is_partly_unknown: bool) -> WalkResult:
        """Walk a block within the item: its own items may be fresh."""
        is_list_unknown = bool(_steps_read(block.over.references) & self.unknown) or (
            block.if_ is not None and bool(_steps_read(block.if_.references) & self.unknown)
        )
        if is_list_unknown:
            return _bound_of_body(unbounded_steps(block.body), block.body)
        try:
            if is_block_skipped(block, self.scope):
                return WalkResult(outputs=None)
            run = await self._settled(block)
        except (ExpressionError, PipelineError) as error:
            raise ItemEnds from error
        walked = await self._dry.block(run, self._place, frozenset(self.unknown))
        if is_partly_unknown:
            walked = replace(walked, calls=walked.calls.perhaps(), is_unknown=True)
        return walked

    async def _settled(self, node: BoundNode) -> BlockState:
        blocks, outer = BlockRunner(self._place.context), self._place.record.outer
        return await blocks.settle(node, self.scope, keeps_results=True, outer=outer)


def pipeline_outputs(step: BoundStep, bound: BoundPlan, inner: Scope, scope: Scope) -> Any:
    """Return the outputs of a step that runs a pipeline; `inner`: the pipeline's scope at its end.

    Raises:
        ExpressionError: a `returns` failed.
    """
    outputs = named_outputs(bound.returns.render(inner) if bound.returns is not None else None)
    if step.returns is None:
        return outputs
    return step.returns.render(scope.with_step(step.id, outputs))


def bound_of_step(step: BoundStep) -> WalkResult:
    return _bound_of_body(bound_step(step), [step])


def _bound_of_body(calls: CallBounds, body: Iterable[BoundNode]) -> WalkResult:
    refs = _models_used(body) if calls.most != 0 else frozenset[str]()
    return WalkResult(calls, is_unknown=True, refs=refs)


def _models_used(body: Iterable[BoundNode]) -> frozenset[str]:
    asking = (step for step in all_steps(body) if step.kind.roles)
    return frozenset(spec.ref for step in asking for spec in step.models)


def _reads_only(step: BoundStep) -> bool:
    """Return whether a dry run may carry out a step."""
    is_pure = step.kind.is_pure and not step.kind.roles
    return step.uses in _READING_STEPS or is_pure or hasattr(step.kind, "foresee")


def _is_sized(step: BoundStep) -> bool:
    """Return whether how often a step asks depends on how long texts are."""
    if step.uses in ("summarise", "summarize") or hasattr(step.kind, "foresee"):
        return True
    return step.params.value.data.get("on_overflow") in ("map-reduce", "refine")


def _steps_read(references: Iterable[Reference]) -> frozenset[str]:
    return frozenset(path[1] for path in references if path[0] == "steps" and len(path) > 1)


def _unknown_result(key: str) -> dict[str, Any]:
    return {"text": f"{UNKNOWN} {key}"}
