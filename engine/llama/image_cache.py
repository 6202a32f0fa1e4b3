"""Rows of images that a projector computed: kept in memory and, of runs' documents, on the disk.

A file on the disk is named after its image's digest, in a folder for its projector, model, device
and build of llama.cpp: what another one computes is another file. It begins with the digest of what
follows, so that a damaged one counts as none.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Tokens, Vectors
from paddock.engine.system.disk_cache import kept_image_files
from paddock.engine.system.records import SelectiveFields, Struct

_FORMAT = "1"
_DIGEST_BYTES = hashlib.sha256().digest_size


class ImagePiece(SelectiveFields, Struct, frozen=True, eq=False):
    hidden = ("rows", "positions")

    digest: str
    """sha256 of the file, and the part's index in it: equal parts have equal rows."""
    rows: Vectors
    """Shape (n, n_embedding), float32; each row has a cell of its own."""
    positions: NDArray[np.int32]
    """Relative to the image's beginning, shape (n_components, n), as llama.cpp orders them."""
    n_positions: int
    """How far the text after the image goes on: M-RoPE counts its longer side, not its rows."""
    is_causal: bool = True
    """Whether a row sees only those before it; else all rows are computed in one pass."""

    def positions_from(self, start: int) -> NDArray[np.int32]:
        moved = self.positions + np.int32(start)
        moved[3:] = 0  # reserved; libmtmd leaves it at zero
        return moved


PromptPiece = Tokens | ImagePiece


class ImageDisk:
    """Images on the disk that one projector computed for one model."""

    def __init__(self, cache_dir: Path, computed_by: Sequence[str]) -> None:
        """`computed_by`: all that the rows depend on, besides the image."""
        self._files = kept_image_files(cache_dir)
        key = hashlib.sha256(repr((_FORMAT, *computed_by)).encode()).hexdigest()
        self._folder = self._files.folder / key[:32]

    def read(self, digest: str) -> tuple[PromptPiece, ...] | None:
        data = self._files.read(self._folder / digest)
        if data is None or hashlib.sha256(data[_DIGEST_BYTES:]).digest() != data[:_DIGEST_BYTES]:
            return None
        return tuple(_unpacked(data[_DIGEST_BYTES:], digest))

    def write(self, digest: str, pieces: Iterable[PromptPiece]) -> None:
        # Pieces as bytes: for each its tokens, or its rows, positions and two numbers
        arrays: list[NDArray[np.float32] | NDArray[np.int32]] = []
        for piece in pieces:
            if isinstance(piece, ImagePiece):
                facts = np.array([piece.n_positions, piece.is_causal], np.int32)
                arrays += [piece.rows, piece.positions, facts]
            else:
                arrays.append(piece)
        buffer = io.BytesIO()
        for array in arrays:
            np.save(buffer, array, allow_pickle=False)
        data = buffer.getvalue()
        self._files.write(self._folder / digest, hashlib.sha256(data).digest() + data)


def _unpacked(data: bytes, digest: str) -> Iterable[PromptPiece]:
    buffer = io.BytesIO(data)
    number = 0
    while buffer.tell() < len(data):
        array = np.load(buffer, allow_pickle=False)
        if array.ndim == 1:
            yield array
        else:
            positions, facts = (np.load(buffer, allow_pickle=False) for _ in range(2))
            n_positions, is_causal = facts.tolist()
            yield ImagePiece(f"{digest}/{number}", array, positions, n_positions, bool(is_causal))
        number += 1


class KeptImages:
    """Pieces of the images that were seen last, by their files' digests."""

    def __init__(self, n_most_bytes: int, disk: ImageDisk | None = None) -> None:
        self._n_most_bytes = n_most_bytes
        self._disk = disk
        self._n_bytes = 0
        self._pieces: OrderedDict[str, tuple[PromptPiece, ...]] = OrderedDict()

    def get(self, digest: str, *, on_disk: bool = False) -> tuple[PromptPiece, ...] | None:
        pieces = self._pieces.get(digest)
        if pieces is not None:
            self._pieces.move_to_end(digest)
        elif on_disk and self._disk is not None:
            pieces = self._disk.read(digest)
            if pieces is not None:
                self._keep(digest, pieces)
        return pieces

    def put(self, digest: str, pieces: tuple[PromptPiece, ...], *, on_disk: bool = False) -> None:
        self._keep(digest, pieces)
        if on_disk and self._disk is not None:
            self._disk.write(digest, pieces)

    def _keep(self, digest: str, pieces: tuple[PromptPiece, ...]) -> None:
        self._pieces[digest] = pieces
        self._n_bytes += _n_bytes(pieces)
        while self._n_bytes > self._n_most_bytes:
            _, gone = self._pieces.popitem(last=False)
            self._n_bytes -= _n_bytes(gone)


def _n_bytes(pieces: Iterable[PromptPiece]) -> int:
    return sum(piece.rows.nbytes for piece in pieces if isinstance(piece, ImagePiece))
