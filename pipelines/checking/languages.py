"""In which language a text is written. The only module that knows `py3langid`."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .leaves import text_of

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier  # type: ignore[import-untyped]

NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech",
    "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew",
    "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "nl": "Dutch",
    "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili",
    "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese",
    "zh": "Chinese",
}  # fmt: skip
"""The names of languages that many people write; the library knows more by their codes."""
_SURE = 0.5  # below it a text is too short, or too odd, to say anything of
_PLAUSIBLE = 0.1  # close relatives share their words: Norwegian and Danish, Croatian and Serbian
_MOST_CHARS = 100_000


def language(value: Any, *wanted: str) -> str | None:
    """It is written in one of these languages: codes such as `de`, or English names.

    What is too short to tell passes: an article number has no language.

    >>> language("Die Fähre fährt um neun ab und kommt am Abend zurück.", "de", "French") is None
    True
    >>> language("The ferry leaves at nine and comes back at night.", "de")
    'It is written in English; write it in German.'
    """
    identifier = _identifier()
    codes = [_code(one, identifier.labels) for one in wanted]
    if not codes:
        raise ValueError("`language` needs the language, such as 'de'")
    ranked = identifier.rank(text_of(value)[:_MOST_CHARS])
    likeliest, probability = ranked[0]
    if probability < _SURE or likeliest in codes:
        return None
    if any(code in codes and chance >= _PLAUSIBLE for code, chance in ranked):
        return None
    names = " or ".join(NAMES.get(code, code) for code in codes)
    return f"It is written in {NAMES.get(likeliest, likeliest)}; write it in {names}."


def _in_advance(value: Any, *wanted: Any) -> str | None:
    """Refuse what cannot be a language, without loading the library's model."""
    names = {*NAMES, *(name.casefold() for name in NAMES.values())}
    for one in wanted:
        word = _word(one) if isinstance(one, str) else "en"
        if word not in names and not (len(word) in (2, 3) and word.isascii() and word.isalpha()):
            return f"there is no language '{one}'; write a code such as 'de'"
    return None


language.in_advance = _in_advance  # type: ignore[attr-defined]  # a function has attributes, too


def _word(wanted: str) -> str:
    return wanted.strip().casefold().replace("_", "-").partition("-")[0]


def _code(wanted: str, known: Any) -> str:
    word = _word(str(wanted))
    word = {"nb": "no", "nn": "no"}.get(word, word)
    by_name = {name.casefold(): code for code, name in NAMES.items()}
    code = by_name.get(word, word)
    if code not in set(known):
        raise ValueError(f"there is no language '{wanted}'; write a code such as 'de'")
    return code


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    """Load the library's model, once: it takes half a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
