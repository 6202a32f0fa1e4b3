"""What must be done, and why: a bound pipeline's items compared with their ledger entries.

Reads the ledger and the file system; runs nothing. Blocks are judged one by one, since a block's
list may be the output of an earlier step.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paddock.engine.sampling.json_schema import json_pointer
from paddock.engine.system.text import canonical_json
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.label_choices import FieldPath, LabelList
from paddock.pipelines.triggers import MOST_DELETED
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
from paddock.runner.bind.offered_labels import LabelLists, label_texts
from paddock.runner.bind.scope import Scope
from paddock.runner.bind.text_vectors import unit_matrix
from paddock.runner.folders.missing_files import is_mass_deletion
from paddock.runner.folders.unfinished_files import SettledFiles, is_watch_trigger
from paddock.runner.ledger import queries
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.filed_rows import FiledRow
from paddock.runner.ledger.lineage_rows import LineageStore
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.progress.item_states import WHOLE, ItemState
from paddock.runner.progress.reasons import Reason, Why
from paddock.steps.base import Vector
from paddock.steps.vectors.open_stores import OpenStores

from .block_items import (
    AsStored,
    block_list,
    is_file_value,
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
from .call_cache import ModelDigests
from .dependencies import (
    FileRead,
    LabelVectors,
    MovedAway,
    NarrowedLabels,
    Trace,
    World,
    dependencies_of,
)
from .filed_items import (
    BlockFiling,
    FiledItems,
    ListWithFiled,
    reads_new_items,
    with_filed_rows,
)
from .node_parts import NodeParts, read_by_all
from .parts import (
    CONTENT,
    PLACE_IN_LIST,
    SUFFIX,
    Older,
    OuterValue,
    ordered_digest,
    part_digest,
    part_of,
)
from .past_items import PastItems
from .reconcile import DeletionDoubt, SourceFolder, reconcile, source_folders
from .run_options import RunOptions
from .run_reviews import RunReviews
from .verify import (
    ItemNow,
    ItemRequest,
    ItemVerdict,
    permit,
    verify,
    with_secrets_of_now,
)

NOT_REQUESTED = ItemVerdict(ItemState.SKIPPED, (Why.NOT_REQUESTED(),), is_left_out=True)


@dataclass(frozen=True, slots=True)
class _JudgedBlock:
    """What the items of a block have in common."""

    block: BoundBlock
    scope: str
    base: str
    """The parts of the items' hash that all share: a JSON object."""
    traces: Mapping[str, Trace]
    requested: frozenset[str] | None
    """Keys of the items that the run is asked to do; None: all."""
    request: ItemRequest
    """Of an item that is asked for."""
    as_stored: AsStored
    world: World
    renewed: list[Entry]
    """As `BlockWork.renewed`."""

    def parts_of(
        self, key: str, item: Any, place: tuple[int, int] | None, entry: Entry | None = None
    ) -> str:
        """Return the parts of an item's hash as JSON; for 10,000 items, so text is joined.

        `place` None: it has none in a list any more, so that its entry's counts.
        """
        block, read, attributes = self.block, "", self.block.item_attributes
        if block.loop_attributes:
            loop = loop_value(*(place or (0, 1)))
            digest = part_digest({key: loop[key] for key in block.loop_attributes})
            if place is None and entry is not None:
                digest = json.loads(entry.parts).get(PLACE_IN_LIST.name, "")
            read = f'"{PLACE_IN_LIST.name}":"{digest}",'
        for name, value in path_and_time(item, block.var, block.shown, self.as_stored).items():
            read += f'"{name}":"{part_digest(value)}",'
        if (suffix := kind_suffix(item, key, attributes)) is not None and block.key is not None:
            read += f'"{SUFFIX.name}":"{part_digest(suffix)}",'
        content = ordered_digest(item_content(item, without_time(attributes)))
        return f'{{"{CONTENT.name}":"{content}",{read}{self.base[1:]}'


EmbedLabels = Callable[[BoundStep, Sequence[str]], Awaitable[tuple[str, Sequence[Vector]] | None]]
"""Returns the identity of a step's embedding model, and vectors; None: these are not known."""


async def _unknown_vectors(step: BoundStep, texts: Sequence[str]) -> None:
    """Know no vectors."""


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
        self.world = World.of(index, stores)
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
        self.embed_labels: EmbedLabels = _unknown_vectors
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
        outer = self._outer
        made = Judge(
            bound,
            options,
            self.index,
            self._digests,
            job_runs=None if is_nested else self._job_runs,
        )
        steps, places = f"{outer.steps}{step}.", (*outer.places, self.place())
        made._outer = OuterPipelines(outer.file, steps, places)
        made.seen_keys, made.world = self.seen_keys, self.world
        made.parts = NodeParts(bound, self.index, self._digests, self.world.digest)
        made.parts.secrets = self.parts.secrets
        made._is_only_block = False
        made._settled_files = self._settled_files
        made.reviews, made.labels = self.reviews, self.labels
        made.embed_labels = self.embed_labels
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
        self, body: Iterable[BoundNode], scope: Scope, traces: Collection[Trace]
    ) -> World:
        """Return the world as these items see it, which has been looked at.

        Raises:
            PipelineError: a list of labels is no list of labels.
            EngineError: the labels that are new to a list cannot be embedded.
        """
        await self.world.prepare(traces, self.bound.roots)
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
                made = await self.embed_labels(step, label_texts(new)) if new else None
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

    async def block(self, block: BoundBlock, scope: Scope, outer: Sequence[str] = ()) -> BlockWork:
        """Judge every item of a block whose list can be known now.

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
        keys, listed = [*keys, *others], [*listed, *others.values()]
        base = canonical_json(await self.parts.of_block(block, scope))
        past = PastItems(self.ledger, scope_id, block)
        traces = {key: Trace(scope_id, entries[key], past) for key in keys if key in entries}
        world = await self.world_of(block.body, scope, traces.values())
        job: frozenset[str] = frozenset()
        if not outer:
            job = await self.job_runs()
            if self._settled_files is not None:
                await self._settled_files.read()
        request = self._request({block.id, *node_ids(block.body)}, job)
        judged = _JudgedBlock(
            block, scope_id, base, traces, named, request, self.index.stored, world, []
        )
        items, held = self._judge_items(judged, keys, listed, filing, others)
        made_by = self.parts.made_by(block, base)
        done, earlier = self._keep_done(judged, items, others)
        found = await self._judge_filed(judged, items, past, filing, made_by)
        found = replace(
            found,
            rows={**found.rows, **done} if done else found.rows,
            n_of_results=len(done)
            + sum(whole is not None or not row.path for row in found.rows.values()),
            earlier=found.earlier | earlier,
            parts={k: row for k in keys if (row := filing.rows.get(k)) and not row.path},
            places={} if whole is None else whole.places,
        )
        fresh = [w.key for w in items if not w.verdict.is_work]
        self.index.set_fresh(scope_id, [*fresh, *done])
        left_out = frozenset(kept).difference(keys, filed)
        work = BlockWork(
            block,
            tuple(outer),
            scope_id,
            tuple(items),
            held=tuple(held),
            left_out=left_out,
            unsettled=frozenset(keys).difference(done, (item.key for item in items)),
            filed=found,
            made_by=made_by,
            again=tuple(filing.again),
            names=filing.names,
            renewed=judged.renewed,
        )
        if self.options.leaves_out_items:
            return work
        return await self._with_absent(work, sources, entries.values(), job, past)

    async def _with_absent(
        self,
        work: BlockWork,
        folders: tuple[SourceFolder, ...],
        entries: Collection[Entry],
        job: Collection[str],
        past: PastItems,
    ) -> BlockWork:
        """Add which items were left out, deleted or renamed, and why the list lacks them."""
        present = work.left_out.union(work.unsettled, (item.key for item in work.items))
        entries = [entry for entry in entries if entry.key not in work.filed.rows]
        there = [entry for entry in entries if entry.gone is None or entry.gone in job]
        dropped = tuple(entry for entry in there if entry.key in work.left_out)
        absent = [entry for entry in there if entry.key not in present]
        origins, options = LineageStore(self.ledger), self.options
        made = await self.ledger.ask(origins.made_of, work.scope) if absent else {}
        files = (item for item in work.items if item.verdict.state is ItemState.NEW)
        new = {item.key: item.item["sha256"] for item in files if is_file_value(item.item)}
        n_known = len(there), sum(entry.gone is None for entry in entries)
        missing = await asyncio.to_thread(reconcile, absent, n_known, new, made, folders, options)
        filed, n_away = work.filed, len(work.filed.away)
        if n_away and (options.prune or any(folder.prunes for folder in folders)):
            n_filed = len(filed.rows) + len(work.items)
            if not options.is_confirmed and is_mass_deletion(n_away, n_filed, MOST_DELETED):
                why = Why.FILED_ARE_GONE(n_away, n_filed, work.block.id)
                doubt = DeletionDoubt(work.block.id, why)
                missing = replace(missing, doubts=(*missing.doubts, doubt))
            else:
                filed = replace(filed, pruned=filed.away)
        items, new_names = [], {old: key for key, old in missing.renamed.items()}
        for item in work.items:
            if (was := missing.renamed.get(item.key)) is not None:
                verdict = item.verdict
                if verdict.state is ItemState.NEW:
                    has_other_key = past.changes(was).has_other_key
                    former = Why.KEY_FROM if has_other_key else Why.RENAMED_FROM
                    verdict = replace(verdict, reasons=(former(was),))
                item = replace(item, renamed_from=was, verdict=verdict)
            items.append(item)
        absences: dict[str, Reason] = {}
        for key in (entry.key for entry in missing.deleted):
            source, is_now = made[key].source if key in made else None, new_names.get(key)
            if past.changes(key).has_other_key:
                absences[key] = Why.KEY() if is_now is None else Why.KEY_TO(is_now)
            elif is_now is not None:
                absences[key] = Why.RENAMED_TO(is_now)
            else:
                is_gone = source and not self.world.is_there(source)
                absences[key] = Why.SOURCE_GONE() if is_gone else Why.UNLISTED()
        return replace(
            work, items=tuple(items), dropped=dropped, filed=filed, missing=missing,
            absences=absences,
        )  # fmt: skip

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

    def _judge_items(
        self,
        block: _JudgedBlock,
        keys: Sequence[str],
        listed: Sequence[Any],
        filing: BlockFiling,
        others: Collection[str],
    ) -> tuple[list[ItemWork], list[str]]:
        """Return the judged items, and the stored paths of edited outputs that are kept.

        `others`: keys of items that the run's own list does not have.
        """
        items: list[ItemWork] = []
        held: list[str] = []
        older, unfinished = self._older, self._settled_files
        writes = [step for step in all_steps(block.block.body) if step.facts.writes]
        overwrites = bool(writes) and all(s.written.get("on_edited") == "overwrite" for s in writes)
        own_request = replace(block.request, takes_over=overwrites or self.options.takes_over)
        others_request = replace(
            own_request, is_asked_for=False, is_forced=False, takes_over=overwrites
        )
        for number, (key, item) in enumerate(zip(keys, listed, strict=True)):
            place, trace = (number, len(listed)), block.traces.get(key)
            row = filing.left[key][0] if key in filing.left else None
            entry = None if trace is None else trace.entry
            seen = item if row is None else filing.described(row)
            parts = block.parts_of(key, seen, None if key in others else place, entry)
            hash_ = hashlib.sha256(parts.encode()).hexdigest()
            now = ItemNow(hash_, parts, item, older)
            is_asked_for = block.requested is None or key in block.requested
            request = own_request if is_asked_for else others_request
            verdict = _verdict(trace, now, block.world, request, block.renewed)
            may_wait = unfinished is not None and (verdict.is_work or verdict.is_left_out)
            if unfinished is not None and may_wait and unfinished.is_left(item):
                continue  # the watch passes it on once it has settled
            if verdict.state is ItemState.HELD:
                held += verdict.kept
            items.append(
                ItemWork(len(items), key, item, verdict, hash_, parts, entry, place, filed=row)
            )
        return items, held

    def _keep_done(
        self, block: _JudgedBlock, items: list[ItemWork], others: Collection[str]
    ) -> tuple[dict[str, FiledRow], frozenset[str]]:
        """Take from `items` those of `others` that are done; return them, and the earlier ones.

        As long as nothing changed for all items they stand, whatever became of their files. What
        read or moved a file that is no longer as it was cannot be done again.
        """
        done: dict[str, FiledRow] = {}
        earlier, left = set[str](), list[ItemWork]()
        by_all = {self.index.stored(self.index.absolute(p)) for p in read_by_all(block.block)}
        for item in items:
            entry, verdict = item.entry, item.verdict
            if item.key not in others or entry is None or entry.state not in WHOLE:
                left.append(replace(item, index=len(left)) if done else item)
                continue
            is_away, read = dependencies_of(entry, MovedAway), dependencies_of(entry, FileRead)
            is_lost = any(dep.path not in by_all and not self.world.has(dep) for dep in read)
            if verdict.is_work and not (is_lost or is_away):
                left.append(replace(item, index=len(left)) if done else item)
                continue
            result = (entry.returns, entry.returns_object)
            done[item.key] = FiledRow(item.key, item.key, "", "", None, False, "", "", *result)
            if (verdict.is_work or verdict.is_left_out) and entry.hash != item.hash:
                earlier.add(item.key)
        items[:] = left
        return done, frozenset(earlier)

    async def _judge_filed(
        self,
        block: _JudgedBlock,
        items: list[ItemWork],
        past: PastItems,
        filing: BlockFiling,
        made_by: str,
    ) -> FiledItems:
        """Return what is filed and not listed; add to `items` what is read again where it lies."""
        present = {item.key for item in items}
        rows = {**filing.rows}
        for key in present & rows.keys():
            del rows[key]
        new = {key: row for key, row in filing.new.items() if key not in present}
        is_forced = block.request.is_forced
        doubtful = [r for r in rows.values() if r.path and (is_forced or r.made_by != made_by)]
        if block.requested is not None:
            self.seen_keys.update(rows)
            doubtful = [row for row in doubtful if row.key in block.requested]
        keys = [row.key for row in doubtful]
        entries = await self.ledger.ask(self.ledger.entries, block.scope, keys) if keys else {}
        traces = {key: Trace(block.scope, entry, past) for key, entry in entries.items()}
        await self.world.prepare(traces.values(), self.bound.roots)
        request = replace(block.request, job_runs=frozenset())
        earlier: set[str] = set()
        by_age = sorted(rows.values(), key=lambda row: (len(row.key), row.key)) if doubtful else ()
        latest = {row.name: row.key for row in by_age}
        for row in doubtful:
            entry = entries.get(row.key)
            value, parts = None, block.parts_of(row.key, filing.described(row), None, entry)
            hash_ = hashlib.sha256(parts.encode()).hexdigest()
            verdict = ItemVerdict(ItemState.STALE, (Why.EARLIER_VERSION(),))
            is_done = entry is None or entry.state in WHOLE
            if is_forced or row.outdated_by != made_by or not is_done:
                trace, now = traces.get(row.key), ItemNow(hash_, parts, None, self._older)
                verdict = _verdict(trace, now, block.world, request, block.renewed)
            if verdict.is_kept:
                rows[row.key] = new[row.key] = row._replace(made_by=made_by, outdated_by="")
                continue
            # Others of that name write the same outputs, as far as these go by the name.
            if latest[row.name] == row.key and row.name not in present:
                value = filing.value(row)
            if value is None:
                earlier.add(row.key)
                if row.outdated_by != made_by:
                    rows[row.key] = new[row.key] = row._replace(outdated_by=made_by)
                continue
            filing.names[row.key] = row.name
            index, place = len(items), (0, 1)
            items.append(
                ItemWork(index, row.key, value, verdict, hash_, parts, entry, place, filed=row)
            )
        read_again = {item.key for item in items}
        away = await asyncio.to_thread(filing.away)
        away -= read_again | present
        found = (rows, tuple(new.values()), frozenset(earlier), away)
        return FiledItems(*found, tuple(filing.taken_over))

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
        past = PastItems(self.ledger, scope_id, step)
        entry = entries.get(step.id)
        trace = None if entry is None else Trace(scope_id, entry, past)
        world = await self.world_of([step], scope, () if trace is None else (trace,))
        text = canonical_json(parts)
        now = ItemNow(hashlib.sha256(text.encode()).hexdigest(), text, None, self._older)
        request = self._request({step.id}, await self.job_runs())
        # What is to fail on an edited file has to run
        replaces = step.written.get("on_edited", "keep") != "keep"
        takes_over = replaces or self.options.takes_over
        request = replace(request, takes_over=takes_over, is_of_step=True)
        renewed = list[Entry]()
        verdict = _verdict(trace, now, world, request, renewed)
        is_counted = bool(step.kind.roles)
        item = ItemWork(
            0, step.id, None, verdict, now.hash, now.parts, entry, is_counted=is_counted
        )
        held = verdict.kept if verdict.state is ItemState.HELD else ()
        block = BoundBlock.of_step(step)
        return BlockWork(
            block, tuple(outer), scope_id, (item,), held=held, step=step, renewed=renewed
        )

    @property
    def _older(self) -> Older:
        return None if self.options.refresh else self.parts.older

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


def _verdict(
    trace: Trace | None, now: ItemNow, world: World, request: ItemRequest, renewed: list[Entry]
) -> ItemVerdict:
    verdict = verify(trace, now, world)
    entry = None if trace is None else with_secrets_of_now(trace, now, verdict)
    if entry is not None:
        renewed.append(entry)
    return permit(verdict, trace, now, request)


def values_digest(item: ItemWork) -> str:
    """Return the digest of the values that a top-level step reads: it has no document."""
    parts: Mapping[str, str] = json.loads(item.parts)
    values = (part for part in map(part_of, parts) if isinstance(part, OuterValue))
    read = {v.name: parts[v.name] for v in values if v.root in ("steps", "inputs")}
    return part_digest(read)
