"""What one item's steps do, collected while they run, and its entry when they are done."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from paddock.pipelines.errors import PipelineError
from paddock.steps.step import StepError, SubPipelines, Tools

from .attempt import StepFailed, Stopped, attempt
from .binding.bound import BoundNode, BoundStep
from .body import written
from .calls import Caller
from .evidence import SCAN, held_paths, written_within
from .keeping import keeping_of, named
from .ledger.entries import Entry, LedgerError, MadeRow
from .ledger.origins import Origins
from .made import StepMade, as_json, source_of
from .scope import Scope
from .tools import ItemOutputs, Toolbox
from .work import ItemWork, Work

STANDS_S = 2.0
"""How long an item that is cancelled waits for the ledger, to be counted or not."""


@dataclass
class ItemRun:
    """What one item's steps did, collected while they run."""

    scope: str
    key: str
    shown_key: str
    block: str
    own_path: str | None
    outer: tuple[str, ...]
    outputs: ItemOutputs
    attempt: str = ""
    """Names this try to do it: see `ItemName`."""
    node: BoundNode | None = None
    """The block whose item it is, or the step; None: nobody asks where it came from."""
    item: Any = None
    renamed_from: str | None = None
    steps: list[StepMade] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    reads: dict[str, list[Any]] = field(default_factory=dict)
    has_inner_failures: bool = False
    entry: Entry | None = None
    """What was given to the ledger, though it may not stand yet."""
    attempts: int = 0
    """How often in a row it, or an item within it, has failed for a reason that may pass."""
    last: Any = None
    is_last_skipped: bool = False
    is_deadly: bool = False
    """It is given up without a try: the process of several runs died of it."""

    def marks(self) -> dict[str, list[Any]]:
        """Give what it depends on, for the item around it."""
        within = written_within(self.scope, self.key, self.outputs.written)
        return self.reads | self.outputs.searched | within

    def held(self) -> list[str]:
        """Return the stored paths of outputs that were kept as somebody had left them."""
        return held_paths(self.reads | self.outputs.searched)


def attempt_of(item: ItemWork) -> str:
    """Name this try to do an item: the same until it is done, also over kills and failures."""
    entry = item.entry
    return f"{item.hash} {entry.run if entry is not None and entry.state == 'done' else ''}"


def own_path(item: Any) -> str | None:
    """Give the path of an item that is a file."""
    path = item.get("path") if isinstance(item, Mapping) else None
    return path if isinstance(path, str) else None


Inside = Callable[[BoundStep, ItemRun], SubPipelines]
"""(step, the item for which it runs) → what carries out the pipeline that it runs."""


class Items:
    """Runs the single steps of items, and records the items."""

    def __init__(self, work: Work, toolbox: Toolbox, inside: Inside | None = None) -> None:
        """`inside` gives what carries out the pipelines that steps run; None: they are not."""
        self._work = work
        self._toolbox = toolbox
        self._inside = inside
        self._tally = toolbox.tally
        self._origins = Origins(work.ledger)
        self._keeping = keeping_of(toolbox)
        self._specs: dict[str, tuple[str, str]] = {}
        """By block or step: the digest of what it says, and that text."""

    async def step(self, step: BoundStep, scope: Scope, record: ItemRun) -> Any:
        """Run one step of an item; gives its outputs, None when it was skipped.

        Raises:
            ClaimLost: another machine has taken the item over; the step was not begun.
        """
        if self._toolbox.fence is not None:
            await self._toolbox.fence()
        if step.kind.roles:
            self._tally.tell(record.block, record.shown_key, "running", step.id)
        caller = self._toolbox.caller(record.scope, step, record.shown_key, record.block)
        record.callers.append(caller)
        ref = None if step.model is None else step.model.ref
        made = StepMade(step.id, step.uses, step.kind.version, ref, calls=caller.made)
        record.steps.append(made)
        try:
            outputs = await attempt(
                step,
                scope,
                lambda: self._tools(step, caller, record, scope),
                lambda texts: self._note_reads(record, texts),
                lambda where, error: self._tally.unexpected(f"{record.shown_key}, {where}", error),
            )
            await self._note_listing(record, step, scope, outputs)
        except (StepFailed, Stopped, PipelineError):
            made.state = "failed"
            raise
        else:
            made.state = "skipped" if outputs is None else "done"
            return outputs
        finally:
            made.end()
            self._tally.took(made)

    def _tools(self, step: BoundStep, caller: Caller, record: ItemRun, scope: Scope) -> Tools:
        key, shown = record.key, record.shown_key
        item = named(scope, step.id, record.scope, key, shown, self._work.index)
        item = replace(item, attempt=record.attempt)
        tools = self._toolbox.tools(step, caller, record.outputs, item)
        if step.inner is None or self._inside is None:
            return tools
        return replace(tools, pipelines=self._inside(step, record))

    def _note_reads(self, record: ItemRun, texts: Sequence[str]) -> None:
        """Note what files hold before a step reads them; the item's own is known by its hash."""
        for text in texts:
            if text == record.own_path:
                continue
            path = str(self._toolbox.bound.roots.resolve(text))
            with contextlib.suppress(OSError):  # the step will say what is wrong with it
                record.reads[self._work.index.stored(path)] = self._work.evidence.mark(path)

    async def _note_listing(
        self, record: ItemRun, step: BoundStep, scope: Scope, outputs: Any
    ) -> None:
        """Note what a folder held that was listed for this item alone."""
        if record.outer and step.uses == SCAN and outputs is not None:
            files = None if step.returns is not None else outputs["files"]
            params, roots = step.params.render(scope), self._toolbox.bound.roots
            owned = self._work.index.owned() if files is None else frozenset()
            note = self._work.evidence.note_listing
            await asyncio.to_thread(note, record.reads, params, files, roots, owned)

    async def record(
        self,
        item: ItemWork,
        record: ItemRun,
        state: str,
        error: str | None,
        result: Any,
        seconds: float,
    ) -> None:
        """Write the entry, and wait until it stands."""
        ledger = self._work.ledger
        secrets = self._tally.secrets
        await self._settle_rows(item, record, state)
        text, object_ = ledger.keep(secrets.redacted(result))
        entry = Entry(
            key=item.key,
            hash=item.hash,
            parts=item.parts,
            state=state,
            error=error and secrets.redact(error),
            returns=text,
            returns_object=object_,
            reads=json.dumps(record.reads) if record.reads else None,
            outputs=json.dumps(list(record.outputs.written)) if record.outputs.written else None,
            has_inner_failures=record.has_inner_failures,
            seconds=seconds,
            calls=sum(caller.n_calls for caller in record.callers),
            tokens=sum(caller.n_tokens for caller in record.callers),
            attempts=record.attempts,
            was="held" if record.held() else item.verdict.state,
        )
        try:
            ledger.record(record.scope, entry, self._tally.run)
            if self._toolbox.suspects is not None:  # in one commit with the entry
                self._toolbox.suspects.end(
                    record.scope, record.key, is_recorded=True, is_deadly=record.is_deadly
                )
            record.entry = entry
            record.renamed_from = item.renamed_from
            self.record_made(record)
            await ledger.durable()
        except LedgerError as failure:
            raise Stopped(str(failure)) from failure

    async def stands(self, record: ItemRun) -> bool:
        """Tell, of an item that was cancelled while its entry was written, whether that is kept."""
        put, ledger = record.entry, self._work.ledger
        if put is None:
            return False
        with contextlib.suppress(LedgerError, TimeoutError):
            async with asyncio.timeout(STANDS_S):
                await ledger.durable()
        # Asked, since what failed may have been another one's entry.
        try:
            there = (await ledger.ask(ledger.entries, record.scope, [record.key])).get(record.key)
        except LedgerError:
            return False
        return there is not None and (there.hash, there.seconds) == (put.hash, put.seconds)

    async def _settle_rows(self, item: ItemWork, record: ItemRun, state: str) -> None:
        """Mark what the item keeps in stores and searched; what it no longer keeps goes."""
        record.reads.update(record.outputs.searched)
        self._note_reads(record, list(record.outputs.read))
        try:
            marks = await self._keeping.settle(
                record.scope, record.key, record.outputs, item.entry, state
            )
        except StepError as error:
            raise Stopped(str(error)) from error
        record.reads.update(marks)

    def record_made(self, record: ItemRun) -> None:
        """Write where an item came from; it stands with the next entry that does."""
        if record.node is None:
            return
        digest, text = self._spec(record.node)
        stored = record.own_path and self._work.index.stored(record.own_path)
        source = source_of(record.item, stored)
        self._origins.record(
            MadeRow(
                scope=record.scope,
                key=record.key,
                run=self._tally.run,
                at=0.0,
                spec=digest,
                source=None if source is None else source.path,
                made=self._tally.secrets.redacted(
                    as_json(source, record.steps, record.renamed_from)
                ),
            ),
            text,
        )

    def _spec(self, node: BoundNode) -> tuple[str, str]:
        if node.id not in self._specs:
            text = self._tally.secrets.redact(written(node))
            self._specs[node.id] = (hashlib.sha256(text.encode()).hexdigest(), text)
        return self._specs[node.id]
