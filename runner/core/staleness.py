"""What must be done, and why: a bound pipeline's items compared with their ledger entries.

Reads the ledger and the file system; runs nothing. Blocks are judged one by one, since a block's
list may be the output of an earlier step.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from paddock.engine.sampling.json_schema import json_pointer
from paddock.engine.system.text import canonical_json
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.label_choices import FieldPath, LabelList
from paddock.runner.answers.offered_labels import LabelLists, label_texts
from paddock.runner.answers.text_vectors import unit_matrix
from paddock.runner.bind.bound import (
    BoundBlock,
    BoundNode,
    BoundPlan,
    BoundStep,
    all_steps,
    callable_names,
    node_ids,
    steps_of,
)
from paddock.runner.bind.scope import Scope
from paddock.runner.folders.unfinished_files import SettledFiles, is_watch_trigger
from paddock.runner.ledger import queries
from paddock.runner.ledger.entries import Entry, LineageRow
from paddock.runner.ledger.filed_rows import FiledRow
from paddock.runner.ledger.lineage_rows import LineageStore
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.progress.item_states import WHOLE, ItemState
from paddock.runner.progress.reasons import Why
from paddock.steps.base import Vector
from paddock.steps.vectors.open_stores import OpenStores

from .block_items import (
    AsStored,
    block_list,
    item_content,
    item_keys,
    item_strata,
    kind_suffix,
    loop_value,
    nearest_keys,
    path_and_time,
    raw_item_keys,
    split_by_where,
    without_time,
)
from .block_work import BlockWork, ItemWork, OuterPipelines
from .dependencies import (
    FileRead,
    LabelVectors,
    MovedAway,
    NarrowedLabels,
    OutputWithin,
    Trace,
    World,
    dependencies_of,
)
from .filed_items import BlockFiling, FiledItems, ListWithFiled, reads_new_items, with_filed_rows
from .left_nodes import LackingItems
from .model_digests import ModelDigests
from .node_parts import NodeParts, read_by_all
from .parts import CONTENT, PLACE_IN_LIST, SUFFIX, OuterValue, ordered_digest, part_digest, part_of
from .past_items import PastItems
from .reconcile import reconcile
from .run_options import RunOptions
from .run_reviews import RunReviews
from .source_folders import MissingSources, source_folders
from .verify import (
    NEW,
    Filing,
    ItemNow,
    ItemRequest,
    ItemVerdict,
    permit,
    renewed_entry,
    verify,
    verify_filed,
)

NOT_REQUESTED = ItemVerdict(ItemState.SKIPPED, (Why.NOT_REQUESTED(),), is_left_out=True)


@dataclass(frozen=True, slots=True)
class _JudgedBlock:
    """What the items of a block have in common."""

    block: BoundBlock
    scope: str
    base: str
    """The parts of the items' hash that all share: a JSON object."""
    past: PastItems
    requested: frozenset[str] | None
    """Keys of the items that the run is asked to do; None: all."""
    request: ItemRequest
    """Of an item that is asked for."""
    as_stored: AsStored
    renewed: list[Entry]
    """As `BlockWork.renewed`."""

    def work(
        self, key: str, shown: Any, entry: Entry | None, place: tuple[int, int] | None = None
    ) -> ItemWork:
        """Return an item that is not judged yet; `shown`: as it was when it was listed.

        The parts of its hash are JSON: for 10,000 items, so text is joined. Without a `place` in
        the list, that which it had counts.
        """
        block, read, attributes = self.block, "", self.block.item_attributes
        if block.loop_attributes:
            loop = loop_value(*(place or (0, 1)))
            digest = part_digest({key: loop[key] for key in block.loop_attributes})
            if place is None and entry is not None:
                digest = json.loads(entry.parts).get(PLACE_IN_LIST.name, "")
            read = f'"{PLACE_IN_LIST.name}":"{digest}",'
        for name, value in path_and_time(shown, block.var, block.shown, self.as_stored).items():
            read += f'"{name}":"{part_digest(value)}",'
        if (suffix := kind_suffix(shown, key, attributes)) is not None and block.key is not None:
            read += f'"{SUFFIX.name}":"{part_digest(suffix)}",'
        content = ordered_digest(item_content(shown, without_time(attributes)))
        parts = f'{{"{CONTENT.name}":"{content}",{read}{self.base[1:]}'
        hash_ = hashlib.sha256(parts.encode()).hexdigest()
        return ItemWork(0, key, shown, NEW, hash_, parts, entry, place or (0, 1))


EmbedLabels = Callable[[BoundStep, Sequence[str]], Awaitable[tuple[str, Sequence[Vector]] | None]]
"""Returns the identity of a step's embedding model, and vectors; None: these are not known."""


class Judge:
    """Judges the items of one run or plan."""

    def __init__(
        self,
        bound: BoundPlan,
        options: RunOptions,
        index: OutputIndex,
        digests: ModelDigests,
        stores: OpenStores | None = None,
        job_runs: Callable[[], Awaitable[frozenset[str]]] | None = None,
    ) -> None:
        """`job_runs` returns the other runs of the job: before a crash, or on other machines."""
        self.bound = bound
        self.options = options
        self.index = index
        self.ledger = index.ledger
        self.world = World(index, stores or OpenStores(Path(index.absolute(""))))
        self.seen_keys: set[str] = set()
        """Keys of all items, where only some are asked for."""
        self._digests = digests
        self.parts = NodeParts(bound, index, digests, self.world.digest)
        self._outer = OuterPipelines(bound.file.name, "", ())
        self._job_runs = job_runs
        watches = is_watch_trigger(options.trigger)
        self._settled_files = SettledFiles(bound, self.ledger) if watches else None
        n_blocks = sum(isinstance(node, BoundBlock) for node in bound.nodes)
        inner = (step.inner for step in bound.nodes if isinstance(step, BoundStep))
        self._is_only_block = n_blocks == 1 and all(plan is None for plan in inner)
        self.reviews = RunReviews(index.ledger, bound, options.review)
        self.labels = LabelLists()
        self.embed_labels: EmbedLabels | None = None
        """Embeds labels that are new to a list; a plan has only vectors that the ledger knows."""

    # --- scopes

    def scope_id(self, step: str, outer: Sequence[str] = ()) -> str:
        """Return the scope of a step; `outer` are the keys of the items around a nested block."""
        file, step = self._outer.file, f"{self._outer.steps}{step}"
        inputs = canonical_json([*self._outer.places, self.place(), *outer])
        scope = hashlib.sha256(f"{file}\n{step}\n{inputs}".encode()).hexdigest()
        if scope not in self.index.own_scopes:
            self.index.own_scopes.add(scope)
            self.ledger.record_scope(scope, file, step, inputs)
        return scope

    def within(self, step: str, bound: BoundPlan, options: RunOptions, *, is_nested: bool) -> Judge:
        """Return a sub-pipeline's judge; `is_nested`: the step runs for one item of a block."""
        made, place = copy(self), self.scopes_within
        made.bound, made.options, made._is_only_block = bound, options, False
        made._job_runs = None if is_nested else self._job_runs
        made._outer = replace(place, steps=f"{place.steps}{step}.")
        made.parts = NodeParts(bound, self.index, self._digests, self.world.digest)
        made.parts.secrets = self.parts.secrets
        return made

    def _former_scopes(self) -> list[str]:
        """Return the scopes of blocks that the pipeline no longer has, in the same folders."""
        prefix, names = self._outer.steps, {*callable_names(self.bound.nodes)}
        inputs = canonical_json([*self._outer.places, self.place()])
        at = {"file": self._outer.file, "inputs": inputs}
        rows = self.ledger.rows(queries.SCOPES_OF_FOLDERS, **at)
        return [s for s, n in rows if n.startswith(prefix) and n.removeprefix(prefix) not in names]

    @property
    def scopes_within(self) -> OuterPipelines:
        """What the scopes of this pipeline's steps, and of those within them, begin with."""
        outer = self._outer
        return OuterPipelines(outer.file, outer.steps, (*outer.places, self.place()))

    def list_name(self, step: BoundStep, field: FieldPath) -> str:
        """Return the name of the list that a step's field is chosen from, in marks and specs."""
        return f"{self._outer.steps}{step.id}{json_pointer(field)}"

    async def world_of(
        self,
        body: Iterable[BoundNode],
        scope: Scope,
        traces: Collection[Trace],
        hashes: Mapping[str, str] = MappingProxyType({}),
    ) -> World:
        """Return the world as these items see it, which has been looked at.

        `hashes`: of the items now, by key; of what has another one, more is read.

        Raises:
            PipelineError: a list of labels is no list of labels.
            EngineError: the labels that are new to a list cannot be embedded.
        """
        await self.world.prepare(traces, hashes, self.bound.roots)
        await self.reviews.load()
        lists: dict[str, LabelList] = {}
        vectors: dict[str, LabelVectors] = {}
        narrowed = [t for t in traces if any(isinstance(d, NarrowedLabels) for d in t.dependencies)]
        for step in steps_of(body):
            for field, found in self.labels.known(step, scope).items():
                name = self.list_name(step, field)
                lists[name] = found
                former = (trace.past.lists(trace.entry.key).get(name) for trace in narrowed)
                before = {id(old): old for old in former if old is not None}  # most have the same
                new = found.new_to(before.values())
                embed = self.embed_labels if new else None
                made = await embed(step, label_texts(new)) if embed is not None else None
                if made is not None:
                    vectors[name] = LabelVectors([*new], made[0], unit_matrix(made[1]))
        decided, pending = self.reviews.decisions, self.reviews.of_item
        return replace(
            self.world, lists=lists, label_vectors=vectors, decisions=decided, pending=pending
        )

    def place(self) -> dict[str, str]:
        """Return the `dir` and `path` inputs, relative to the pipeline where they lie beside it."""
        places = self.bound.folder_inputs
        return {name: self.index.stored(places[name]) for name in sorted(places)}

    # --- blocks and steps

    async def block(
        self,
        block: BoundBlock,
        scope: Scope,
        outer: Sequence[str] = (),
        lacks: Sequence[LackingItems] = (),
    ) -> BlockWork:
        """Judge every item of a block whose list can be known now.

        `lacks`: items that were to give more of the list, and failed or wait.

        Raises:
            PipelineError: the list is no list, two items have the same key, or none has one that
                was asked for.
        """
        scope_id = self.scope_id(block.id, outer)
        listed, left = split_by_where(block, scope, block_list(block, scope))
        whole = await self.ledger.ask(ListWithFiled.of, block, scope, listed, self.ledger, scope_id)
        filed: Mapping[str, Any] = {}
        if whole is None:
            names = item_keys(block, scope, listed)
        else:
            names, left, filed = [*whole.keys], whole.left_out, whole.filed
        kept = [*raw_item_keys(block, scope, left), *filed]
        entries = await self.ledger.ask(self.ledger.listed_entries, scope_id, [*names, *filed])
        sources = tuple(source_folders(self.bound, self.index, block, scope, scope_id))
        former = () if outer else await self.ledger.ask(self._former_scopes)
        filing = await self.ledger.ask(
            BlockFiling, self.index, scope_id, sources, block, scope, former
        )
        keys = await self.ledger.ask(filing.keys, names, listed, kept, entries)
        listed = [*listed, *(value for _, value in filing.left.values())]
        keys += filing.left
        if numbered := set(keys).difference(names):
            entries |= await self.ledger.ask(self.ledger.entries, scope_id, numbered)
        named = None if outer else self._requested_keys(block, scope, keys, listed)
        others = {key: filed[key] for key in filed.keys() - filing.rows.keys() - {*keys}}
        if named is not None:
            self.seen_keys.update(others)
        base = canonical_json(await self.parts.of_block(block, scope))
        made_by = self.parts.made_by(block, base)
        job = frozenset[str]() if outer else await self.job_runs()
        if self._settled_files is not None and not outer:
            await self._settled_files.read()
        past, place = PastItems(self.ledger, scope_id, block), self.index.stored
        request = self._request({block.id, *node_ids(block.body)}, job)
        request = replace(request, takes_over=_overwrites(block) or self.options.takes_over)
        judged = _JudgedBlock(block, scope_id, base, past, named, request, place, [])
        items, n = list[ItemWork](), len(listed) + len(others)
        for number, (key, item) in enumerate([*zip(keys, listed, strict=True), *others.items()]):
            row = filing.left[key][0] if key in filing.left else None
            shown, entry = item if row is None else filing.described(row), entries.get(key)
            items.append(judged.work(key, shown, entry, None if key in others else (number, n)))
            items[-1].item, items[-1].place, items[-1].filed = item, (number, n), row
        await self._judge(judged, items, scope)
        if (unfinished := self._settled_files) is not None:  # the watch passes it on when settled
            items = [item for item in items if not (
                (item.verdict.is_work or item.verdict.is_left_out) and unfinished.is_left(item.item)
            )]  # fmt: skip
        held = [path for item in items if item.verdict.state is ItemState.HELD
                for path in item.verdict.kept]  # fmt: skip
        items, filed_now = await self._judge_filed(judged, items, scope, others, filing, made_by)
        for index, item in enumerate(items):
            item.index = index
        done = filed_now.rows.keys() & others.keys()
        found = replace(
            filed_now,
            n_of_results=sum(whole is not None or not row.path for row in filed_now.rows.values()),
            parts={k: row for k in keys if (row := filing.rows.get(k)) and not row.path},
            places={} if whole is None else whole.places,
        )
        fresh = [item.entry for item in items if not item.verdict.is_work]
        fresh += [entries[key] for key in done]
        later = {  # what may be listed again once what the list lacks is there
            key
            for key, entry in (entries.items() if lacks else ())
            if entry.gone is None and any(lack.may_be_of(key, keys) for lack in lacks)
        }.difference(kept)
        work = BlockWork(
            block,
            tuple(outer),
            scope_id,
            tuple(items),
            MissingSources() if self.options.leaves_out_items else MissingSources(sources=sources),
            claims=_written_by(scope_id, fresh),
            held=tuple(held),
            left_out=frozenset(kept).difference(keys, filed),
            unsettled=frozenset((*keys, *others, *later)).difference(
                done, (item.key for item in items)
            ),
            filed=found,
            made_by=made_by,
            again=tuple(filing.again),
            names=filing.names,
            renewed=judged.renewed,
        )
        if self.options.leaves_out_items:
            return work
        before = [
            entry
            for entry in entries.values()
            if entry.key not in found.rows and (entry.gone is None or entry.gone in job)
        ]
        present = work.left_out.union(work.unsettled, (item.key for item in items))
        made: Mapping[str, LineageRow] = {}
        if any(entry.key not in present for entry in before):
            await past.read()
            made = await self.ledger.ask(LineageStore(self.ledger).made_of, scope_id)
        given = work, before, made, past, self.options, self.world
        missing = await asyncio.to_thread(reconcile, *given)
        for item in items:
            item.renamed_from = was = missing.renamed.get(item.key)
            if was is not None and item.verdict.state is ItemState.NEW:
                is_of_key = past.changes(was).has_other_key
                why = Why.KEY_FROM(was) if is_of_key else Why.RENAMED_FROM(was)
                item.verdict = replace(item.verdict, reasons=(why,))
        return replace(work, missing=missing)

    def _requested_keys(
        self, block: BoundBlock, scope: Scope, keys: Sequence[str], listed: Sequence[Any]
    ) -> frozenset[str] | None:
        """Return the keys of a top-level block's items that the run is asked to do; None: all.

        Naming an item asks for everything within it.
        """
        sample, only = self.options.sample, self.options.only
        if sample is not None:
            return sample.chosen(keys, item_strata(block, scope, listed, sample.by))
        if not only:
            return None
        self.seen_keys.update(keys)
        if self._is_only_block:
            self.refuse_unknown_keys()
        return only

    async def _judge(self, block: _JudgedBlock, items: Sequence[ItemWork], scope: Scope) -> None:
        """Set the verdicts of items."""
        traces = {
            i.key: Trace(block.scope, i.entry, block.past) for i in items if i.entry is not None
        }
        hashes = {item.key: item.hash for item in items}
        world = await self.world_of(block.block.body, scope, traces.values(), hashes)
        not_asked_for = replace(block.request, is_asked_for=False, is_forced=False)
        not_asked_for = replace(not_asked_for, takes_over=_overwrites(block.block))
        older = None if self.options.refresh else self.parts.older
        for item in items:
            is_asked_for = block.requested is None or item.key in block.requested
            request = block.request if is_asked_for else not_asked_for
            trace, now = traces.get(item.key), ItemNow(item.hash, item.parts, item.item, older)
            verdict = verify(trace, now, world)
            if trace is not None and (entry := renewed_entry(trace, now, verdict)) is not None:
                block.renewed.append(entry)
            item.verdict = permit(verdict, trace, now, request)

    async def _judge_filed(
        self,
        block: _JudgedBlock,
        items: Sequence[ItemWork],
        scope: Scope,
        others: Collection[str],
        filing: BlockFiling,
        made_by: str,
    ) -> tuple[list[ItemWork], FiledItems]:
        """Return the items to do, or that are done, with those read again where they lie.

        And what is filed and not among them.
        """
        # Items over results of filed ones, which the run's own list does not have
        done, own, earlier = dict[str, FiledRow](), list[ItemWork](), set[str]()
        by_all = {self.index.stored(self.index.absolute(p)) for p in read_by_all(block.block)}
        for item in items:
            becomes, entry = Filing.AGAIN, item.entry
            if item.key in others:
                is_same, can_repeat = item.unchanged_entry is not None, self._can_repeat
                becomes = verify_filed(item.verdict, is_same, partial(can_repeat, item, by_all))
            if becomes is Filing.AGAIN or entry is None:
                own.append(item)
                continue
            result = (entry.returns, entry.returns_object)
            done[item.key] = FiledRow(item.key, item.key, "", "", None, False, "", "", *result)
            earlier |= {item.key} if becomes is Filing.EARLIER else set()
        # Items whose documents were filed
        present = {item.key for item in own}
        rows = {key: row for key, row in filing.rows.items() if key not in present}
        new = {key: row for key, row in filing.new.items() if key not in present}
        is_forced, requested = block.request.is_forced, block.requested
        pending = {key for scope, key in self.reviews.places if scope == block.scope}
        doubtful = [
            row
            for row in rows.values()
            if row.path and (is_forced or row.made_by != made_by or row.key in pending)
        ]
        if requested is not None:
            self.seen_keys.update(rows)
            doubtful = [row for row in doubtful if row.key in requested]
        keys = [row.key for row in doubtful]
        entries = await self.ledger.ask(self.ledger.entries, block.scope, keys) if keys else {}
        again, unverified = list[ItemWork](), list[ItemWork]()
        for row in doubtful:
            entry = entries.get(row.key)
            again.append(block.work(row.key, filing.described(row), entry))
            is_known = row.outdated_by == made_by and (entry is None or entry.state in WHOLE)
            if is_known and not is_forced and row.key not in pending:
                again[-1].verdict = ItemVerdict(ItemState.STALE, (Why.EARLIER_VERSION(),))
            else:
                unverified.append(again[-1])
        if unverified:
            request = replace(block.request, takes_over=False, job_runs=frozenset())
            await self._judge(replace(block, request=request), unverified, scope)
        # Others of that name write the same outputs, as far as these go by the name.
        by_age = sorted(rows.values(), key=lambda row: (len(row.key), row.key)) if again else ()
        latest = {row.name: row.key for row in by_age if row.name not in present}

        def lies_there(item: ItemWork, row: FiledRow) -> bool:
            item.item = filing.value(row) if latest.get(row.name) == row.key else None
            return item.item is not None

        for item, row in zip(again, doubtful, strict=True):
            is_same, item.filed = row.made_by == made_by, row
            becomes = verify_filed(item.verdict, is_same, partial(lies_there, item, row))
            if becomes is Filing.AGAIN:
                filing.names[row.key] = row.name
                own.append(item)
            elif becomes is Filing.EARLIER:
                earlier.add(row.key)
                if row.outdated_by != made_by:
                    rows[row.key] = new[row.key] = row._replace(outdated_by=made_by)
            elif not is_same:
                rows[row.key] = new[row.key] = row._replace(made_by=made_by, outdated_by="")
        away = await asyncio.to_thread(filing.away)
        away -= {item.key for item in own}
        rows |= done
        taken_over = tuple(filing.taken_over)
        return own, FiledItems(rows, tuple(new.values()), frozenset(earlier), away, taken_over)

    def _can_repeat(self, item: ItemWork, by_all: Collection[str]) -> bool:
        """Return whether a run can do an item of filed results again.

        What read or moved a file that is no longer as it was cannot be done again.
        """
        entry = item.entry
        if entry is None or entry.state not in WHOLE:
            return True
        read = (dep for dep in dependencies_of(entry, FileRead) if dep.path not in by_all)
        is_lost = any(self.world.looked_at[dep] is not None for dep in read)
        return not (is_lost or dependencies_of(entry, MovedAway))

    async def step(self, step: BoundStep, scope: Scope, outer: Sequence[str] = ()) -> BlockWork:
        """Judge a step outside of blocks that has a trace: a block of one item."""
        scope_id = self.scope_id(step.id, outer)
        parts = await self.parts.of_step(step)
        parts.update(self.parts.outer(step.references - step.of_lists, step.shown, scope))
        for whole in with_filed_rows(step, scope).values():
            news = {".".join(path) for path in reads_new_items(step)}
            for name, every in self.parts.outer(step.references, step.shown, whole).items():
                if every != parts[name]:  # its rows have those of filed items, too
                    parts[name] = part_digest([parts[name], every]) if name in news else every
        entries = await self.ledger.ask(self.ledger.entries, scope_id)
        text, block = canonical_json(parts), BoundBlock.of_step(step)
        hash_, is_counted = hashlib.sha256(text.encode()).hexdigest(), bool(step.kind.roles)
        item = ItemWork(
            0, step.id, None, NEW, hash_, text, entries.get(step.id), is_counted=is_counted
        )
        # What is to fail on an edited file has to run
        replaces = step.written.get("on_edited", "keep") != "keep"
        request = self._request({step.id}, await self.job_runs())
        takes_over = replaces or self.options.takes_over
        request = replace(request, takes_over=takes_over, is_of_step=True)
        past = PastItems(self.ledger, scope_id, step)
        judged = _JudgedBlock(block, scope_id, "", past, None, request, self.index.stored, [])
        await self._judge(judged, [item], scope)
        held = item.verdict.kept if item.verdict.state is ItemState.HELD else ()
        claims = _written_by(scope_id, [None if item.verdict.is_work else item.entry])
        return BlockWork(
            block, tuple(outer), scope_id, (item,), claims=claims, held=held, step=step,
            renewed=judged.renewed,
        )  # fmt: skip

    def _request(self, nodes: Collection[str], job_runs: frozenset[str]) -> ItemRequest:
        """Return the run's request for the items of a block or step; `nodes`: the ids in it."""
        options, sample, left_out = self.options, self.options.sample, NOT_REQUESTED
        if sample is not None:
            first = Why.NOT_AMONG_FIRST(sample.n_items)
            why = first if sample.is_first else Why.NOT_SAMPLED()
            left_out = ItemVerdict(ItemState.UNSAMPLED, (why,), is_left_out=True)
        return ItemRequest(
            is_forced=not options.force.isdisjoint(nodes),
            retries_failed=options.retry_failed,
            asks_people=options.review == "ask",
            left_out=left_out,
            is_of_variant=bool(options.variant_of),
            job_runs=job_runs,
        )

    async def job_runs(self) -> frozenset[str]:
        """Return the runs of the same job, this one included."""
        return frozenset() if self._job_runs is None else await self._job_runs()

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


def _written_by(scope: str, entries: Iterable[Entry | None]) -> list[tuple[str, str, str]]:
    found = [(scope, e.key, path) for e in entries if e is not None for path in e.output_paths]
    within = (dep for entry in entries for dep in dependencies_of(entry, OutputWithin))
    return [*found, *((dep.scope, dep.key, dep.path) for dep in within)]


def _overwrites(block: BoundBlock) -> bool:
    """Return whether edited outputs of a block are replaced."""
    writes = [step for step in all_steps(block.body) if step.facts.writes]
    return bool(writes) and all(s.written.get("on_edited") == "overwrite" for s in writes)


def values_digest(item: ItemWork) -> str:
    """Return the digest of the values that a top-level step reads: it has no document."""
    parts: Mapping[str, str] = json.loads(item.parts)
    values = (part for part in map(part_of, parts) if isinstance(part, OuterValue))
    read = {v.name: parts[v.name] for v in values if v.root in ("steps", "inputs")}
    return part_digest(read)
