"""What must be done, and why: a bound pipeline's items compared with their ledger entries.

Reads the ledger and the file system; runs nothing. Blocks are judged one by one, since a block's
list may be the output of an earlier step.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial
from types import MappingProxyType

from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import canonical_json
from paddock.pipelines.expressions import ExpressionError
from paddock.runner.answers.offered_labels import LabelLists
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundPlan, BoundStep, ListOrigin
from paddock.runner.bind.node_reads import read_by
from paddock.runner.bind.plan_walks import all_steps, callable_names, origin_of, steps_of
from paddock.runner.bind.scope import Scope
from paddock.runner.folders.unfinished_files import RunnableVersions
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.entries import Entry, LineageRow
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Reason, Why
from paddock.steps.base import OutsideRoots
from paddock.steps.effects import OutputEffect

from .left_nodes import LackingItems
from .requested_items import RequestedItems
from .reviews.run_reviews import RunReviews
from .run_options import RunOptions
from .traces.block_items import is_file_value, listed_items
from .traces.block_work import BlockWork, FiledItems, ItemWork, JudgedRule
from .traces.dependencies import KeptOutput, Trace
from .traces.document_places import Document
from .traces.filed_items import BlockListing, FiledDocuments
from .traces.node_parts import NodeParts
from .traces.parts import KEYED, Part, RulePart, parts_hash, parts_of
from .traces.past_items import PastItems
from .traces.preparation import prepare
from .traces.reconcile import reconcile
from .traces.scopes import PipelineScopes
from .traces.source_folders import MissingSources, source_folders
from .traces.verdicts import Case, ItemVerdict
from .traces.verify import CurrentItem, differences, permit, renewed_entry, verify
from .traces.world import PreparedWorld, World

DONE_WITHIN = ItemVerdict(ItemState.STALE, (Why.DONE_WITHIN(),), Case.DEPENDENCY)
"""Verdict on an item that is older than what was done within it: a run ended between."""


class Judge(Struct, kw_only=True, eq=False, dict=True):
    """Judges the items of one pipeline; that of an inner one is a copy with another `bound`."""

    world: World
    reviews: RunReviews
    bound: BoundPlan
    options: RunOptions
    scopes: PipelineScopes
    job_runs: Callable[[], frozenset[str]] | None = None
    """Returns the runs of the same job, this one included, and those before a crash."""
    runnable_versions: RunnableVersions | None = None
    """Of a run that a watch started: what it passes on later."""
    seen_keys: set[str] = field(default_factory=set)
    """Keys of all items, where only some are asked for."""
    labels: LabelLists = field(default_factory=LabelLists)

    @cached_property
    def parts(self) -> NodeParts:
        return NodeParts(self.bound, self.world)

    @cached_property
    def requested(self) -> RequestedItems:
        options, seen, inner = self.options, self.seen_keys, bool(self.scopes.prefix)
        return RequestedItems(self.bound, options, seen, self.job_runs, is_inner=inner)

    async def world_of(
        self,
        body: Iterable[BoundNode],
        scope: Scope,
        traces: Collection[Trace],
        hashes: Mapping[str, str] = MappingProxyType({}),
    ) -> PreparedWorld:
        """Return the world as these items see it, as `prepare`.

        Raises:
            PipelineError: a list of labels is no list of labels.
        """
        choices = {
            self.scopes.list_name(step, field): (step, labels)
            for step in steps_of(body)
            if step.reply is not None
            for field, labels in self.labels.known(step, scope).items()
        }
        await self.reviews.load()
        world = replace(self.world, decisions=self.reviews.decisions, pending=self.reviews.of_item)
        return await prepare(world, traces, hashes, self.bound.roots, choices)

    # --- a block

    async def block(
        self,
        block: BoundBlock,
        scope: Scope,
        keys_around: Sequence[str] = (),
        lacks: Sequence[LackingItems] = (),
    ) -> BlockWork:
        """Judge every item of a block whose list can be known now.

        1. List the items, and file those that left the list.
        2. Make their parts: those that all share, then those of each item.
        3. Verify each, and filed ones that may be items again; permit what the run is asked for.
        4. Leave items that have work to do, and whose file has not settled, for the watch.
        5. Filed items stay so, or are items again, after the others.
        6. Reconcile: decide what became of items that the list lacks, unless a run looks at some.

        `lacks`: items that were to give more of the list, and failed or wait.

        Raises:
            PipelineError: the list is no list, two items have the same key, or none has one that
                was asked for.
        """
        listed, documents, entries = self._listed(block, scope, keys_around, lacks)  # 1
        rule = await self._rule(listed, scope)  # 2
        scope_id, of_list = rule.scope_id, listed.items
        values = [(item, item.value) for item in of_list]
        if documents is not None:
            places, rows = documents.places, documents.rows.values()
            values = [(i, places.as_listed(i.filed) if i.filed else v) for i, v in values]
            self.reviews.contents |= {(scope_id, row.key): row.sha256 for row in rows}
        files = ((item.key, value) for item, value in values if is_file_value(value))
        self.reviews.contents |= {(scope_id, key): value["sha256"] for key, value in files}
        rule.set_parts(values, self.world.index.stored)
        doubtful: Sequence[ItemWork] = ()
        if documents is not None and documents.rows:
            self.seen_keys.update(documents.rows if rule.request.keys is not None else ())
            await self.reviews.load()
            decided = {key for scope, key in self.reviews.items if scope == scope_id}
            doubtful = documents.items_to_verify(rule, of_list, decided)
        unknown = (item for item in doubtful if item.verdict.case is Case.NEW)
        world = await self._verify(rule, [*of_list, *unknown])  # 3
        newest: Mapping[str, float] = {}
        if documents is not None:
            newest = newest_within(block, keys_around, self.scopes)
        for item in of_list if newest else ():
            if rule.request.asks_for(item.key) and is_older(item, newest):
                item.verdict = DONE_WITHIN
        items, filed = [*of_list], FiledItems()
        if (versions := self.runnable_versions) is not None:  # 4
            if not keys_around:
                versions.read()
            due = (i for i in items if i.verdict.is_work or i.verdict.case is Case.NOT_REQUESTED)
            left = {item.key for item in due if versions.is_unsettled(item.value)}
            items = [item for item in items if item.key not in left]
        if documents is not None:  # 5
            items, filed = await asyncio.to_thread(
                documents.items_and_filed, rule, world, items, doubtful, newest
            )
        for place, item in enumerate(items):
            item.index = place
            if not item.is_listed:  # filed, and done again: behind what is listed
                item.position = (place, len(items))
        work = replace(
            listed,
            items=tuple(items),
            unsettled=listed.unsettled - {item.key for item in items},
            filed=filed,
            rule_digest=rule.rule_digest,
            renewed=rule.renewed,
        )
        if self.options.leaves_out_items:
            return work
        return await self._reconciled(work, entries, rule)  # 6

    def _listed(
        self,
        block: BoundBlock,
        scope: Scope,
        keys_around: Sequence[str],
        lacks: Sequence[LackingItems],
    ) -> tuple[BlockWork, FiledDocuments | None, dict[str, Entry]]:
        """Return the items of a block, not judged yet, its filed documents, and its entries.

        What left the list since is filed. None: nothing can be.
        """
        index, ledger = self.world.index, self.world.ledger
        scope_id = self.scopes.register(block.id, keys_around)
        origin = origin_of(self.bound, block, read_by(block.over, block.where))
        is_of_results = ListOrigin.RESULTS in origin and self._files_documents()
        known = partial(ledger.entries, scope_id) if is_of_results else None
        names, values, excluded = listed_items(block, scope, known)
        entries = ledger.listed_entries(scope_id, names)
        sources = source_folders(self.bound, index, block, scope, scope_id)
        former = () if keys_around else self.scopes.former(self.bound)

        def may_lack(key: str, keys: Collection[str]) -> bool:
            return any(lack and lack.may_be_of(key, keys) for lack in lacks)

        listing = BlockListing(
            block=block,
            scope=scope,
            scope_id=scope_id,
            sources=sources,
            is_of_results=is_of_results,
            may_lack=may_lack,
            undone=frozenset[Document]().union(*(lack.documents for lack in lacks)),
        )
        documents = None
        may_have_filed = listing.may_have_filed(ledger)
        if former or may_have_filed:
            documents = FiledDocuments(index, listing, former)
            items = documents.items(names, values, excluded, entries)
        else:
            pairs = zip(names, values, strict=True)
            items = [ItemWork(key=name, name=name, value=value) for name, value in pairs]
        keys = {item.key for item in items}
        if numbered := keys.difference(names):
            entries |= ledger.entries(scope_id, numbered)
        for place, item in enumerate(items):
            item.entry, item.position = entries.get(item.key), (place, len(items))
        if documents is not None and is_of_results and ListOrigin.FOLDERS not in origin:
            documents.leave_out_unlisted(keys)
        later = {  # which may be listed again, once the list lacks nothing
            key
            for key, entry in (entries.items() if lacks else ())
            if entry.gone is None and may_lack(key, keys)
        }
        work = BlockWork(
            block=block,
            keys_around=tuple(keys_around),
            scope_id=scope_id,
            items=tuple(items),
            missing=MissingSources(sources=() if self.options.leaves_out_items else sources),
            excluded=excluded.difference(keys),
            unsettled=frozenset(item.key for item in items) | later.difference(excluded),
        )
        return work, documents, entries

    async def _rule(self, listed: BlockWork, scope: Scope) -> JudgedRule:
        block, keys_around = listed.block, listed.keys_around
        request = self.requested.of(block, keys_around)
        if not keys_around:
            keys = self.requested.keys(block, scope, listed.items)
            request = replace(request, keys=keys)
            self.world.seen.listed.clear()  # the steps before it may have written there
        base = canonical_json(await self.parts.of(block, scope))
        return JudgedRule(
            block=block,
            scope_id=listed.scope_id,
            scope=scope,
            past=PastItems(self.world.ledger, listed.scope_id, block),
            request=request,
            base=base,
            rule_digest=self.parts.rule_digest(block, base),
        )

    def _files_documents(self) -> bool:
        """Return whether documents leave the folders in which they are listed, once done."""
        steps, watches = all_steps(self.bound.nodes), self.bound.watches
        moves = any(step.takes_document for step in steps)
        return moves or bool(self.scopes.prefix) or any(w.keys.claim == "move" for w in watches)

    async def _reconciled(
        self, work: BlockWork, entries: Mapping[str, Entry], rule: JudgedRule
    ) -> BlockWork:
        lineage, present, ledger = dict[str, LineageRow](), work.present, self.world.ledger
        before = [
            entry
            for entry in entries.values()
            if entry.key not in work.filed.rows
            and (entry.gone is None or entry.gone in rule.request.job_runs)
        ]
        if any(entry.key not in present for entry in before):
            rule.past.read()
            lineage = LineageStore(ledger).of_scope(rule.scope_id)
        missing = await asyncio.to_thread(
            reconcile, work, before, lineage, rule.past, self.options, self.world
        )
        for item in work.items:
            item.renamed_from = was = missing.renamed.get(item.key)
            if was is not None and item.verdict.state is ItemState.NEW:
                is_of_key = rule.past.changes(was).has_other_key
                why = Why.KEY_FROM(was) if is_of_key else Why.RENAMED_FROM(was)
                item.verdict = replace(item.verdict, reasons=(why,))
        return replace(work, missing=missing)

    # --- verdicts

    async def _verify(self, rule: JudgedRule, items: Sequence[ItemWork]) -> PreparedWorld:
        known = [(item, item.entry) for item in items if item.entry is not None]
        if other := [i.key for i, entry in known if not entry.parts and entry.hash != i.hash]:
            with_parts = self.world.ledger.entries(rule.scope_id, other)
            for item in items:
                item.entry = with_parts.get(item.key, item.entry)
        traces = {
            i.key: Trace(rule.scope_id, i.entry, rule.past) for i in items if i.entry is not None
        }
        hashes = {item.key: item.hash for item in items}
        world = await self.world_of(rule.block.body, rule.scope, traces.values(), hashes)
        older = None if self.options.refresh else self.parts.older
        # What was edited, or a run before a crash did, makes no filed one an item again.
        of_filed = replace(rule.request, takes_over=False, overwrites=False, job_runs=frozenset())
        for item in items:
            trace = traces.get(item.key)
            now = CurrentItem(item.hash, item.parts, item.value, older, item.key)
            verdict = verify(trace, now, world)
            if trace is not None and (entry := renewed_entry(trace, now, verdict)) is not None:
                rule.renewed.append(entry)
            item.verdict = permit(verdict, trace, now, rule.request if item.is_listed else of_filed)
        return world

    # --- a step outside of blocks

    async def step(
        self, step: BoundStep, scope: Scope, keys_around: Sequence[str] = ()
    ) -> BlockWork:
        scope_id, ledger = self.scopes.register(step.id, keys_around), self.world.ledger
        parts = await self.parts.of(step, scope)
        entries = ledger.entries(scope_id)
        item = ItemWork(key=step.id, name=step.id, value=None, entry=entries.get(step.id))
        item.own_parts, item.is_counted = canonical_json(parts), bool(step.kind.roles)
        item.hash = parts_hash(item.own_parts)
        request, block = self.requested.of(step, keys_around), BoundBlock.of_step(step)
        past = PastItems(ledger, scope_id, step)
        rule = JudgedRule(block=block, scope_id=scope_id, scope=scope, past=past, request=request)
        await self._verify(rule, [item])
        return BlockWork(
            block=block,
            keys_around=tuple(keys_around),
            scope_id=scope_id,
            items=(item,),
            step=step,
            renewed=rule.renewed,
        )

    def output_path(self, step: BoundStep, scope: Scope) -> str | None:
        effect = next((each for each in step.effects if isinstance(each, OutputEffect)), None)
        if effect is None:
            return None
        try:
            text = str(effect.value.render(scope))
            is_file = effect.is_path
            path = self.bound.roots.resolve(text) if is_file else effect.forecast(text, "")
            return self.world.index.stored(path)
        except (ExpressionError, OutsideRoots, OSError, RuntimeError, ValueError):
            return None  # a run tells what is wrong

    def keeps_file(self, step: BoundStep, path: str) -> bool:
        """Return whether what lies there is edited, or not ours, and a run keeps it. Blocking."""
        is_taken = self.options.takes_over or step.written.get("on_edited") == "overwrite"
        reason = None if is_taken else KeptOutput(path, "").find_change(self.world)
        return reason is not None and reason.why is Why.OUTPUT_EDITED


def newest_within(
    block: BoundBlock, keys_around: Sequence[str], scopes: PipelineScopes
) -> Mapping[str, float]:
    """Return by key when the last item within an item was done, where documents are filed there.

    An item that is older than that: a run ended between. What it lists is as it was.
    """
    nested = list[BoundStep]()
    for node in block.body:
        if isinstance(node, BoundBlock):
            nested += all_steps(node.body)
        elif node.inner is not None:
            nested += all_steps(node.inner.nodes)
    if not any(step.takes_document for step in nested):
        return {}
    names, n_around = {*callable_names(block.body)}, len(keys_around)
    newest: dict[str, float] = {}
    for scope_id, name, keys in scopes.known():
        if name in names and keys[:n_around] == tuple(keys_around) and len(keys) > n_around:
            ((at,),) = scopes.index.ledger.rows(queries.LAST_DONE, scope=scope_id)
            newest[keys[n_around]] = max(newest.get(keys[n_around], 0.0), at or 0.0)
    return newest


def is_older(item: ItemWork, newest: Mapping[str, float]) -> bool:
    """Return whether an item that would stay as it is was done before what is within it."""
    at = None if item.entry is None or not item.verdict.is_up_to_date else item.entry.at
    return at is not None and at < newest.get(item.key, 0.0)


async def all_differences(
    trace: Trace,
    world: World,
    bound: BoundPlan,
    node: BoundNode,
    scopes: PipelineScopes,
    is_unknown: Callable[[Part], bool],
) -> tuple[Sequence[Reason], Sequence[Reason]]:
    """Return what changed since an item was recorded: of its rule, `node`, and its dependencies.

    It is compared as `verify` does, without a run and without the list of its block.
    What is not known counts as it was: parts of which `is_unknown` says so, what the item was or
    read then, which no rule alone tells, and what was made of a secret then.

    Raises:
        PipelineError: a list of labels is no list of labels.
        EngineError: a model cannot be looked up, or new labels cannot be embedded.
    """
    reviews, options = RunReviews(world.ledger, bound), RunOptions()
    judge = Judge(world=world, reviews=reviews, bound=bound, options=options, scopes=scopes)
    scope = Scope.of(bound.inputs, moment=bound.moment)
    prepared = await judge.world_of([node], scope, [trace])
    before, parts = json.loads(trace.entry.parts), await judge.parts.of(node, scope)
    unknown = set[str]()
    for part in parts_of({**before, **parts}):
        is_untold = not isinstance(part, RulePart) or before.get(part.name, "").startswith(KEYED)
        if is_unknown(part) or (part.name not in parts and is_untold):
            unknown.add(part.name)
    now = CurrentItem("", json.dumps(parts), older=judge.parts.older)
    return differences(trace, now, prepared, unknown)
