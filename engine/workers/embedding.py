"""Embeddings inside a worker: texts in from the reading thread, vectors out of the owner thread.

While batches are computed, the reading thread tokenises what comes next. On a processor, what waits
in large numbers is computed by several contexts over the same weights, each in a thread of its own:
the threads of one small batch meet at barriers some hundred times.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from paddock.engine.arrays import Vectors
from paddock.engine.decoding.told import Told
from paddock.engine.embedding.embedder import Embedder, finished, scores
from paddock.engine.embedding.line import PACK_TOKENS, Batch, Line, Piece
from paddock.engine.embedding.texts import Read, TextReader
from paddock.engine.embedding.tiles import TILE, n_tiles
from paddock.engine.errors import BadRequest, TextRefused
from paddock.engine.native.context import Context, ContextOptions
from paddock.engine.native.faults import LoadFailed
from paddock.engine.native.library import supports_gpu
from paddock.engine.native.model import Model
from paddock.engine.profile.profile import Profile, prefill_s
from paddock.engine.request import Priority

from . import wire
from .frames import Head
from .load import Load

Send = Callable[[Head, bytes], None]

# Kernels of graphics devices depend on the size of the batch, so there it is always the same one.
# A single text waits for a whole batch, so that one takes no longer than this.
GPU_BATCH_S = 0.02
_GPU_BATCH, _MOST_GPU_BATCH = 512, 8192
_GPU_SEQUENCES = 256  # LLAMA_MAX_SEQ: texts of 30 tokens fill 8,192

# A context reserves memory for its largest batch: 5 GB for 8,192 tokens of a causal model with
# 150,000 words. So it begins with one of so many, and grows when a longer text comes.
FIRST_BATCH = 512

# Contexts that compute side by side; more cores than that are shared out among them.
MOST_SIDE_CONTEXTS = 8
# A batch takes one thread no longer than this: a text that comes late waits for it. Where steps are
# longer, barriers cost little.
SIDE_BATCH_S = 1.0


@dataclass(slots=True, eq=False)
class _Order:
    """One request, and the vectors of its pieces as they come."""

    request_id: int
    texts: list[Read]
    dimensions: int | None
    priority: Priority
    rows: Vectors
    n_missing: int
    is_rerank: bool = False
    has_started: bool = False

    @property
    def pieces(self) -> list[Piece]:
        """Every piece, in order."""
        flat = [tokens for text in self.texts for tokens in text.pieces]
        return [Piece(self.request_id, number, tokens) for number, tokens in enumerate(flat)]


@dataclass(frozen=True, slots=True)
class _Computed:
    """A batch's vectors, and the context that is free again."""

    batch: Batch
    rows: Vectors
    took_s: float
    embedder: Embedder


class EmbedService:
    """Serves one model. `take` runs in the reading thread, `run` in the owner thread."""

    def __init__(
        self,
        model: Model,
        load: Load,
        send: Send,
        s_per_token: float = 0.0,
        profile: Profile | None = None,
    ) -> None:
        self._s_per_token = s_per_token
        self._model = model
        self._load = load
        self._send = send
        self._n_ctx_tokens = min(load.n_ctx_tokens, load.n_batch_tokens)
        # Whole tiles: the longest text must fit into a batch with what fills its last one.
        self._n_most_tokens = n_tiles(load.n_batch_tokens) * TILE
        n_batch = gpu_batch(profile) if supports_gpu() else PACK_TOKENS
        n_batch = min(n_batch, self._n_most_tokens)
        self._n_least_tokens = n_batch if supports_gpu() else TILE
        self._context = Context(model, self._options(max(n_batch, FIRST_BATCH)))
        self._reader = TextReader(model)
        self._embedder = Embedder(self._context, self._n_least_tokens)
        self._line = Line(
            self._embedder.n_most_pieces, n_batch, is_flash=load.flash_attention != "off"
        )
        self._sides = [Context(model, options) for options in self._side_options(n_batch)]
        self._free = [Embedder(context, self._n_least_tokens) for context in self._sides]
        """The side contexts that compute nothing now."""
        self._orders: dict[int, _Order] = {}
        self._inbox: queue.SimpleQueue[_Order | Future[_Computed] | int | None]
        self._inbox = queue.SimpleQueue()
        """A request, a batch from a side context, the id of a cancelled request, or the end."""

    def close(self) -> None:
        """End the work after the present batch."""
        self._inbox.put(None)

    def memory(self) -> Head:
        """Return the memory that the model takes with its first contexts."""
        context = sum((side.buffers for side in self._sides), self._context.buffers)
        n_cells = self._context.options.n_ctx_tokens
        return (self._model.buffers + context).as_head(context.cells, n_cells, self._load.n_cells)

    def take(self, head: Head, _body: bytes) -> None:
        """Take a request, or the end of one.

        Raises:
            EngineError: it cannot be served; nothing was queued.
        """
        if head["op"] == "cancel":
            self._inbox.put(head["id"])
        elif head["op"] == "widen":  # every context holds the longest text that the model reads
            self._send({"event": "widened", "id": head["id"]}, b"")
        else:
            self._inbox.put(self._order(head))

    def _order(self, head: Head) -> _Order:
        dimensions = head["dimensions"]
        if dimensions is not None and not 0 < dimensions <= self._model.n_embedding:
            raise BadRequest(
                f"{dimensions} dimensions are asked for, but the model's vectors have "
                f"{self._model.n_embedding}"
            )
        n_ctx_tokens = min(head.get("n_ctx_tokens") or self._n_ctx_tokens, self._n_ctx_tokens)
        query, overflow = head["query"], head["on_overflow"]
        if query is None:
            texts = self._reader.read(head["texts"], n_ctx_tokens, overflow)
        else:
            texts = self._reader.read_pairs(query, head["texts"], n_ctx_tokens, overflow)
        n_pieces = sum(len(text.pieces) for text in texts)
        rows = np.empty((n_pieces, self._context.n_pooled), np.float32)
        priority = head.get("priority", "normal")
        return _Order(
            head["id"], texts, dimensions, priority, rows, n_pieces, is_rerank=query is not None
        )

    def run(self) -> None:
        """Work until `close` is called.

        Raises:
            DecodeFailed: the context is broken; the process should end.
        """
        with ThreadPoolExecutor(max(1, len(self._sides)), "side") as threads:
            while self._take_posts():
                self._start(threads)

    def _start(self, threads: ThreadPoolExecutor) -> None:
        """Start a batch in every free side context where much waits, else compute one here."""
        much = len(self._sides) * self._line.n_batch_tokens
        if not self._sides or not (self._is_beside or self._line.n_tokens >= much):
            self._step(self._line.next_batch())
            return
        while self._free and len(self._line):
            batch = self._line.next_batch()
            embedder = self._free[-1]
            if not embedder.has_room(batch):
                self._step(batch)
                continue
            self._free.pop()
            threads.submit(_computed, embedder, batch).add_done_callback(self._inbox.put)

    @property
    def _is_beside(self) -> bool:
        """Whether side contexts are computing."""
        return len(self._free) < len(self._sides)

    def _can_start(self) -> bool:
        return len(self._line) > 0 and (bool(self._free) or not self._sides)

    def _take_posts(self) -> bool:
        """Empty the inbox, waiting only if there is nothing to do; False at the end."""
        while True:
            try:
                post = self._inbox.get(block=not self._can_start())
            except queue.Empty:
                return True
            if post is None:
                return False
            if isinstance(post, Future):
                computed = post.result()
                self._free.append(computed.embedder)
                self._finish(computed)
            elif isinstance(post, int):
                self._line.drop(post)
                self._orders.pop(post, None)
            elif post.n_missing:
                self._orders[post.request_id] = post
                self._line.add(post.pieces, post.priority)
            else:
                self._answer(post)

    def _step(self, batch: Batch) -> None:
        n_tokens = sum(len(piece.tokens) for piece in batch.pieces)
        expected_s = n_tokens * self._s_per_token
        if expected_s > self._load.step_s:  # a text cannot be computed in parts
            self._send({"event": "alive", "for_s": 2 * expected_s}, b"")
        if self._has_room(batch):
            computed = _computed(self._embedder, batch)
            self._s_per_token = computed.took_s / max(1, n_tokens)
            self._finish(computed)

    def _finish(self, computed: _Computed) -> None:
        """Hand out a batch's vectors, and answer requests that have all of theirs."""
        complete, moved = [], []
        for piece, row in zip(computed.batch.pieces, computed.rows, strict=True):
            order = self._orders.get(piece.request_id)
            if order is None:  # cancelled while it was computed
                continue
            order.rows[piece.number] = row
            order.n_missing -= 1
            moved.append(order)
            if not order.n_missing:
                complete.append(order)
        self._tell(computed.batch, moved, computed.took_s)
        for order in complete:
            self._orders.pop(order.request_id)
            self._answer(order)

    def _has_room(self, batch: Batch) -> bool:
        """Make a larger context where the batch needs one; without memory for it, refuse."""
        n_tokens = self._embedder.n_tokens(batch)
        options = self._context.options
        if n_tokens <= options.n_batch_tokens:
            return True
        n_batch = options.n_batch_tokens
        while n_batch < n_tokens:
            n_batch *= 2
        self._context.close()
        try:
            self._context = Context(self._model, self._options(n_batch))
        except LoadFailed:
            self._context = Context(self._model, options)
            for request_id in {piece.request_id for piece in batch.pieces}:
                why = BadRequest(f"there is no memory to embed a text of {n_tokens} tokens at once")
                self._send(wire.pack_refusal(request_id, why), b"")
                self._line.drop(request_id)
                del self._orders[request_id]
        self._embedder = Embedder(self._context, self._n_least_tokens)
        return n_tokens <= self._context.options.n_batch_tokens

    def _side_options(self, n_tokens: int) -> list[ContextOptions]:
        """Return the shapes of the side contexts, which share the threads; none is a choice too."""
        n_threads = self._load.n_threads
        batch_s = n_tokens * self._s_per_token * n_threads
        if supports_gpu() or n_threads < 2 or batch_s > SIDE_BATCH_S:
            return []
        n_sides = min(n_threads, MOST_SIDE_CONTEXTS)
        options = replace(self._options(n_tokens), n_threads=n_threads // n_sides)
        return [options] * n_sides

    def _options(self, n_tokens: int) -> ContextOptions:
        """Return the shape of a context whose largest batch has so many tokens."""
        load, n_tokens = self._load, min(n_tokens, self._n_most_tokens)
        return ContextOptions(
            n_ctx_tokens=n_tokens,
            n_batch_tokens=n_tokens,
            n_seq_max=_GPU_SEQUENCES if supports_gpu() else 2 * load.n_parallel,
            n_threads=load.n_threads,
            embeds=True,
            flash_attention=load.flash_attention,
            kv_cache_type=load.kv_cache_type,
        )

    def _tell(self, batch: Batch, moved: list[_Order], took_s: float) -> None:
        ids = dict.fromkeys(order.request_id for order in moved)
        new = dict.fromkeys(order.request_id for order in moved if not order.has_started)
        for order in moved:
            order.has_started = True
        told = Told(
            started=list(new),
            progressed=list(ids),
            n_tokens=sum(len(piece.tokens) for piece in batch.pieces),
            n_sequences=len(batch.pieces),
            n_waiting=len(self._line),
            step_s=took_s,
        )
        self._send({"event": "turns", "turns": [told.as_head()]}, b"")

    def _answer(self, order: _Order) -> None:
        sizes = [len(tokens) for text in order.texts for tokens in text.pieces]
        n_pieces = [len(text.pieces) for text in order.texts]
        n_cut = [text.n_cut for text in order.texts]
        try:
            if order.is_rerank:
                vectors = scores(order.rows)
            else:
                vectors = finished(order.rows, sizes, n_pieces, order.dimensions)
        except TextRefused as error:
            self._send(wire.pack_refusal(order.request_id, error), b"")
            return
        self._send(*wire.pack_embedded(order.request_id, vectors, sum(sizes), n_pieces, n_cut))


def _computed(embedder: Embedder, batch: Batch) -> _Computed:
    began = time.perf_counter()
    rows = embedder.compute(batch)
    return _Computed(batch, rows, time.perf_counter() - began, embedder)


def gpu_batch(profile: Profile | None) -> int:
    """Return how many tokens a graphics device computes within `GPU_BATCH_S`, 512 at least."""
    n_tokens = _GPU_BATCH
    while profile is not None and n_tokens < _MOST_GPU_BATCH:
        took_s = prefill_s(profile, 2 * n_tokens)
        if not 0 < took_s <= GPU_BATCH_S:
            break
        n_tokens *= 2
    return n_tokens
