"""What must be done, and why: a bound pipeline's items compared with their ledger entries.

Reads the ledger and the file system; runs nothing. Blocks are judged one by one, since a block's
list may be the output of an earlier step.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from paddock.engine.system.text import canonical_json
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.runner.answers.offered_labels import LabelLists
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from paddock.runner.bind.plan_walks import all_steps, node_ids, steps_of
from paddock.runner.bind.scope import Scope
from paddock.runner.folders.unfinished_files import SettledFiles
from paddock.runner.ledger.entries import Entry, LineageRow
from paddock.runner.ledger.filed_store import FiledRow
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Reason, Why
from paddock.steps.base import OutsideRoots

from .left_nodes import LackingItems
from .reviews.run_reviews import RunReviews
from .run_options import RunOptions
from .traces.block_items import (
    block_list,
    item_keys,
    item_strata,
    nearest_keys,
    raw_item_keys,
    split_by_where,
)
from .traces.block_work import BlockWork, ItemWork, JudgedRule
from .traces.dependencies import (
    KeptOutput,
    OutputWithin,
    Trace,
    World,
    dependencies_of,
)
from .traces.filed_items import (
    BlockFiling,
    FiledItems,
    ListWithFiled,
    reads_new_items,
    with_filed_rows,
)
from .traces.filed_verdicts import FiledVerdicts
from .traces.node_parts import NodeParts
from .traces.parts import KEYED, OuterValue, RulePart, part_digest, part_of
from .traces.past_items import PastItems
from .traces.reconcile import reconcile
from .traces.scopes import PipelineScopes
from .traces.source_folders import MissingSources, SourceFolder, source_folders
from .traces.verify import (
    NEW,
    Case,
    ItemNow,
    ItemRequest,
    ItemVerdict,
    differences,
    permit,
    renewed_entry,
    verify,
)

NOT_REQUESTED = ItemVerdict(ItemState.SKIPPED, (Why.NOT_REQUESTED(),), Case.NOT_REQUESTED)


@dataclass(frozen=True, slots=True)
class _BlockList:
    """The items of a block, not judged yet, and what its list lacks."""

    items: list[ItemWork]
    """Of the list, in its order; then documents that a run moved and did not do; then `results`."""
    results: frozenset[str]
    """Keys of the items that are made of results of filed ones, which the run's own list lacks."""
    excluded: frozenset[str]
    """Keys of what `where` leaves out."""
    entries: dict[str, Entry]
    filing: BlockFiling
    sources: tuple[SourceFolder, ...]
    whole: ListWithFiled | None

    def unsettled(
        self, items: Sequence[ItemWork], still_filed: Set[str], lacks: Sequence[LackingItems]
    ) -> frozenset[str]:
        """Return the keys of what is not among the run's `items`, and may be among a later run's.

        The watch passes it on, or it is listed again once what is lacking is there.
        """
        keys = {item.key for item in self.items}
        own_keys = keys - self.results
        later = {
            key
            for key, entry in (self.entries.items() if lacks else ())
            if entry.gone is None and any(lack.may_be_of(key, own_keys) for lack in lacks)
        }.difference(self.excluded, self.whole.filed if self.whole else ())
        return frozenset(keys | later).difference(still_filed, (item.key for item in items))


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges the items of one pipeline; that of an inner one is a copy with another `bound`."""

    world: World
    reviews: RunReviews
    bound: BoundPlan
    options: RunOptions
    scopes: PipelineScopes
    job_runs: Callable[[], Awaitable[frozenset[str]]] | None = None
    """Returns the runs of the same job, this one included: before a crash, or on other machines."""
    settled_files: SettledFiles | None = None
    """Of a run that a watch started: what it passes on later."""
    seen_keys: set[str] = field(default_factory=set)
    """Keys of all items, where only some are asked for."""
    labels: LabelLists = field(default_factory=LabelLists)
    parts: NodeParts = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", NodeParts(self.bound, self.world))

    async def world_of(
        self,
        body: Iterable[BoundNode],
        scope: Scope,
        traces: Collection[Trace],
        hashes: Mapping[str, str] = MappingProxyType({}),
    ) -> World:
        """Return the world as these items see it, as `World.prepare`.

        Raises:
            PipelineError: a list of labels is no list of labels.
        """
        choices = {
            self.scopes.list_name(step, field): (step, labels)
            for step in steps_of(body)
            for field, labels in self.labels.known(step, scope).items()
        }
        await self.reviews.load()
        decided, pending = self.reviews.decisions, self.reviews.of_item
        world = replace(self.world, decisions=decided, pending=pending)
        return await world.prepare(traces, hashes, self.bound.roots, choices)

    # --- a block

    async def block(
        self,
        block: BoundBlock,
        scope: Scope,
        outer: Sequence[str] = (),
        lacks: Sequence[LackingItems] = (),
    ) -> BlockWork:
        """Judge every item of a block whose list can be known now.

        1. List the items, with those that were filed and are not done, and their entries.
        2. Their parts: those of the block, then of each item what it reads of that.
        3. Verify each; permit what the run is asked for.
        4. What has work to do, and whose file has not settled, is left for the watch.
        5. Filed items stay so, or are items again, after the others.
        6. Reconcile: what became of those that the list lacks, unless only some are looked at.

        `lacks`: items that were to give more of the list, and failed or wait.

        Raises:
            PipelineError: the list is no list, two items have the same key, or none has one that
                was asked for.
        """
        ledger, scope_id = self.world.index.ledger, self.scopes.id(block.id, outer)
        listing = await self._list(block, scope, scope_id, outer)  # 1
        filing, entries = listing.filing, listing.entries
        request = await self._request(block, outer)
        if not outer:
            request = replace(request, keys=self._requested_keys(block, scope, listing))
        base = canonical_json(await self.parts.of_block(block, scope))  # 2
        past, made_by = PastItems(ledger, scope_id, block), self.parts.made_by(block, base)
        rule = JudgedRule(block, scope_id, scope, past, request, base, made_by)
        for item in listing.items:
            listed = item.item if item.filed is None else filing.described(item.filed)
            is_listed, as_stored = item.key not in listing.results, self.world.index.stored
            rule.set_parts(item, listed, as_stored, is_listed=is_listed)
        await self._verify(rule, listing.items)  # 3
        items = listing.items
        if self.settled_files is not None:  # 4
            if not outer:
                await self.settled_files.read()
            is_unsettled, not_now = self.settled_files.is_unsettled, Case.NOT_REQUESTED
            items = [item for item in items if not (
                (item.verdict.is_work or item.verdict.case is not_now) and is_unsettled(item.item)
            )]  # fmt: skip
        edited_paths = [path for item in items if item.verdict.state is ItemState.HELD
                        for path in item.verdict.edited_paths]  # fmt: skip
        items, filed = await self._verify_filed(rule, items, listing)  # 5
        for index, item in enumerate(items):
            item.index = index
        still_filed = filed.rows.keys() & listing.results
        done = [item.entry for item in items if not item.verdict.is_work]
        looks_at_all = not self.options.leaves_out_items
        work = BlockWork(
            block,
            tuple(outer),
            scope_id,
            tuple(items),
            MissingSources(sources=listing.sources if looks_at_all else ()),
            written_outputs=_written_by(scope_id, [*done, *(entries[key] for key in still_filed)]),
            edited_paths=tuple(edited_paths),
            excluded=listing.excluded,
            unsettled=listing.unsettled(items, still_filed, lacks),
            filed=filed,
            made_by=made_by,
            again=tuple(filing.again),
            names=filing.names,
            renewed=rule.renewed,
        )
        if not looks_at_all:
            return work
        made, present = dict[str, LineageRow](), work.present  # 6
        before = [
            entry
            for entry in entries.values()
            if entry.key not in filed.rows
            and (entry.gone is None or entry.gone in request.job_runs)
        ]
        if any(entry.key not in present for entry in before):
            await past.read()
            made = await ledger.ask(LineageStore(ledger).of_scope, scope_id)
        given = work, before, made, past, self.options, self.world
        missing = await asyncio.to_thread(reconcile, *given)
        for item in items:
            item.renamed_from = was = missing.renamed.get(item.key)
            if was is not None and item.verdict.state is ItemState.NEW:
                is_of_key = past.changes(was).has_other_key
                why = Why.KEY_FROM(was) if is_of_key else Why.RENAMED_FROM(was)
                item.verdict = replace(item.verdict, reasons=(why,))
        return replace(work, missing=missing)

    async def _list(
        self, block: BoundBlock, scope: Scope, scope_id: str, outer: Sequence[str]
    ) -> _BlockList:
        """Return the items of a block, each with its entry; file what left the list since."""
        index, ledger = self.world.index, self.world.index.ledger
        listed, excluded = split_by_where(block, scope, block_list(block, scope))
        whole = await ledger.ask(ListWithFiled.of, block, scope, listed, ledger, scope_id)
        results: Mapping[str, Any] = {}
        if whole is None:
            names = item_keys(block, scope, listed)
        else:
            names, results, excluded = [*whole.keys], whole.filed, whole.excluded
        there = [*raw_item_keys(block, scope, excluded), *results]
        entries = await ledger.ask(ledger.listed_entries, scope_id, [*names, *results])
        sources = tuple(source_folders(self.bound, index, block, scope, scope_id))
        former = () if outer else await ledger.ask(self.scopes.former, self.bound)
        filing = await ledger.ask(BlockFiling, index, scope_id, sources, block, scope, former)
        if filing.unfinished:
            await asyncio.to_thread(filing.look)
        keys = await ledger.ask(filing.keys, names, listed, there, entries)
        found: list[tuple[str, Any, FiledRow | None]]
        found = [(key, item, None) for key, item in zip(keys, listed, strict=True)]
        found += [(key, item, row) for key, (row, item) in filing.moved.items()]
        if numbered := {key for key, *_ in found}.difference(names):
            entries |= await ledger.ask(ledger.entries, scope_id, numbered)
        excluded_keys = frozenset(there).difference(keys, filing.moved, results)
        of_filed = results.keys() - filing.rows.keys() - {key for key, *_ in found}
        found += [(key, results[key], None) for key in results if key in of_filed]
        items = [
            ItemWork(0, key, item, entry=entries.get(key), position=(index, len(found)), filed=row)
            for index, (key, item, row) in enumerate(found)
        ]
        return _BlockList(
            items, frozenset(of_filed), excluded_keys, entries, filing, sources, whole
        )

    # --- verdicts

    async def _verify(self, rule: JudgedRule, items: Sequence[ItemWork]) -> None:
        """Set the verdicts of items."""
        traces = {
            i.key: Trace(rule.scope_id, i.entry, rule.past) for i in items if i.entry is not None
        }
        hashes = {item.key: item.hash for item in items}
        world = await self.world_of(rule.block.body, rule.scope, traces.values(), hashes)
        older = None if self.options.refresh else self.parts.older
        for item in items:
            trace = traces.get(item.key)
            now = ItemNow(item.hash, item.parts, item.item, older, item.key)
            verdict = verify(trace, now, world)
            if trace is not None and (entry := renewed_entry(trace, now, verdict)) is not None:
                rule.renewed.append(entry)
            item.verdict = permit(verdict, trace, now, rule.request)

    async def _verify_filed(
        self, rule: JudgedRule, items: Sequence[ItemWork], listing: _BlockList
    ) -> tuple[list[ItemWork], FiledItems]:
        """Return the items to do, or that are done, and what stays filed."""
        request, filing = rule.request, listing.filing
        if request.keys is not None:
            self.seen_keys.update(listing.results, filing.rows)
        plain = replace(request, takes_over=False, overwrites=False, job_runs=frozenset())
        verify = partial(self._verify, replace(rule, request=plain))
        decided = {key for scope_id, key in self.reviews.items if scope_id == rule.scope_id}
        verdicts = FiledVerdicts(self.world, rule, filing, decided, verify)
        own, filed = await verdicts.split(items, listing.results)
        order = {} if listing.whole is None else listing.whole.order
        listed = (filing.rows.get(item.key) for item in listing.items)
        parts = {row.key: row for row in listed if row is not None and not row.path}
        n = sum(listing.whole is not None or not row.path for row in filed.rows.values())
        return own, replace(filed, n_of_results=n, parts=parts, order=order)

    # --- a step outside of blocks

    async def step(self, step: BoundStep, scope: Scope, outer: Sequence[str] = ()) -> BlockWork:
        """Judge a step outside of blocks that has a trace: a block of one item."""
        scope_id, ledger = self.scopes.id(step.id, outer), self.world.index.ledger
        parts = await self.parts.of_step(step)
        parts.update(self.parts.outer(step.references - step.of_lists, step.shown, scope))
        for whole in with_filed_rows(step, scope).values():
            news = {".".join(path) for path in reads_new_items(step)}
            for name, every in self.parts.outer(step.references, step.shown, whole).items():
                if every != parts[name]:  # its rows have those of filed items, too
                    parts[name] = part_digest([parts[name], every]) if name in news else every
        entries = await ledger.ask(ledger.entries, scope_id)
        text, block = canonical_json(parts), BoundBlock.of_step(step)
        hash_, is_counted = hashlib.sha256(text.encode()).hexdigest(), bool(step.kind.roles)
        item = ItemWork(
            0, step.id, None, NEW, hash_, text, entries.get(step.id), is_counted=is_counted
        )
        request = await self._request(step, outer)
        rule = JudgedRule(block, scope_id, scope, PastItems(ledger, scope_id, step), request)
        await self._verify(rule, [item])
        edited = item.verdict.edited_paths if item.verdict.state is ItemState.HELD else ()
        written = _written_by(scope_id, [None if item.verdict.is_work else item.entry])
        return BlockWork(
            block, tuple(outer), scope_id, (item,), written_outputs=written, edited_paths=edited,
            step=step, renewed=rule.renewed,
        )  # fmt: skip

    def output_path(self, step: BoundStep, scope: Scope) -> str | None:
        """Return the stored path of the file that a step would write; None: it is not known."""
        if not step.facts.writes:
            return None
        try:
            text = Value.of(step.written[step.facts.writes]).render(scope)
            return self.world.index.stored(self.bound.roots.resolve(str(text)))
        except (ExpressionError, OutsideRoots, OSError, RuntimeError, ValueError):
            return None  # a run tells what is wrong

    def keeps(self, step: BoundStep, path: str) -> bool:
        """Return whether what lies there is edited, or not ours, and a run keeps it. Blocking."""
        is_taken = self.options.takes_over or step.written.get("on_edited") == "overwrite"
        reason = None if is_taken else KeptOutput(path, "").look(self.world)
        return reason is not None and reason.why is Why.OUTPUT_EDITED

    # --- what a run is asked for

    async def _request(self, node: BoundNode, outer: Sequence[str]) -> ItemRequest:
        """Return what the run is asked to do with a step, or with all items of a block."""
        options, sample, not_requested = self.options, self.options.sample, NOT_REQUESTED
        job_runs = frozenset[str]()
        if self.job_runs is not None and not outer:  # else the item around it is claimed
            job_runs = await self.job_runs()
        if sample is not None:
            first = Why.NOT_AMONG_FIRST(sample.n_items)
            why = first if sample.is_first else Why.NOT_SAMPLED()
            not_requested = ItemVerdict(ItemState.UNSAMPLED, (why,), Case.NOT_REQUESTED)
        if isinstance(node, BoundBlock):
            nodes = {node.id, *node_ids(node.body)}
            writes = [step for step in all_steps(node.body) if step.facts.writes]
            replaces = [step.written.get("on_edited") == "overwrite" for step in writes]
            overwrites = bool(replaces) and all(replaces)
        else:  # what is to fail on an edited file has to run
            nodes, overwrites = {node.id}, node.written.get("on_edited", "keep") != "keep"
        return ItemRequest(
            is_forced=not options.force.isdisjoint(nodes),
            takes_over=options.takes_over,
            overwrites=overwrites,
            retries_failed=options.retry_failed,
            is_of_step=isinstance(node, BoundStep),
            asks_people=options.review == "ask",
            not_requested=not_requested,
            is_of_variant=bool(options.variant_of),
            job_runs=job_runs,
        )

    def _requested_keys(
        self, block: BoundBlock, scope: Scope, listing: _BlockList
    ) -> frozenset[str] | None:
        """Return the keys of a top-level block's items that the run is asked to do; None: all.

        Naming an item asks for everything within it.
        """
        sample, only = self.options.sample, self.options.only
        if sample is None and not only:
            return None
        listed = [item for item in listing.items if item.key not in listing.results]
        keys = [item.key for item in listed]
        if sample is not None:
            strata = item_strata(block, scope, [item.item for item in listed], sample.by)
            return sample.chosen(keys, strata)
        self.seen_keys.update(keys)
        inner = (step.inner for step in self.bound.nodes if isinstance(step, BoundStep))
        n_blocks = sum(isinstance(node, BoundBlock) for node in self.bound.nodes)
        if not self.scopes.prefix and n_blocks == 1 and all(plan is None for plan in inner):
            self.refuse_unknown_keys()
        return only

    def refuse_unknown_keys(self) -> None:
        """Refuse keys of `options.only` that no item has; call it when all items are known.

        Raises:
            PipelineError: a fault for each, with the nearest key.
        """
        faults = [
            Fault(f"no item has the key '{key}'.", nearest_keys(key, self.seen_keys))
            for key in sorted(self.options.only - self.seen_keys)
        ]
        if faults:
            raise PipelineError(faults)


def _written_by(scope_id: str, entries: Iterable[Entry | None]) -> list[tuple[str, str, str]]:
    found = [(scope_id, e.key, path) for e in entries if e is not None for path in e.output_paths]
    within = (dep for entry in entries for dep in dependencies_of(entry, OutputWithin))
    return [*found, *((dep.scope, dep.key, dep.path) for dep in within)]


def values_digest(item: ItemWork) -> str:
    """Return the digest of the values that a top-level step reads: it has no document."""
    parts: Mapping[str, str] = json.loads(item.parts)
    values = (part for part in map(part_of, parts) if isinstance(part, OuterValue))
    read = {v.name: parts[v.name] for v in values if v.root in ("steps", "inputs")}
    return part_digest(read)


async def changed_since(
    scope_id: str,
    entry: Entry,
    world: World,
    bound: BoundPlan,
    node: BoundNode,
    is_unknown: Callable[[str], bool],
) -> list[Reason]:
    """Return what changed since an item was recorded: of its rule, `node`, and its dependencies.

    It is compared as `verify` does, without a run and without the list of its block.
    What is not known counts as it was: parts of which `is_unknown` says so, what the item was or
    read then, which no rule alone tells, and what was made of a secret then.

    Raises:
        PipelineError: a list of labels is no list of labels.
        EngineError: a model cannot be looked up, or new labels cannot be embedded.
    """
    ledger, scopes = world.index.ledger, PipelineScopes.of(bound, world.index)
    judge = Judge(world, RunReviews(ledger, bound), bound, RunOptions(), scopes)
    trace = Trace(scope_id, entry, PastItems(ledger, scope_id, node))
    scope = Scope.of(bound.inputs, moment=bound.moment)
    world = await judge.world_of([node], scope, [trace])
    before, parts = json.loads(entry.parts), await judge.parts.of(node)
    unknown = {name for name in {**before, **parts} if is_unknown(name)}
    for name in before.keys() - parts.keys():
        if not isinstance(part_of(name), RulePart) or before[name].startswith(KEYED):
            unknown.add(name)
    now = ItemNow("", json.dumps(parts), older=judge.parts.older)
    return differences(trace, now, world, unknown)
