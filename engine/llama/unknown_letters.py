"""Letters of a text that a model's vocabulary lacks."""

from __future__ import annotations

import unicodedata
from collections import Counter

from .vocabulary import Vocabulary


def unknown_share(model: Vocabulary, text: str) -> float:
    """Return which share of a text's letters no token has."""
    if text.isascii():  # each vocabulary has these
        return 0.0
    plain = model.tokenise(text, with_special=False, parse_special=False)
    pieces = b"".join(model.piece(token) for token in plain.tolist())
    given = letters(text)
    return (given - letters(pieces.decode(errors="replace"))).total() / max(1, given.total())


def letters(text: str) -> Counter[str]:
    """Count the letters of a text, without accents and capitals; vowel signs are letters, too.

    >>> letters("\u00c9t\u00e9 1"), letters("\u0926\u093f") - letters("\u0926\u093e")
    (Counter({'e': 2, 't': 1}), Counter({'\u093f': 1}))
    """
    signs = unicodedata.normalize("NFKD", text.casefold())
    return Counter(sign for sign in signs if sign.isalpha() or _is_vowel_sign(sign))


def _is_vowel_sign(sign: str) -> bool:
    # Accents have a class: they are put together with the letter before.
    return unicodedata.category(sign)[0] == "M" and not unicodedata.combining(sign)
