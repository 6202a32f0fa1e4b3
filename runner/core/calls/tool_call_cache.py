"""Cache of tool calls and commands: a known result comes from the ledger, a new one is recorded."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from paddock.engine.request import Usage
from paddock.engine.system.text import canonical_json
from paddock.runner.ledger.ledger import Ledger

from ..run_stats import RunStats
from .recorded_calls import CallOrigin, RecordedCalls, call_hash

T = TypeVar("T")


class ToolCallCache(RecordedCalls):
    """Implements `paddock.steps.base.CallCache` for one step of one item."""

    def __init__(self, ledger: Ledger, stats: RunStats, caller: CallOrigin) -> None:
        super().__init__(ledger, stats, caller)
        self._n_requests: Counter[str] = Counter()

    async def once(
        self,
        kind: str,
        asked: Mapping[str, Any],
        do: Callable[[], Awaitable[T]],
        *,
        keeps: bool = True,
    ) -> T:
        """Return the recorded result of the same request, else make the call and record its result.

        With `keeps=False` each item has its own row, which its next run overwrites.
        """
        plain = canonical_json(asked)
        text = self._stats.secrets.redact(plain)
        began = time.time()
        hash_ = call_hash(kind, self._hashed(text, plain) if keeps else self._numbered(text))
        known = await self._recorded(hash_) if keeps else None
        if known is not None:
            result = json.loads(known.reply)
        else:
            result = self._stats.secrets.redacted(await do())
            reply = json.dumps(result, ensure_ascii=False).encode("utf-8", "replace")
            row = self._row(hash_, kind, text, str(asked.get("tool") or ""))
            self._ledger.record_call(replace(row, reply=reply), self._stats.run)
        self._keep_call(hash_, kind, began, Usage(), is_known=known is not None)
        return cast("T", result)

    def _numbered(self, text: str) -> str:
        """Return what names a call that is never looked up: item, number there and text."""
        caller = self._caller
        self._n_requests[text] += 1
        place = [caller.scope, caller.step, caller.key, self._n_requests[text]]
        return f"{canonical_json(place)}\n{text}"
