"""The ledger of calls for what is no model call: tools, commands, turns of an agent.

Each is a row like a model's, with what was asked and what came back, both without secrets.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

from paddock.engine.request import Usage

from .calls import Caller
from .freshness import canonical
from .ledger.entries import CallRow
from .ledger.ledger import Ledger
from .made import CallMade
from .tally import Tally

T = TypeVar("T")
_NOTHING = Usage(0, 0)


class LedgerMemo:
    """Implements `paddock.steps.toolset.Memo` for one step of one item."""

    def __init__(self, ledger: Ledger, tally: Tally, caller: Caller) -> None:
        self._ledger = ledger
        self._tally = tally
        self._caller = caller
        self._asked: Counter[str] = Counter()

    async def once(
        self,
        kind: str,
        asked: Mapping[str, Any],
        do: Callable[[], Awaitable[T]],
        *,
        keeps: bool = True,
    ) -> T:
        """Give the recorded result of the same request, else do it and record what comes out.

        One that is not kept has a row of its own for each item, so that it is not lost; the same
        item's next run writes over it.
        """
        text = self._tally.secrets.redact(canonical(asked))
        began = time.time()
        if not keeps:
            return await self._done(kind, asked, text, self._own(kind, text), do, began)
        hash_ = _hash(kind, text)
        row = await self._known(hash_)
        if row is None:
            return await self._done(kind, asked, text, hash_, do, began)
        self._count(hash_, kind, began, is_known=True)
        return cast("T", json.loads(row.reply))

    async def _known(self, hash_: str) -> CallRow | None:
        if not self._caller.looks_up:
            return None
        return await self._ledger.ask(self._ledger.call, hash_)

    async def _done(
        self,
        kind: str,
        asked: Mapping[str, Any],
        text: str,
        hash_: str,
        do: Callable[[], Awaitable[T]],
        began: float,
    ) -> T:
        result = self._tally.secrets.redacted(await do())
        caller = self._caller
        row = CallRow(
            hash=hash_,
            kind=kind,
            model=str(asked.get("tool") or ""),
            digest="",
            served_digest="",
            request=text,
            reply=json.dumps(result, ensure_ascii=False).encode("utf-8", "replace"),
            done_reason=None,
            usage={},
            scope=caller.scope,
            step=caller.step,
            key=caller.key,
        )
        self._ledger.record_call(row, self._tally.run)
        self._count(hash_, kind, began, is_known=False)
        return cast("T", result)

    def _own(self, kind: str, text: str) -> str:
        """Name a call that is never looked up: by its item, and which of its kind it is there."""
        caller = self._caller
        self._asked[text] += 1
        place = [caller.scope, caller.step, caller.key, self._asked[text]]
        return _hash(kind, f"{canonical(place)}\n{text}")

    def _count(self, hash_: str, kind: str, began: float, *, is_known: bool) -> None:
        self._caller.made.append(CallMade.of(hash_, kind, began, _NOTHING, is_known=is_known))


def _hash(kind: str, text: str) -> str:
    return hashlib.sha256(f"{kind}\n{text}".encode()).hexdigest()
