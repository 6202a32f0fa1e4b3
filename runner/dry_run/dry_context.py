"""Pool, files and stores of a dry run: the ledger answers, no model is asked, nothing is written.

A reply that the ledger does not have is a placeholder of one character (`UNKNOWN`), so that the
steps behind it can go on; with `is_long`, token counts take it for the longest possible answer.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddock.engine.request import (
    ChatRequest,
    Chunk,
    Constraint,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelSpec,
    Reply,
    Tool,
    Usage,
    reserved_tokens,
    resolve_sampling,
)
from paddock.runner.bind.reply import ScopedReply
from paddock.runner.core.call_cache import LedgerPool, cached_reply, cached_vectors
from paddock.runner.core.run_context import ItemOutputs
from paddock.steps.base import (
    UNKNOWN,
    EmbedModel,
    ItemName,
    ReplyNotCached,
    SearchHit,
    Vector,
    VectorRow,
    VectorStore,
    VectorStores,
)

_SURELY_FITS = 0.25
"""Of a context: a prompt whose upper estimate is below it is not counted with the vocabulary,
which takes a second to load. An answer keeps at most as much free unless its author said more."""


@dataclass(frozen=True, slots=True)
class CallBounds:
    """How many calls are made: exactly so many, or at most; `most` None: no bound is known."""

    least: int = 0
    most: int | None = 0

    def __add__(self, other: CallBounds) -> CallBounds:
        most = None if self.most is None or other.most is None else self.most + other.most
        return CallBounds(self.least + other.least, most)

    def perhaps(self) -> CallBounds:
        """Return the calls of something that may not be done at all."""
        return CallBounds(0, self.most)


NO_CALLS = CallBounds()


@dataclass
class AskedPrompts:
    """What a dry run has asked for so far, and whether the ledger has any reply at all."""

    has_history: bool
    by: dict[str, str] = field(default_factory=dict)
    """By the request's hash: the item that asked for it first."""

    def copy(self) -> AskedPrompts:
        """Return what was asked so far, to go on from in another way."""
        return AskedPrompts(self.has_history, dict(self.by))


class DryPool(LedgerPool):
    """Implements `paddock.engine.request.Pool` for one step of one item."""

    def __init__(
        self,
        real: LedgerPool,
        asked: AskedPrompts,
        item: str,
        *,
        counts_exactly: bool,
        is_long: bool = False,
        raises: bool = False,
    ) -> None:
        """`raises`: an unknown reply is `ReplyNotCached`, for steps that have a `foresee`."""
        super().__init__(real._pool, real._ledger, real._digests, real._stats, real._caller)
        self._asked = asked
        self._item = item
        self._counts_exactly = counts_exactly
        self._is_long = is_long
        self._raises = raises
        self._own: set[str] = set()
        self.calls = CallBounds()
        self.n_unknown = 0
        self.n_known = 0
        self.refs: set[str] = set()

    # --- counting

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count a prompt's tokens, roughly where it is far from the limit."""
        from paddock.engine.backends import token_counting

        more = await self._more(model, [one.content for one in messages])
        facts = await self.facts(model)
        bound = token_counting.most_in_chat(messages)
        sampling = resolve_sampling({}, model.params)
        is_usual = reserved_tokens(sampling.max_tokens, facts.n_ctx_tokens) <= (
            facts.n_ctx_tokens // 4
        )
        if self._is_exact(model) and not tools:
            if is_usual and bound + more < _SURELY_FITS * facts.n_ctx_tokens:
                return bound + more
            return more + await super().count_chat(model, messages, tools)
        return more + (bound if self._is_long else token_counting.least_in_chat(messages))

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        from paddock.engine.backends import token_counting

        more = [await self._more(model, [text]) for text in texts]
        if self._is_exact(model):
            counted = await super().count_texts(model, texts)
        else:
            count = token_counting.most_tokens if self._is_long else token_counting.least_tokens
            counted = [count(text) for text in texts]
        return [n + m for n, m in zip(counted, more, strict=True)]

    def _is_exact(self, model: ModelSpec) -> bool:
        return self._counts_exactly and not model.pool

    async def _more(self, model: ModelSpec, texts: Sequence[str]) -> int:
        n = sum(text.count(UNKNOWN) for text in texts) if self._is_long else 0
        if not n:
            return 0
        facts = await self.facts(model)
        max_tokens = resolve_sampling({}, model.params).max_tokens
        return n * reserved_tokens(max_tokens, facts.n_ctx_tokens)

    # --- asking

    async def ask(self, request: ChatRequest, *, tells: bool) -> AsyncIterator[Chunk | Reply]:
        """Yield the known reply, or a placeholder."""
        found = await self.looked_up(request)
        if found.row is not None:
            self.n_known += 1
            yield cached_reply(found.row)
            return
        texts = [message.content for message in request.messages]
        self._counted(request.model.ref, found.hash, texts)
        yield Reply(_placeholder(request.constraint), "stop", Usage(), "")

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Return the known vectors, or placeholders."""
        found = await self.looked_up_vectors(request)
        if found.row is not None:
            self.n_known += 1
            return cached_vectors(found.row)
        self._counted(request.model.ref, found.hash, request.texts)
        return EmbedReply(tuple((0.0,) for _ in request.texts), Usage(), "")

    def _counted(self, ref: str, hash_: str, texts: Sequence[str]) -> None:
        """Count a call whose reply is not known."""
        is_partly_unknown = any(UNKNOWN in text for text in texts)
        looks_up = self._caller.looks_up
        by = self._asked.by.get(hash_)
        if looks_up and by == self._item and hash_ not in self._own and not is_partly_unknown:
            self.n_known += 1  # an earlier step of the item has its reply by then
            return
        self._asked.by.setdefault(hash_, self._item)
        has_twin = by is not None or (is_partly_unknown and self._asked.has_history)
        is_sure = not looks_up or not has_twin
        self._own.add(hash_)
        self.calls += CallBounds(int(is_sure), 1)
        self.n_unknown += 1
        self.refs.add(ref)
        if self._raises:
            raise ReplyNotCached


def _placeholder(constraint: Constraint | None) -> str:
    """Return an answer that stands for one that is not known, in its form where that is simple."""
    if constraint is None or constraint.kind != "json_schema":
        return UNKNOWN
    return json.dumps(_filled_schema(json.loads(constraint.source)), ensure_ascii=False)


def _filled_schema(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return UNKNOWN
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or "properties" in schema:
        return {name: _filled_schema(one) for name, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [_filled_schema(schema.get("items"))] * max(1, schema.get("minItems", 1))
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    return {"boolean": False, "null": None}.get(str(kind), UNKNOWN)


@dataclass(frozen=True, slots=True)
class DryReply:
    """Implements `paddock.steps.base.ReplyForm`: an unknown answer passes its checks."""

    asked: ScopedReply
    pool: DryPool

    @property
    def schema(self) -> Any:
        return self.asked.schema

    @property
    def repair(self) -> int:
        """How often an answer that is known is asked for again."""
        return 0 if self.pool.n_unknown else self.asked.repair

    async def failures(self, output: Any, text: str) -> list[str]:
        return [] if self.pool.n_unknown else await self.asked.failures(output, text)

    @property
    def wants_confidence(self) -> bool:
        return self.asked.wants_confidence

    async def evidence(self, output: Any) -> Any:
        return None if self.pool.n_unknown else await self.asked.evidence(output)


class DryOutputs(ItemOutputs):
    """The files of one item: knows what was written, and notes nothing."""

    async def intend(self, path: Path, sha256: str) -> None: ...

    async def wrote(self, path: Path, sha256: str, size_bytes: int) -> None: ...

    async def holds(self, path: Path, sha256: str) -> None: ...

    async def note_removed(self, path: Path) -> None: ...

    async def note_rows_kept(self, store: Path) -> None: ...

    async def note_file_read(self, path: Path) -> None: ...

    async def note_rows_read(self, store: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class DryStores:
    """Implements `paddock.steps.base.VectorStores`: stores are read, never written."""

    real: VectorStores

    async def open(
        self,
        path: Path,
        dimensions: int | None,
        model: EmbedModel,
        *,
        is_new_allowed: bool = True,
    ) -> VectorStore:
        """Open a store to read it.

        Raises:
            StepError: as for a run.
        """
        store = await self.real.open(path, dimensions, model, is_new_allowed=is_new_allowed)
        return DryStore(store)


@dataclass(frozen=True, slots=True)
class DryStore:
    """Implements `paddock.steps.base.VectorStore` over one that is only read."""

    real: VectorStore

    @property
    def path(self) -> Path:
        return self.real.path

    @property
    def dimensions(self) -> int | None:
        return self.real.dimensions

    @property
    def n_rows(self) -> int:
        return self.real.n_rows

    async def known(self, item: ItemName, made: str = "") -> Mapping[str, Vector]:
        return await self.real.known(item, made)

    async def replace(self, item: ItemName, rows: Sequence[VectorRow]) -> int:
        return 0

    async def nearest(
        self, vector: Vector, k: int, where: Mapping[str, Any] | str | None = None
    ) -> list[SearchHit]:
        """Return the nearest rows; none where the vector is a placeholder."""
        if len(vector) != self.real.dimensions:
            return []
        return await self.real.nearest(vector, k, where)

    async def matching(
        self, text: str, k: int, where: Mapping[str, Any] | str | None = None
    ) -> list[SearchHit]:
        return await self.real.matching(text, k, where)
