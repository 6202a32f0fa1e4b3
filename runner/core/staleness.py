"""What must be done, and why: a bound pipeline's items compared with their ledger entries.

Reads the ledger and the file system; runs nothing. Blocks are judged one by one, since a block's
list may be the output of an earlier step.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from paddock.engine.system.text import canonical_json
from paddock.pipelines.errors import Fault, PipelineError
from paddock.runner.answers.offered_labels import LabelLists
from paddock.runner.bind.bound import (
    BoundBlock,
    BoundNode,
    BoundPlan,
    BoundStep,
    all_steps,
    node_ids,
    steps_of,
)
from paddock.runner.bind.scope import Scope
from paddock.runner.folders.unfinished_files import SettledFiles
from paddock.runner.ledger.entries import Entry, LineageRow
from paddock.runner.ledger.filed_store import FiledRow
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.progress.item_states import WHOLE, ItemState
from paddock.runner.progress.reasons import Why

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
from .block_work import BlockWork, ItemWork
from .dependencies import (
    FileRead,
    MovedAway,
    OutputWithin,
    Trace,
    World,
    dependencies_of,
)
from .filed_items import BlockFiling, FiledItems, ListWithFiled, reads_new_items, with_filed_rows
from .left_nodes import LackingItems
from .node_parts import NodeParts, read_by_all
from .parts import CONTENT, PLACE_IN_LIST, SUFFIX, OuterValue, ordered_digest, part_digest, part_of
from .past_items import PastItems
from .reconcile import reconcile
from .run_options import RunOptions
from .run_reviews import RunReviews
from .scopes import PipelineScopes
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
        scope_id, ledger = self.scopes.id(block.id, outer), self.world.index.ledger
        listed, left = split_by_where(block, scope, block_list(block, scope))
        whole = await ledger.ask(ListWithFiled.of, block, scope, listed, ledger, scope_id)
        filed: Mapping[str, Any] = {}
        if whole is None:
            names = item_keys(block, scope, listed)
        else:
            names, left, filed = [*whole.keys], whole.left_out, whole.filed
        kept = [*raw_item_keys(block, scope, left), *filed]
        entries = await ledger.ask(ledger.listed_entries, scope_id, [*names, *filed])
        sources = tuple(source_folders(self.bound, self.world.index, block, scope, scope_id))
        former = () if outer else await ledger.ask(self.scopes.former, self.bound)
        filing = await ledger.ask(
            BlockFiling, self.world.index, scope_id, sources, block, scope, former
        )
        keys = await ledger.ask(filing.keys, names, listed, kept, entries)
        listed = [*listed, *(value for _, value in filing.left.values())]
        keys += filing.left
        if numbered := set(keys).difference(names):
            entries |= await ledger.ask(ledger.entries, scope_id, numbered)
        named = None if outer else self._requested_keys(block, scope, keys, listed)
        others = {key: filed[key] for key in filed.keys() - filing.rows.keys() - {*keys}}
        if named is not None:
            self.seen_keys.update(others)
        base = canonical_json(await self.parts.of_block(block, scope))
        made_by = self.parts.made_by(block, base)
        if self.settled_files is not None and not outer:
            await self.settled_files.read()
        past, place = PastItems(ledger, scope_id, block), self.world.index.stored
        request = await self._request({block.id, *node_ids(block.body)}, outer)
        request = replace(request, takes_over=_overwrites(block) or self.options.takes_over)
        judged = _JudgedBlock(block, scope_id, base, past, named, request, place, [])
        items, n = list[ItemWork](), len(listed) + len(others)
        for number, (key, item) in enumerate([*zip(keys, listed, strict=True), *others.items()]):
            row = filing.left[key][0] if key in filing.left else None
            shown, entry = item if row is None else filing.described(row), entries.get(key)
            items.append(judged.work(key, shown, entry, None if key in others else (number, n)))
            items[-1].item, items[-1].place, items[-1].filed = item, (number, n), row
        await self._judge(judged, items, scope)
        if (unfinished := self.settled_files) is not None:  # the watch passes it on when settled
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
            if entry.key not in found.rows
            and (entry.gone is None or entry.gone in request.job_runs)
        ]
        present = work.left_out.union(work.unsettled, (item.key for item in items))
        made: Mapping[str, LineageRow] = {}
        if any(entry.key not in present for entry in before):
            await past.read()
            made = await ledger.ask(LineageStore(ledger).made_of, scope_id)
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
        inner = (step.inner for step in self.bound.nodes if isinstance(step, BoundStep))
        n_blocks = sum(isinstance(node, BoundBlock) for node in self.bound.nodes)
        if not self.scopes.prefix and n_blocks == 1 and all(plan is None for plan in inner):
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
        index = self.world.index
        by_all = {index.stored(index.absolute(path)) for path in read_by_all(block.block)}
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
        ledger = index.ledger
        entries = await ledger.ask(ledger.entries, block.scope, keys) if keys else {}
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
        # What is to fail on an edited file has to run
        replaces = step.written.get("on_edited", "keep") != "keep"
        request = await self._request({step.id}, outer)
        takes_over = replaces or self.options.takes_over
        request = replace(request, takes_over=takes_over, is_of_step=True)
        past = PastItems(ledger, scope_id, step)
        judged = _JudgedBlock(block, scope_id, "", past, None, request, self.world.index.stored, [])
        await self._judge(judged, [item], scope)
        held = item.verdict.kept if item.verdict.state is ItemState.HELD else ()
        claims = _written_by(scope_id, [None if item.verdict.is_work else item.entry])
        return BlockWork(
            block, tuple(outer), scope_id, (item,), claims=claims, held=held, step=step,
            renewed=judged.renewed,
        )  # fmt: skip

    async def _request(self, nodes: Collection[str], outer: Sequence[str]) -> ItemRequest:
        """Return the run's request for the items of a block or step; `nodes`: the ids in it."""
        job_runs = frozenset[str]()
        if self.job_runs is not None and not outer:  # else the item around it is claimed
            job_runs = await self.job_runs()
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
