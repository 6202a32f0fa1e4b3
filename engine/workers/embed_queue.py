"""The queue of texts to embed: requests take turns, one text each, urgent ones first. Pure.

The first text goes into the next batch; the longest of the next texts that fit fill it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from paddock.engine.arrays import Tokens
from paddock.engine.request import PRIORITY_RANK, Priority
from paddock.engine.system.records import Struct, field

from .batch_tiles import PACK_TOKENS, TILE, BatchTiles, n_tiles

# Number of texts that are considered for a batch, or as many as it may have.
_PACK_WINDOW = 64

# A request that has been passed over this often goes before more urgent ones.
_MOST_TIMES_PASSED_OVER = 8


class EmbedPiece(Struct, frozen=True):
    request_id: int
    number: int
    """Index within the request."""
    tokens: Tokens


class EmbedBatch(Struct, frozen=True):
    """Pieces that are computed together, and each one's positions in the batch."""

    pieces: tuple[EmbedPiece, ...]
    places: tuple[Tokens, ...]


class _WaitingTexts(Struct, eq=False):
    pieces: deque[EmbedPiece]
    rank: int
    arrival: int
    n_passes: int = 0

    @property
    def turn(self) -> tuple[int, int]:
        """Order of service."""
        return (-1 if self.n_passes >= _MOST_TIMES_PASSED_OVER else self.rank), self.arrival


class EmbedQueue(Struct):
    n_most_pieces: int
    n_batch_tokens: int = PACK_TOKENS
    is_flash: bool = True
    _waiting: dict[int, _WaitingTexts] = field(default_factory=dict)
    _n_arrived: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def n_tokens(self) -> int:
        return sum(len(piece.tokens) for texts in self._waiting.values() for piece in texts.pieces)

    def add(self, pieces: Sequence[EmbedPiece], priority: Priority) -> None:
        self._n_arrived += 1
        if pieces:
            texts = _WaitingTexts(deque(pieces), PRIORITY_RANK[priority], self._n_arrived)
            self._waiting[pieces[0].request_id] = texts

    def drop(self, request_id: int) -> None:
        self._waiting.pop(request_id, None)

    def next_batch(self) -> EmbedBatch:
        window = list(islice(self._in_turn(), max(_PACK_WINDOW, self.n_most_pieces)))
        first, *others = window
        n_most = max(self.n_batch_tokens // TILE, n_tiles(len(first.tokens)))
        tiles = BatchTiles(n_most, is_flash=self.is_flash)
        tiles.place(len(first.tokens))
        chosen = [first]
        for piece in sorted(others, key=lambda piece: -len(piece.tokens)):
            if len(chosen) == self.n_most_pieces:
                break
            if tiles.place(len(piece.tokens)):
                chosen.append(piece)
        served = {piece.request_id for piece in chosen}
        taken = {(piece.request_id, piece.number) for piece in chosen}
        for request_id, texts in tuple(self._waiting.items()):
            if request_id not in served:
                texts.n_passes += 1
                continue
            texts.n_passes = 0
            self._n_arrived += 1
            texts.arrival = self._n_arrived  # now the last of its rank
            texts.pieces = deque(
                piece for piece in texts.pieces if (request_id, piece.number) not in taken
            )
            if not texts.pieces:
                del self._waiting[request_id]
        return EmbedBatch(tuple(chosen), tuple(tiles.places()))

    def _in_turn(self) -> Iterator[EmbedPiece]:
        """Yield the pieces, urgent ranks first, round-robin over the requests of a rank."""
        in_order = sorted(self._waiting.values(), key=lambda texts: texts.turn)
        for rank in sorted({texts.turn[0] for texts in in_order}):
            iterators = [iter(texts.pieces) for texts in in_order if texts.turn[0] == rank]
            while iterators:
                left = []
                for pieces in iterators:
                    piece = next(pieces, None)
                    if piece is not None:
                        yield piece
                        left.append(pieces)
                iterators = left
