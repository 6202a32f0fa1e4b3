"""Lead a JSON answer out of a circle: close the text, list or object that goes round."""

from __future__ import annotations

from .spelling import Spelling

_ANY_TEXT = frozenset(b'".az09')


class Detour:
    """A way out of one circle, taken where it first opens."""

    def __init__(self, circle: bytes, n_tokens: int) -> None:
        self._is_in_text = b'"' not in circle
        # Where objects circle, it is their list that has no end.
        self._closers = b"]" if b"}" in circle else b"]}"
        self.n_left = 2 * n_tokens + 8
        """Tokens after which it is given up."""

    def instead(self, place: Spelling, piece: bytes) -> bytes | None:
        """Give what is to be said instead of a token; None: the way is not open yet.

        Args:
            place: where the answer stands.
            piece: what the token would add; the way may open in its middle.
        """
        self.n_left -= 1
        place = place.copy()
        for n_said in range(len(piece) + 1):
            closer = self._closer(place.signs())
            if closer is not None:
                return piece[:n_said] + closer
            byte = piece[n_said : n_said + 1]
            if not place.allows(byte) or not place.take(byte):
                return None
        return None

    def _closer(self, signs: frozenset[int]) -> bytes | None:
        if signs >= _ANY_TEXT:
            return b'"' if self._is_in_text else None
        return next((bytes([sign]) for sign in self._closers if sign in signs), None)
