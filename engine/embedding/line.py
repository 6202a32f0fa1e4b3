"""Who is embedded next: texts of many requests share batches, and none holds the others up. Pure.

Requests take turns, one text each, the urgent ones first. What stands first goes into the next
batch; of the texts that come soon after it, the longest that fit fill it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from paddock.engine.arrays import Tokens
from paddock.engine.request import Priority

from .tiles import TILE, Tiles, n_tiles

# Batches of 64 to 512 tokens are equally quick on a processor (3,560 to 3,650 tokens a second with
# one thread, all-minilm); shorter ones end sooner for whoever waits.
PACK_TOKENS = 256

# So many texts are looked at for what fits beside the first, or as many as a batch may have.
_WINDOW = 64

# A request that has been passed over so often goes before more urgent ones.
_MOST_PASSES = 8

_RANK: dict[Priority, int] = {"interactive": 0, "normal": 1, "batch": 2}


@dataclass(frozen=True, slots=True)
class Piece:
    """One text, or a part of a long one, on its way into a batch."""

    request_id: int
    number: int
    """Counted within the request."""
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """Pieces that are computed together, and each one's places in the batch."""

    pieces: tuple[Piece, ...]
    places: tuple[Tokens, ...]


@dataclass(slots=True, eq=False)
class _Waiting:
    """One request's pieces that are not computed yet."""

    pieces: deque[Piece]
    rank: int
    arrival: int
    n_passes: int = 0

    @property
    def turn(self) -> tuple[int, int]:
        """What goes first."""
        return (-1 if self.n_passes >= _MOST_PASSES else self.rank), self.arrival


@dataclass(slots=True)
class Line:
    """All pieces that wait. One thread uses it."""

    n_most_pieces: int
    n_batch_tokens: int = PACK_TOKENS
    is_flash: bool = True
    _waiting: dict[int, _Waiting] = field(default_factory=dict)
    _n_arrived: int = 0

    def __len__(self) -> int:
        """How many requests have pieces here."""
        return len(self._waiting)

    @property
    def n_tokens(self) -> int:
        """Tokens that wait."""
        return sum(len(piece.tokens) for one in self._waiting.values() for piece in one.pieces)

    def add(self, pieces: Sequence[Piece], priority: Priority) -> None:
        """Queue the pieces of one request, in their order."""
        self._n_arrived += 1
        if pieces:
            one = _Waiting(deque(pieces), _RANK[priority], self._n_arrived)
            self._waiting[pieces[0].request_id] = one

    def drop(self, request_id: int) -> None:
        """Forget what a request still has here."""
        self._waiting.pop(request_id, None)

    def next_batch(self) -> Batch:
        """Take out what is computed next; there must be something."""
        window = list(islice(self._in_turn(), max(_WINDOW, self.n_most_pieces)))
        first, *others = window
        n_most = max(self.n_batch_tokens // TILE, n_tiles(len(first.tokens)))
        tiles = Tiles(n_most, is_flash=self.is_flash)
        tiles.place(len(first.tokens))
        chosen = [first]
        for piece in sorted(others, key=lambda one: -len(one.tokens)):
            if len(chosen) == self.n_most_pieces:
                break
            if tiles.place(len(piece.tokens)):
                chosen.append(piece)
        self._take_out(chosen)
        return Batch(tuple(chosen), tuple(tiles.places()))

    def _in_turn(self) -> Iterator[Piece]:
        """Yield one piece of each request, those of one rank by turns, the urgent ranks first."""
        in_order = sorted(self._waiting.values(), key=lambda one: one.turn)
        for rank in sorted({one.turn[0] for one in in_order}):
            iterators = [iter(one.pieces) for one in in_order if one.turn[0] == rank]
            while iterators:
                left = []
                for pieces in iterators:
                    piece = next(pieces, None)
                    if piece is not None:
                        yield piece
                        left.append(pieces)
                iterators = left

    def _take_out(self, chosen: Sequence[Piece]) -> None:
        served = {piece.request_id for piece in chosen}
        taken = {(piece.request_id, piece.number) for piece in chosen}
        for request_id, one in tuple(self._waiting.items()):
            if request_id not in served:
                one.n_passes += 1
                continue
            one.n_passes = 0
            self._n_arrived += 1
            one.arrival = self._n_arrived  # whoever was served stands last of its rank
            one.pieces = deque(
                piece for piece in one.pieces if (request_id, piece.number) not in taken
            )
            if not one.pieces:
                del self._waiting[request_id]
