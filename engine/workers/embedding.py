"""Embeddings inside a worker: texts in from the reading thread, vectors out of the owner thread.

While the owner thread computes one batch, the reading thread tokenises what comes next.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass

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
        self._orders: dict[int, _Order] = {}
        self._inbox: queue.SimpleQueue[_Order | int | None] = queue.SimpleQueue()
        """A request, the id of one that nobody waits for any more, or the end."""

    def close(self) -> None:
        """End the work after the present batch."""
        self._inbox.put(None)

    def memory(self) -> Head:
        """Return the memory that the model takes with its first context."""
        context = self._context.buffers
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
        while self._take_posts():
            if len(self._line):
                self._step(self._line.next_batch())

    def _take_posts(self) -> bool:
        """Empty the inbox, waiting only if there is nothing to do; False at the end."""
        while True:
            try:
                post = self._inbox.get(block=not len(self._line))
            except queue.Empty:
                return True
            if post is None:
                return False
            if isinstance(post, int):
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
        if not self._has_room(batch):
            return
        began = time.perf_counter()
        rows = self._embedder.compute(batch)
        took_s = time.perf_counter() - began
        self._s_per_token = took_s / max(1, n_tokens)
        complete, moved = [], []
        for piece, row in zip(batch.pieces, rows, strict=True):
            order = self._orders[piece.request_id]
            order.rows[piece.number] = row
            order.n_missing -= 1
            moved.append(order)
            if not order.n_missing:
                complete.append(order)
        self._tell(batch, moved, took_s)
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


def gpu_batch(profile: Profile | None) -> int:
    """Return how many tokens a graphics device computes within `GPU_BATCH_S`, 512 at least."""
    n_tokens = _GPU_BATCH
    while profile is not None and n_tokens < _MOST_GPU_BATCH:
        took_s = prefill_s(profile, 2 * n_tokens)
        if not 0 < took_s <= GPU_BATCH_S:
            break
        n_tokens *= 2
    return n_tokens
