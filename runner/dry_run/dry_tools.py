"""Tools of a step in a dry run: no model is asked, nothing is written.

The ledger answers instead of the models. A reply that it does not have is a placeholder of one
character (`PLACEHOLDER`), so that the steps behind it can go on; with `is_long`, token counts take
it for the longest possible answer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from paddock.engine.backends import token_bounds
from paddock.engine.errors import PromptTooLong
from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelSpec,
    PackedVectors,
    Reply,
    Tool,
    Usage,
    reserved_tokens,
    resolve_sampling,
)
from paddock.engine.system.files import TemporaryFile
from paddock.engine.system.records import Struct, field, replace
from paddock.runner.answers.scoped_reply import ScopedReply
from paddock.runner.core.calls.call_cache import ChunkListener, LedgerPool
from paddock.runner.core.calls.call_rows import cached_reply, cached_vectors
from paddock.runner.core.calls.recorded_calls import CallOrigin
from paddock.runner.core.outputs.item_outputs import RecordedOutputs
from paddock.runner.core.run_context import RunContext
from paddock.steps.base import (
    PLACEHOLDER,
    CallForecast,
    EmbedModel,
    ItemName,
    ReplyNotCached,
    SearchHit,
    StepError,
    Vector,
    VectorRow,
)
from paddock.steps.vectors.open_stores import OpenStores, StoreHandle
from paddock.steps.vectors.where_filter import Where

from .call_bounds import NO_CALLS, CallBounds
from .doubt import Doubt

_SURELY_FITS = 0.25
"""Of a context: a prompt whose upper estimate is below it is not counted with the vocabulary,
which takes a second to load. An answer keeps at most as much free unless its author said more."""


class AskedPrompts(Struct):
    has_history: bool
    """Whether the ledger has any reply at all."""
    is_local: bool = True
    """Models are served here: their tokens are counted, and no answer leaves its form."""
    items: dict[str, tuple[str, str] | None] = field(default_factory=dict)
    """By the request's hash: the item that asked for it first; None: its reply serves all items."""

    def as_of(self, n_prompts: int) -> AskedPrompts:
        """Return a copy with the first so many prompts, for another try."""
        return replace(self, items=dict(islice(self.items.items(), n_prompts)))

    def note(self, hash_: str, item: tuple[str, str], *, serves_all: bool) -> None:
        self.items[hash_] = None if serves_all else self.items.get(hash_, item)


class DryPool(LedgerPool):
    """Implements `paddock.engine.request.Pool` for one step of one item."""

    def __init__(
        self,
        context: RunContext,
        caller: CallOrigin,
        prompts: AskedPrompts,
        doubt: Doubt = Doubt.NONE,
        *,
        is_long: bool = False,
        in_tree: bool = False,
    ) -> None:
        """`is_long`: an answer that is not known is the longest possible.

        `in_tree`: the step counts its calls itself (`Step.foresee`): an unknown reply is
        `ReplyNotCached`.
        """
        super().__init__(context.pool, context.ledger, context.world.models, context.stats, caller)
        self.prompts = prompts
        self.doubt = doubt
        """About what the step reads."""
        self.asked_unknown = False
        """It asked for a reply that the ledger does not have."""
        self.asked_equal = False
        """It asked for such a reply twice: what is asked about the two may be equal too."""
        self._is_long = is_long
        self._in_tree = in_tree
        self.calls = NO_CALLS
        """Calls to be made, as far as they were asked for."""
        self.n_known = 0
        """Calls whose replies the ledger has, or has by then."""

    @property
    def reads_unknown(self) -> bool:
        """Whether the step reads values, files or stores that may be others in the run."""
        return bool(self.doubt & (Doubt.VALUES | Doubt.FILES))

    @property
    def is_in_doubt(self) -> bool:
        return self.asked_unknown or bool(self.doubt)

    @property
    def call_forecast(self) -> CallForecast:
        return CallForecast(self.n_known + self.calls.most.total(), self.n_known)

    # --- counting

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count a prompt's tokens, roughly where it is far from the limit."""
        texts = [message.content for message in messages]
        n_reserved = await self._reserved_for_unknown(model, texts)
        bound = token_bounds.most_in_chat(messages)
        if self._is_exact(model) and not tools:
            reserved, room = await self._reserved(model, {})
            if 4 * reserved <= room and bound + n_reserved < _SURELY_FITS * room:
                return bound + n_reserved
            return n_reserved + await super().count_chat(model, messages, tools)
        return n_reserved + (bound if self._is_long else token_bounds.least_in_chat(messages))

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        reserved = [await self._reserved_for_unknown(model, [text]) for text in texts]
        count = token_bounds.most_tokens if self._is_long else token_bounds.least_tokens
        is_exact = self._is_exact(model)
        counted = await super().count_texts(model, texts) if is_exact else list(map(count, texts))
        return [n + m for n, m in zip(counted, reserved, strict=True)]

    def _is_exact(self, model: ModelSpec) -> bool:
        return self.prompts.is_local and not model.pool

    async def _reserved_for_unknown(self, model: ModelSpec, texts: Sequence[str]) -> int:
        n = sum(text.count(PLACEHOLDER) for text in texts) if self._is_long else 0
        return n * (await self._reserved(model, {}))[0] if n else 0

    async def _reserved(self, model: ModelSpec, params: Mapping[str, Any]) -> tuple[int, int]:
        """Return the tokens that are kept for an answer, and those of the context."""
        n_ctx_tokens = (await self.facts(model)).n_ctx_tokens
        max_tokens = resolve_sampling(params, model.params).max_tokens
        return reserved_tokens(max_tokens, n_ctx_tokens), n_ctx_tokens

    # --- asking

    def _note_known(self) -> None:
        """Count a call that the ledger has a reply to.

        A placeholder may have been taken for a value, such as the first label of a list for one
        that is not chosen yet: the run may ask for something else. In a tree most calls are about
        other values.
        """
        self.n_known += 1
        if self.reads_unknown and not self._in_tree:
            self.calls += CallBounds(n_extra=1)

    async def ask(self, request: ChatRequest, hear: ChunkListener | None = None) -> Reply:
        """Return the known reply, or a placeholder; raise PromptTooLong as the real pool would."""
        found = await self.looked_up(request)
        if found.row is not None:
            self._note_known()
            return cached_reply(found.row)
        n_tokens = await self.count_chat(request.model, request.messages, request.tools)
        reserved, room = await self._reserved(request.model, request.params)
        if n_tokens + reserved > room:
            raise PromptTooLong(n_tokens, reserved, room)
        self._note_unknown(request.model.ref, found.hash, [msg.content for msg in request.messages])
        text, form = PLACEHOLDER, request.constraint
        if form is not None and form.kind == "json_schema":
            text = json.dumps(_filled_schema(json.loads(form.source)), ensure_ascii=False)
        return Reply(text, "stop", Usage(), "")

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        found = await self.looked_up_vectors(request)
        if found.row is not None:
            self._note_known()
            return cached_vectors(found.row)
        self._note_unknown(request.model.ref, found.hash, request.texts)
        return EmbedReply(PackedVectors.of([(0.0,)] * len(request.texts)), Usage(), "")

    def _note_unknown(self, model: str, hash_: str, texts: Sequence[str]) -> None:
        """Count a call whose reply the ledger does not have.

        1. The same item has asked for it, or an item whose reply serves all: it is known by then.
        2. It may be known by then: another item has asked for it, or placeholders stand in it.
        3. It is made in any case.
        """
        self.asked_unknown = True
        item, looks_up = (self._caller.scope_id, self._caller.key), self._caller.looks_up
        is_asked = hash_ in self.prompts.items
        is_shared = is_asked and self.prompts.items[hash_] in (None, item)
        may_differ = self.reads_unknown or any(PLACEHOLDER in text for text in texts)
        if looks_up and is_shared and not may_differ:  # 1
            self.n_known += 1
            self.asked_equal = True
            return
        self.prompts.note(hash_, item, serves_all=looks_up)
        may_be_known = is_asked or (may_differ and self.prompts.has_history)
        is_sure = not (looks_up and may_be_known)  # 2, 3
        self.calls += CallBounds(Counter([model]), Counter([model] if is_sure else ()))
        if self._in_tree:
            raise ReplyNotCached


class DryReply(ScopedReply, frozen=True, kw_only=True):
    """The step's `reply`: an unknown answer passes its checks."""

    pool: DryPool

    @property
    def repair(self) -> int:
        """How often an answer that is known is asked for again."""
        return 0 if self.pool.asked_unknown else super().repair

    async def checked(self, output: Any, text: str) -> list[str]:
        return [] if self.pool.asked_unknown else await super().checked(output, text)

    async def evidence(self, output: Any) -> Any:
        return None if self.pool.asked_unknown else await super().evidence(output)


class DryOutputs(RecordedOutputs):
    """Implements `paddock.steps.base.OutputFiles`: its writing half does nothing."""

    def may_lose_rows(self, path: Path, n_before: int, n_now: int) -> bool:
        return True

    def delete_when_done(self, path: Path) -> bool:
        return True

    async def make_way(self, path: Path) -> None: ...
    async def sync(self, file: TemporaryFile) -> None: ...
    async def intend(self, path: Path, sha256: str, size_bytes: int | None = None) -> None: ...
    async def wrote(self, path: Path, sha256: str) -> None: ...
    async def holds(self, path: Path, sha256: str) -> None: ...
    def will_move(self, path: Path, target: Path, sha256: str) -> None: ...
    async def note_removed(self, path: Path) -> None: ...
    async def note_rows_kept(self, store: Path) -> None: ...
    async def note_file_read(self, path: Path) -> None: ...
    async def note_rows_read(self, store: Path) -> None: ...


class DryStores(Struct, frozen=True):
    """Implements `paddock.steps.base.VectorStores`: stores are read, never written."""

    real: OpenStores
    pool: DryPool

    async def open(
        self, path: Path, dimensions: int | None, model: EmbedModel, *, is_new_allowed: bool = True
    ) -> DryStore:
        store = await self.real.open(path, dimensions, model, is_new_allowed=is_new_allowed)
        if not (is_new_allowed or store.n_rows) and self.pool.doubt:
            raise StepError(f"what the store '{path}' will hold is not known.")
        fields = store.writer, store.model, store.home, store.requested_dimensions
        return DryStore(*fields, pool=self.pool)


class DryStore(StoreHandle, frozen=True, kw_only=True):
    pool: DryPool

    async def replace(self, item: ItemName, rows: Sequence[VectorRow]) -> int:
        return 0

    async def nearest(
        self, vectors: Sequence[Vector], k: int, where: Where = None
    ) -> list[list[SearchHit]]:
        is_other = any(len(vector) != self.dimensions for vector in vectors)
        return [[] for _ in vectors] if is_other else await super().nearest(vectors, k, where)

    async def matching(self, text: str, k: int, where: Where = None) -> list[SearchHit]:
        """Return the rows that match best; none are known where they are to be indexed first."""
        if await self.writer.lacks_word_index():
            self.pool.doubt |= Doubt.VALUES
            return []
        return await super().matching(text, k, where)


def without_texts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: without_texts(part) for name, part in value.items()}
    if isinstance(value, list):
        return [without_texts(part) for part in value]
    return PLACEHOLDER if isinstance(value, str) else value


def _filled_schema(schema: Any) -> Any:
    """Return a placeholder in the form that is asked for, where that is simple."""
    if not isinstance(schema, Mapping):
        return PLACEHOLDER
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or "properties" in schema:
        return {name: _filled_schema(part) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [_filled_schema(schema.get("items"))] * max(1, schema.get("minItems", 1))
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    return {"boolean": False, "null": None}.get(str(kind), PLACEHOLDER)
