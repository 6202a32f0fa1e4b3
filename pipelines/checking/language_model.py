"""How well a text fits the languages of `py3langid`'s model, and its odd signs.

The only importer of `py3langid`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier  # type: ignore[import-untyped]

_OTHER_SCRIPTS = r"\p{Cyrillic}\p{Greek}\p{Hebrew}\p{Arabic}\u064b-\u065f\p{Thai}"
_EAST_ASIAN = r"\p{Han}\p{Hangul}\p{Hiragana}\p{Katakana}\u3000-\u303f\uff00-\uffef"
_SYMBOLS = r"[\xa2-\xbe\u0192\u02c6-\u02dd\u2020-\u2022\u2030\u2100-\u2bff--[§ª«°µ·º»€™©®№]]"
_ODD = regex.compile(
    # scripts that meet within a word, a lone East Asian sign in a Latin one
    rf"(?V1)(?<=\p{{Latin}})[{_OTHER_SCRIPTS}]|[{_OTHER_SCRIPTS}](?=\p{{Latin}})"
    rf"|(?<![{_EAST_ASIAN}])[{_EAST_ASIAN}](?=[a-z])|(?<=[a-z])[{_EAST_ASIAN}](?![{_EAST_ASIAN}])"
    # signs that touch a letter, control characters, what Unicode has not assigned
    rf"|(?<=\p{{L}}){_SYMBOLS}|{_SYMBOLS}(?=\p{{L}})|[[\p{{Cc}}\p{{Cn}}\p{{Co}}]--[\t\n\r]]"
    # marks that are on no letter, vowels of Thai where none can be
    r"|(?<![\p{L}\p{M}])\p{M}|[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e](?=[\u0e31\u0e34-\u0e3a\u0e47])"
    r"|[\u0e40-\u0e44](?![\u0e01-\u0e2e])|[\u0e4f\u0e5a\u0e5b]"
    # accents next to digits
    r"|[\xc0-\u024f](?=\d)|(?<=\d)[\xc0-\u024f]"
)
_RARE = regex.compile(
    # capitals within words; lone letters, lines of boxes and East Asian signs
    r"(?V1)(?<=\p{Ll})[\p{Lu}--[A-Z]]|(?<=[\p{Ll}--[a-z]])\p{Lu}"
    r"|(?<!\p{L})[\p{L}--[A-Za-zªº]](?!\p{L})|(?<![\u2500-\u259f])[\u2500-\u259f](?![\u2500-\u259f])"
    rf"|(?<![{_EAST_ASIAN}])[{_EAST_ASIAN}](?![{_EAST_ASIAN}])"
)
_THAI = regex.compile(r"\p{Thai}")


@lru_cache(maxsize=2)
def language_identifier(*, is_normalised: bool) -> LanguageIdentifier:
    """Load the library's model, once: it takes half a second. Normalised are probabilities."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=is_normalised)


_MOST_CHARS = 20_000
_LEAST_SHARE = 0.5  # of the likeliest: Norwegian and Danish, Russian and Bulgarian


@lru_cache(maxsize=32)
def languages_of(text: str) -> tuple[str, ...]:
    """Return the codes of the languages that a text may be in: what they agree on is sure.

    >>> languages_of("Die Fähre fährt um neun ab und kommt am Abend zurück.")
    ('de',)
    """
    ranked = language_identifier(is_normalised=True).rank(text[:_MOST_CHARS])
    return tuple(str(code) for code, p in ranked if p >= _LEAST_SHARE * ranked[0][1])


def plausibility(text: str) -> float:
    """Return how much likelier a text is in its language than in all others; odd signs count less.

    Comparable between readings of the same bytes. A character beyond ASCII costs 6, since a sign
    of East Asia says as much as two letters, and one of Thai 8, since no other language has it. An
    odd sign costs as much as a few common n-grams (chosen by the share of right readings of 1,300
    texts in 35 encodings).
    """
    scores = [score for _, score in language_identifier(is_normalised=False).rank(text)]
    odds: float = max(scores) - sum(scores) / len(scores)
    n_high, n_thai = sum(char > "\x7f" for char in text), len(_THAI.findall(text))
    return (
        odds - 6 * n_high - 2 * n_thai - 20 * len(_ODD.findall(text)) - 6 * len(_RARE.findall(text))
    )
