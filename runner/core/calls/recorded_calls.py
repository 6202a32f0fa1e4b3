"""Recorded calls of one step of one item: who makes them, what it counts, how they are recorded.

Those of tools and commands are looked up here, those of models in `call_cache`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from paddock.engine.request import Usage, reserved_tokens
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import canonical_json
from paddock.runner.ledger.entries import CallRow
from paddock.steps.base import Claim, ItemName, SendState

from ..run_records import CallRecord

if TYPE_CHECKING:
    from paddock.runner.ledger.ledger import Ledger

    from ..run_stats import RunStats

T = TypeVar("T")


class PutOff(Exception):
    """The ledger has no reply to a call, and the caller may not ask for one now.

    Its item begins again in a later pass over the block: see `runner.core.escalation`.
    """


class CallOrigin(Struct):
    scope_id: str
    step: str
    key: str
    looks_up: bool
    """Whether the ledger's reply to an equal request is used."""
    may_ask: bool = True
    """False: a call whose reply the ledger does not have is `PutOff`."""
    before: dict[str, list[CallRecord]] = field(default_factory=dict)
    """By hash, calls that the item made in this run before it was put off: none is made again."""
    calls: list[CallRecord] = field(default_factory=list)
    n_calls: int = 0
    n_new_calls: int = 0
    """Those of `n_calls` whose reply the ledger did not have."""
    n_tokens: int = 0
    is_cut: bool = False
    """Whether an answer ended where the context did."""
    n_counted: int = 0
    """Tokens of the longest prompt that was counted."""
    n_ctx_tokens: int = 0
    """The context of the model that counted it."""
    max_tokens: int | None = None
    """The most tokens of the last answer, where the request limits them."""

    @property
    def is_limited(self) -> bool:
        """Whether the model's context was too small: a larger one would change the result."""
        n_tokens = self.n_counted + reserved_tokens(self.max_tokens, self.n_ctx_tokens)
        return self.is_cut or n_tokens > self.n_ctx_tokens > 0


class KnownCall(Struct, frozen=True):
    """A call before it is made, with the ledger's row of an equal one."""

    digest: str
    """Digest of the model's file."""
    request: str
    """The request, as recorded."""
    hash: str
    row: CallRow | None
    """None: the ledger has none, or that must not be used."""


class RecordedCalls:
    def __init__(self, ledger: Ledger, stats: RunStats, caller: CallOrigin) -> None:
        self._ledger = ledger
        self._stats = stats
        self._caller = caller

    def _hashed(self, redacted: str, plain: str) -> str:
        digest = self._stats.secrets.digest
        return redacted if redacted == plain or digest is None else redacted + digest(plain)

    def _recorded(self, hash_: str) -> CallRow | None:
        if not (self._caller.looks_up or self._caller.before.get(hash_)):
            return None
        return self._ledger.call(hash_)

    def _keep_call(
        self, hash_: str, kind: str, began: float, usage: Usage, *, is_known: bool
    ) -> bool:
        """Record an ended call; return False if the item made it before it was put off."""
        before = self._caller.before.get(hash_) if is_known else None
        if before:
            self._caller.calls.append(before.pop(0))
            return False
        self._caller.calls.append(CallRecord.of(hash_, kind, began, usage, is_known=is_known))
        return True

    def _row(self, hash_: str, kind: str, request: str, model: str, digest: str = "") -> CallRow:
        caller = self._caller
        return CallRow(
            hash=hash_,
            kind=kind,
            model=model,
            digest=digest,
            served_digest=digest,
            request=request,
            reply=b"",
            done_reason=None,
            usage={},
            scope=caller.scope_id,
            step=caller.step,
            key=caller.key,
        )


def call_hash(kind: str, request: str) -> str:
    return hashlib.sha256(f"{kind}\n{request}".encode()).hexdigest()


class ToolCallCache(RecordedCalls):
    """Implements `paddock.steps.base.CallCache` for tools and commands of one step of one item."""

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
        known = self._recorded(hash_) if keeps else None
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
        caller = self._caller
        self._n_requests[text] += 1
        place = [caller.scope_id, caller.step, caller.key, self._n_requests[text]]
        return f"{canonical_json(place)}\n{text}"


class ClaimedRequests(RecordedCalls):
    """Claims of requests, durable before these are sent: of a step of an item the last one."""

    async def claim(self, item: ItemName, request: Mapping[str, Any], *, n_refused: int) -> Claim:
        """Return what became of an item's request; `OPEN`: it is claimed now, and to be sent.

        1. It was the last one, and was answered, unless the step is forced.
        2. It was the last one, and has no answer: unknown, unless a person has said since that it
           did not arrive.
        3. It was the last one, and was not sent, or was put off: claimed again, by its key.
        4. It is another one, or was refused: claimed by a new key.
        """
        plain = canonical_json(request)
        text = self._stats.secrets.redact(plain)
        digest = call_hash("send", self._hashed(text, plain))
        places = [canonical_json([owner, item.step]) for owner in (item.owner, item.former)]
        hash_, former = (call_hash("send", place) for place in places)
        row = self._ledger.call(hash_)
        if row is None and item.former:
            row = self._ledger.call(former)
        is_last = row is not None and row.digest == digest
        state, reply = SendState.OPEN, {}
        if row is not None and is_last:
            state, reply = SendState(str(row.done_reason)), json.loads(row.reply)
        is_answered = state is SendState.ANSWERED and self._caller.looks_up  # 1
        is_unknown = state is SendState.UNKNOWN and n_refused <= reply["n_refused"]  # 2
        key = "" if row is None else row.served_digest
        if is_answered or is_unknown:
            self._keep_call(hash_, "tool", time.time(), Usage(), is_known=True)
        else:
            if not is_last or state in (SendState.ANSWERED, SendState.REFUSED):  # 4, else 3
                key = hashlib.sha256(f"{key}{hash_}{digest}".encode()).hexdigest()
            state, reply = SendState.OPEN, {"n_refused": n_refused}
        claim = Claim(hash_, text, digest, key, state, reply)
        await self._put(claim, SendState.UNKNOWN if state is SendState.OPEN else state)
        return claim

    async def end(self, claim: Claim, state: SendState, **reply: Any) -> None:
        await self._put(claim._replace(reply={**claim.reply, **reply}), state)
        if state is SendState.ANSWERED:
            self._keep_call(claim.hash, "tool", time.time(), Usage(), is_known=False)

    async def _put(self, claim: Claim, state: SendState) -> None:
        row = self._row(claim.hash, "tool", claim.request, "http.send", claim.digest)
        kept = json.dumps(self._stats.secrets.redacted(dict(claim.reply))).encode()
        row = replace(row, served_digest=claim.key, done_reason=state.value, reply=kept)
        self._ledger.record_call(row, self._stats.run)
        await self._ledger.durable()
