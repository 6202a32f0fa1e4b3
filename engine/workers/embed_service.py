"""Embeddings inside a worker: texts come from the reading thread, vectors from the owner thread.

While batches are computed, the reading thread tokenises the next texts: whole, or split or cut if
the request allows it. On a processor, many texts are computed by several contexts over the same
weights, each in a thread of its own: the threads of one small batch would meet at barriers some
hundred times.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from paddock.engine.arrays import Tokens, Vectors
from paddock.engine.decoding.running_request import StepOutput
from paddock.engine.errors import BadRequest, TextRefused, TextTooLong
from paddock.engine.llama.forward_context import EmbeddingContext, EmbeddingModel
from paddock.engine.llama.library import LoadFailed
from paddock.engine.llama.llama_context import ContextOptions
from paddock.engine.llama.unknown_letters import unknown_share
from paddock.engine.llama.vocabulary import Vocabulary
from paddock.engine.profile.profile import Profile, prefill_s
from paddock.engine.request import OnOverflow, PackedVectors, Priority
from paddock.engine.system.frames import FrameHead
from paddock.engine.system.records import Struct, replace
from paddock.engine.wire import from_plain

from .batch_tiles import PACK_TOKENS, TILE, batch_size, n_tiles
from .embed_queue import EmbedBatch, EmbedPiece, EmbedQueue
from .worker_protocol import Embedded, EmbedOrder, WorkerOptions, pack_refusal

# A long text is divided in the last quarter of each part.
_LOOK_BACK = 4
_SENTENCE_ENDS = (".", "!", "?", "\u3002", "\uff01", "\uff1f", "\n")


class TokenisedText(Struct, frozen=True):
    pieces: tuple[Tokens, ...]
    """One, unless it is split; each with the model's special tokens around it."""
    n_cut: int = 0
    """Tokens that were cut off at its end."""
    unknown_share: float = 0.0
    """Of its letters, those that no token has."""


class TextReader:
    def __init__(self, model: Vocabulary) -> None:
        self._model = model
        bare = self._model.tokenise("a", with_special=False, parse_special=False)
        whole = self._model.tokenise("a", with_special=True, parse_special=False)
        n_around = len(whole) - len(bare)
        n_before = next(
            n for n in range(n_around + 1) if np.array_equal(whole[n : n + len(bare)], bare)
        )
        (self._before, self._after) = whole[:n_before], whole[n_before + len(bare) :]

    def read(
        self, texts: Sequence[str], n_ctx_tokens: int, on_overflow: OnOverflow = "error"
    ) -> list[TokenisedText]:
        """Return each text's pieces.

        Raises:
            TextTooLong: a text does not fit, and may be neither split nor cut.
            TextRefused: a text has no tokens.
        """
        return [replace(self._read(index, text, n_ctx_tokens, on_overflow),
                        unknown_share=unknown_share(self._model, text))
                for index, text in enumerate(texts)]  # fmt: skip

    def read_pairs(
        self, query: str, documents: Sequence[str], n_ctx_tokens: int, on_overflow: OnOverflow
    ) -> list[TokenisedText]:
        """Return the tokens of the query with each document, in the reranker's format.

        Raises:
            TextTooLong: a document does not fit together with the query, and may not be cut.
        """
        form = self._model.chat_template("rerank")
        pairs = []
        for index, document in enumerate(documents):
            tokens, n_before, after = self._pair(form, query, document)
            n_cut = max(0, len(tokens) - n_ctx_tokens)
            if n_cut:
                room = n_ctx_tokens - len(after)
                if on_overflow != "cut" or room <= n_before:
                    raise TextTooLong(index, len(tokens), n_ctx_tokens)
                tokens = np.concatenate([tokens[:room], after])
            pairs.append(TokenisedText((tokens.astype(np.int32),), n_cut))
        return pairs

    def _pair(self, form: str | None, query: str, document: str) -> tuple[Tokens, int, Tokens]:
        """Return the tokens of a pair, like llama-server.

        Also return how many stand before the document's, and the tokens that end the pair.
        """
        model = self._model
        if form is not None:
            head, _, tail = form.partition("{document}")
            head, tail = head.replace("{query}", query), tail.replace("{query}", query)
            whole, before, after = (
                model.tokenise(text, with_special=False, parse_special=True)
                for text in (head + document + tail, head, tail)
            )
            return whole, len(before), after
        query_tokens, plain = (
            model.tokenise(text, with_special=False, parse_special=False)
            for text in (query, document)
        )
        begin, middle, end = (np.array(tokens, np.int32) for tokens in model.pair_tokens())
        whole = np.concatenate([begin, query_tokens, middle, plain, end])
        return whole, len(whole) - len(plain) - len(end), end

    def _read(
        self, index: int, text: str, n_ctx_tokens: int, on_overflow: OnOverflow
    ) -> TokenisedText:
        tokens = self._model.tokenise(text, with_special=True, parse_special=False)
        if not len(tokens):
            raise TextRefused(index, "has no tokens, so it has no vector")
        if len(tokens) <= n_ctx_tokens:
            return TokenisedText((tokens,))
        room = n_ctx_tokens - len(self._before) - len(self._after)
        if on_overflow == "error" or room <= 0:
            raise TextTooLong(index, len(tokens), n_ctx_tokens)
        plain = tokens[len(self._before) : len(tokens) - len(self._after)]
        if on_overflow == "cut":
            return TokenisedText((self._with_surroundings(plain[:room]),), len(plain) - room)
        words = [self._model.piece(token).decode(errors="replace") for token in plain.tolist()]
        return TokenisedText(
            tuple(
                self._with_surroundings(plain[begin:end])
                for begin, end in split_tokens(words, room)
            )
        )

    def _with_surroundings(self, plain: Tokens) -> Tokens:
        return np.concatenate([self._before, plain, self._after]).astype(np.int32)


def split_tokens(words: Sequence[str], room: int) -> list[tuple[int, int]]:
    """Divide tokens, given by their text, into few parts of similar length.

    A part ends with a sentence if one ends in its last quarter, else before a word.

    >>> split_tokens([" a", " b", " c.", " d", " e"], 4)
    [(0, 3), (3, 5)]
    """
    parts, begin = [], 0
    while len(words) - begin > room:
        n_left = len(words) - begin
        end = begin + -(-n_left // -(-n_left // room))
        end = _split_point(words, max(begin + 1, end - (end - begin) // _LOOK_BACK), end)
        parts.append((begin, end))
        begin = end
    return [*parts, (begin, len(words))]


def _split_point(words: Sequence[str], low: int, high: int) -> int:
    """Return the last good split point in a range: after a sentence, else before a word."""
    rules: tuple[Callable[[int], bool], ...] = (
        lambda at: words[at - 1].rstrip(" ").endswith(_SENTENCE_ENDS),
        lambda at: words[at][:1].isspace(),
    )
    for is_good in rules:
        for at in range(high, low - 1, -1):
            if is_good(at):
                return at
    return high


_FILLER_TOKEN = 0  # any token: its output is not used


class Embedder:
    def __init__(self, context: EmbeddingContext, n_least: int = TILE) -> None:
        self._context = context
        self._n_least = n_least
        # The last id belongs to the tokens that fill gaps.
        self.n_most_pieces = context.options.n_seq_max - 1

    def n_tokens(self, batch: EmbedBatch) -> int:
        return batch_size(list(batch.places), self._n_least)

    def has_room(self, batch: EmbedBatch) -> bool:
        return self.n_tokens(batch) <= self._context.options.n_batch_tokens

    def compute(self, batch: EmbedBatch) -> Vectors:
        """Return the model's own vectors, shape (n_pieces, n_embedding), in the batch's order.

        Raises:
            DecodeFailed: the context is broken.
        """
        n = self.n_tokens(batch)
        tokens = np.full(n, _FILLER_TOKEN, np.int32)
        pos = np.zeros(n, np.int32)
        seq_ids = np.full(n, self.n_most_pieces, np.int32)
        for seq_id, (piece, places) in enumerate(zip(batch.pieces, batch.places, strict=True)):
            tokens[places] = piece.tokens
            pos[places] = np.arange(len(places), dtype=np.int32)
            seq_ids[places] = seq_id
        self._context.clear()
        output_mask = (seq_ids < self.n_most_pieces).astype(np.int8)  # llama.cpp computes them all
        self._context.decode(tokens, pos, seq_ids, output_mask)
        rows = [self._context.embedding(seq_id) for seq_id in range(len(batch.pieces))]
        result: Vectors = np.array(rows, np.float32)
        return result


def text_vectors(
    rows: Vectors, n_tokens: Sequence[int], n_pieces: Sequence[int], dimensions: int | None
) -> Vectors:
    """Return one vector of length 1 for each text.

    Args:
        rows: the model's vectors, shape (n_pieces, n_embedding).
        n_tokens: length of each piece, its weight in the mean.
        n_pieces: number of pieces of each text.
        dimensions: number of leading values to keep; None: all.

    Raises:
        TextRefused: a vector has no length, or is not a number.
    """
    owners = np.repeat(np.arange(len(n_pieces)), n_pieces)
    units = _normalised(rows, owners)
    if len(rows) > len(n_pieces):
        weighted = units * np.asarray(n_tokens, np.float32)[:, None]
        units = np.zeros((len(n_pieces), rows.shape[1]), np.float32)
        np.add.at(units, owners, weighted)
        units = _normalised(units, np.arange(len(units)))
    return _normalised(units[:, :dimensions], np.arange(len(units))) if dimensions else units


def rerank_scores(rows: Vectors) -> Vectors:
    """Return a reranker's first value for each document, shape (n_documents, 1).

    Raises:
        TextRefused: it is not a number.
    """
    for index, value in enumerate(rows[:, 0].tolist()):
        if not np.isfinite(value):
            raise TextRefused(index, "got a score that is NaN or Inf")
    return rows[:, :1]


def _normalised(
    rows: Vectors, owners: Tokens | np.ndarray[tuple[int], np.dtype[np.intp]]
) -> Vectors:
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    for row, length in enumerate(lengths[:, 0].tolist()):
        if not np.isfinite(length):
            raise TextRefused(int(owners[row]), "got a vector that holds NaN or Inf")
        if length == 0:
            raise TextRefused(int(owners[row]), "got a vector of length 0")
    result: Vectors = (rows / lengths).astype(np.float32)
    return result


Send = Callable[[FrameHead, bytes], None]

# Kernels of graphics devices depend on the batch size, so there it is fixed. A single text waits
# for a whole batch, so a batch takes no longer than this.
GPU_BATCH_S = 0.02
_GPU_BATCH, _MOST_GPU_BATCH = 512, 8192
_GPU_SEQUENCES = 256  # LLAMA_MAX_SEQ: texts of 30 tokens fill 8,192
# Of texts that an IR computes together those of one length are one product: 128 of 38 tokens take
# three quarters of the time that 15 at once do (MiniLM in BF16, 2 cores of an EPYC).
_IR_BATCH, _IR_SEQUENCES = 4096, 129

# A context reserves memory for its largest batch: 5 GB for 8,192 tokens of a causal model with
# 150,000 words. So it starts with this size, and grows when a longer text comes.
FIRST_BATCH_TOKENS = 512

# Contexts that compute in parallel; they share the threads.
MOST_SIDE_CONTEXTS = 8
# Longest batch of one thread: later texts wait for it. In longer steps barriers cost little.
SIDE_BATCH_S = 1.0


class _EmbedRequest(Struct, eq=False):
    request_id: int
    texts: list[TokenisedText]
    dimensions: int | None
    priority: Priority
    rows: Vectors
    n_missing: int
    is_rerank: bool = False
    has_started: bool = False

    @property
    def pieces(self) -> list[EmbedPiece]:
        flat = [tokens for text in self.texts for tokens in text.pieces]
        return [EmbedPiece(self.request_id, number, tokens) for number, tokens in enumerate(flat)]


class _ComputedBatch(Struct, frozen=True):
    batch: EmbedBatch
    rows: Vectors
    took_s: float
    embedder: Embedder


class EmbedService:
    def __init__(
        self,
        model: EmbeddingModel,
        load: WorkerOptions,
        send: Send,
        s_per_token: float = 0.0,
        profile: Profile | None = None,
    ) -> None:
        self._s_per_token = s_per_token
        self._model = model
        self._load = load
        self._send = send
        self._n_ctx_tokens = min(load.n_ctx_tokens, load.n_batch_tokens)
        # Whole tiles: the longest text must fit into a batch with the filling of its last tile.
        self._n_most_tokens = n_tiles(load.n_batch_tokens) * TILE
        usual = _IR_BATCH if load.ir else PACK_TOKENS
        n_batch = gpu_batch_tokens(profile) if load.is_gpu else usual
        n_batch = min(n_batch, self._n_most_tokens, max(load.n_cells, FIRST_BATCH_TOKENS))
        self._n_least_tokens = n_batch if load.is_gpu else TILE
        self._context = model.open_context(self._options(max(n_batch, FIRST_BATCH_TOKENS)))
        # The reading thread needs it, and must not touch a context: the owner thread replaces it.
        self._n_pooled = self._context.n_pooled
        self._reader = TextReader(model)
        self._embedder = Embedder(self._context, self._n_least_tokens)
        self._lacks_memory = False
        """Whether llama.cpp could not make a larger context, so that idle models should go."""
        self._queue = EmbedQueue(
            self._embedder.n_most_pieces, n_batch, is_flash=load.flash_attention != "off"
        )
        self._sides = [model.open_context(options) for options in self._side_options(n_batch)]
        self._free = [Embedder(context, self._n_least_tokens) for context in self._sides]
        self._requests: dict[int, _EmbedRequest] = {}
        self._inbox: queue.SimpleQueue[_EmbedRequest | Future[_ComputedBatch] | int | None]
        self._inbox = queue.SimpleQueue()
        """A request, a batch from a side context, the id of a cancelled request, or the end."""

    def close(self) -> None:
        self._inbox.put(None)

    def memory(self) -> FrameHead:
        context = sum((side.buffers for side in self._sides), self._context.buffers)
        n_tokens = self._context.options.n_ctx_tokens
        growing = self._context.buffers.by_device.copy()
        growing[""] += n_tokens * self._model.n_vocab * 4  # logits, which come with the first batch
        n_at_most = 0 if self._lacks_memory else self._load.n_cells
        return (self._model.buffers + context).as_head(growing, n_tokens, n_at_most)

    def take(self, head: FrameHead, _body: bytes) -> None:
        """Handle a request for vectors, or a cancellation.

        Raises:
            EngineError: it cannot be served; nothing was queued.
        """
        if head["op"] == "cancel":
            self._inbox.put(head["id"])
        elif head["op"] == "widen":  # every context already holds the model's longest text
            self._send({"event": "widened", "id": head["id"]}, b"")
        else:
            self._inbox.put(self._read_request(head["id"], from_plain(EmbedOrder, head["order"])))

    def _read_request(self, request_id: int, order: EmbedOrder) -> _EmbedRequest:
        dimensions = order.dimensions
        if dimensions is not None and not 0 < dimensions <= self._model.n_embedding:
            raise BadRequest(
                f"{dimensions} dimensions are asked for, but the model's vectors have "
                f"{self._model.n_embedding}"
            )
        n_ctx_tokens = min(order.n_ctx_tokens or self._n_ctx_tokens, self._n_ctx_tokens)
        query, overflow = order.query, order.on_overflow
        if query is None:
            texts = self._reader.read(order.texts, n_ctx_tokens, overflow)
        else:
            texts = self._reader.read_pairs(query, order.texts, n_ctx_tokens, overflow)
        n_pieces = sum(len(text.pieces) for text in texts)
        rows = np.empty((n_pieces, self._n_pooled), np.float32)
        return _EmbedRequest(
            request_id, texts, dimensions, order.priority, rows, n_pieces,
            is_rerank=query is not None,
        )  # fmt: skip

    def run(self) -> None:
        """Run until `close` is called.

        Raises:
            DecodeFailed: the context is broken; the process should end.
        """
        with ThreadPoolExecutor(max(1, len(self._sides)), "side") as threads:
            while self._take_messages():
                self._start(threads)

    def _start(self, threads: ThreadPoolExecutor) -> None:
        much = len(self._sides) * self._queue.n_batch_tokens
        is_side_busy = len(self._free) < len(self._sides)
        if not self._sides or not (is_side_busy or self._queue.n_tokens >= much):
            self._compute_here(self._queue.next_batch())
            return
        while self._free and len(self._queue):
            batch = self._queue.next_batch()
            embedder = self._free[-1]
            if not embedder.has_room(batch):
                self._compute_here(batch)
                continue
            self._free.pop()
            self._note_started(batch)
            threads.submit(_compute_batch, embedder, batch).add_done_callback(self._inbox.put)

    def _take_messages(self) -> bool:
        while True:
            try:
                can_start = len(self._queue) > 0 and (bool(self._free) or not self._sides)
                message = self._inbox.get(block=not can_start)
            except queue.Empty:
                return True
            if message is None:
                return False
            if isinstance(message, Future):
                computed = message.result()
                self._free.append(computed.embedder)
                self._finish(computed)
            elif isinstance(message, int):
                self._queue.drop(message)
                self._requests.pop(message, None)
            elif message.n_missing:
                self._requests[message.request_id] = message
                self._queue.add(message.pieces, message.priority)
            else:
                self._answer(message)

    def _compute_here(self, batch: EmbedBatch) -> None:
        n_tokens = sum(len(piece.tokens) for piece in batch.pieces)
        expected_s = n_tokens * self._s_per_token
        if expected_s > self._load.step_s:  # a text cannot be computed in parts
            self._send({"event": "alive", "for_s": 2 * expected_s}, b"")
        if self._has_room(batch):
            self._note_started(batch)
            computed = _compute_batch(self._embedder, batch)
            self._s_per_token = computed.took_s / max(1, n_tokens)
            self._finish(computed)

    def _note_started(self, batch: EmbedBatch) -> None:
        ids = dict.fromkeys(piece.request_id for piece in batch.pieces)
        new = [number for number in ids if not self._requests[number].has_started]
        for number in new:
            self._requests[number].has_started = True
        if new:
            self._send({"event": "started", "ids": new}, b"")

    def _finish(self, computed: _ComputedBatch) -> None:
        complete, progressed = [], []
        for piece, row in zip(computed.batch.pieces, computed.rows, strict=True):
            request = self._requests.get(piece.request_id)
            if request is None:  # cancelled while it was computed
                continue
            request.rows[piece.number] = row
            request.n_missing -= 1
            progressed.append(request)
            if not request.n_missing:
                complete.append(request)
        ids = dict.fromkeys(request.request_id for request in progressed)
        output = StepOutput(
            progressed=list(ids),
            n_tokens=sum(len(piece.tokens) for piece in computed.batch.pieces),
            n_sequences=len(computed.batch.pieces),
            n_waiting=len(self._queue),
            step_s=computed.took_s,
        )
        self._send({"event": "turns", "turns": [output.as_head()]}, b"")
        for request in complete:
            self._requests.pop(request.request_id)
            self._answer(request)

    def _has_room(self, batch: EmbedBatch) -> bool:
        """Make a larger context if the batch needs one; refuse its requests if memory fails."""
        n_tokens = self._embedder.n_tokens(batch)
        options = self._context.options
        if n_tokens <= options.n_batch_tokens:
            return True
        n_batch = options.n_batch_tokens
        while n_batch < n_tokens:
            n_batch *= 2
        self._context.close()
        try:
            self._context = self._model.open_context(self._options(n_batch))
            self._lacks_memory = False
        except LoadFailed:
            self._context = self._model.open_context(options)
            self._lacks_memory = True
            for request_id in {piece.request_id for piece in batch.pieces}:
                why = BadRequest(f"there is no memory to embed a text of {n_tokens} tokens at once")
                self._send(pack_refusal(request_id, why), b"")
                self._queue.drop(request_id)
                del self._requests[request_id]
        self._embedder = Embedder(self._context, self._n_least_tokens)
        self._send({"event": "memory", "memory": self.memory()}, b"")
        return n_tokens <= self._context.options.n_batch_tokens

    def _side_options(self, n_tokens: int) -> list[ContextOptions]:
        n_threads = self._load.n_threads
        batch_s = n_tokens * self._s_per_token * n_threads
        # An IR's threads belong to its one computation
        is_one = self._load.is_gpu or bool(self._load.ir)
        if is_one or n_threads < 2 or batch_s > SIDE_BATCH_S:
            return []
        n_sides = min(n_threads, MOST_SIDE_CONTEXTS)
        options = replace(self._options(n_tokens), n_threads=n_threads // n_sides)
        return [options] * n_sides

    def _options(self, n_tokens: int) -> ContextOptions:
        load, n_tokens = self._load, min(n_tokens, self._n_most_tokens)
        n_sequences = _IR_SEQUENCES if load.ir else 2 * load.n_parallel
        return ContextOptions(
            n_ctx_tokens=n_tokens,
            n_batch_tokens=n_tokens,
            n_seq_max=_GPU_SEQUENCES if load.is_gpu else n_sequences,
            n_threads=load.n_threads,
            embeds=True,
            flash_attention=load.flash_attention,
            kv_cache_type=load.kv_cache_type,
        )

    def _answer(self, request: _EmbedRequest) -> None:
        sizes = [len(tokens) for text in request.texts for tokens in text.pieces]
        n_pieces = [len(text.pieces) for text in request.texts]
        n_cut = tuple(text.n_cut for text in request.texts)
        unknown = tuple(text.unknown_share for text in request.texts)
        try:
            if request.is_rerank:
                vectors = rerank_scores(request.rows)
            else:
                vectors = text_vectors(request.rows, sizes, n_pieces, request.dimensions)
        except TextRefused as error:
            self._send(pack_refusal(request.request_id, error), b"")
            return
        rows = PackedVectors(len(vectors), np.ascontiguousarray(vectors, np.float32).tobytes())
        answer = Embedded(rows, sum(sizes), tuple(n_pieces), n_cut, unknown)
        head, body = answer.pack()
        self._send({"event": "embedded", "id": request.request_id, **head}, body)


def _compute_batch(embedder: Embedder, batch: EmbedBatch) -> _ComputedBatch:
    began = time.perf_counter()
    rows = embedder.compute(batch)
    return _ComputedBatch(batch, rows, time.perf_counter() - began, embedder)


def gpu_batch_tokens(profile: Profile | None) -> int:
    """Return how many tokens a graphics device computes within `GPU_BATCH_S`, at least 512."""
    n_tokens = _GPU_BATCH
    while profile is not None and n_tokens < _MOST_GPU_BATCH:
        took_s = prefill_s(profile, 2 * n_tokens)
        if not 0 < took_s <= GPU_BATCH_S:
            break
        n_tokens *= 2
    return n_tokens
