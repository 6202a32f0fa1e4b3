"""What one item's steps do, collected while they run, and its entry when they are done."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .attempt import Stopped, attempt
from .binding.bound import BoundStep
from .calls import Caller
from .ledger.entries import Entry, LedgerError
from .scope import Scope
from .tools import ItemOutputs, Toolbox
from .work import ItemWork, Work


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
    callers: list[Caller] = field(default_factory=list)
    reads: dict[str, list[Any]] = field(default_factory=dict)
    has_inner_failures: bool = False
    attempts: int = 0
    """How often in a row it, or an item within it, has failed for a reason that may pass."""
    last: Any = None
    is_last_skipped: bool = False


class Items:
    """Runs the single steps of items, and records the items."""

    def __init__(self, work: Work, toolbox: Toolbox) -> None:
        self._work = work
        self._toolbox = toolbox
        self._tally = toolbox.tally

    async def step(self, step: BoundStep, scope: Scope, record: ItemRun) -> Any:
        """Run one step of an item; gives its outputs, None when it was skipped."""
        if step.kind.roles:
            self._tally.tell(record.block, record.shown_key, "running", step.id)
        caller = self._toolbox.caller(record.scope, step, record.shown_key, record.block)
        record.callers.append(caller)
        return await attempt(
            step,
            scope,
            lambda: self._toolbox.tools(step, caller, record.outputs),
            lambda texts: self._note_reads(record, texts),
            lambda where, error: self._tally.unexpected(f"{record.shown_key}, {where}", error),
        )

    def _note_reads(self, record: ItemRun, texts: Sequence[str]) -> None:
        """Note what files hold before a step reads them; the item's own is known by its hash."""
        for text in texts:
            if text == record.own_path:
                continue
            path = str(self._toolbox.bound.roots.resolve(text))
            with contextlib.suppress(OSError):  # the step will say what is wrong with it
                record.reads[self._work.index.stored(path)] = self._work.mark(path)

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
            was=item.verdict.state,
        )
        try:
            ledger.record(record.scope, entry, self._tally.run)
            await ledger.durable()
        except LedgerError as failure:
            raise Stopped(str(failure)) from failure
