"""Bytes to text: detect the encoding, refuse binary data, report guesses.

Order: byte-order mark, UTF-16 by its zeros, UTF-8, then the legacy encodings by likelihood.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# In the order of preference where two fit equally well: cp1252 and cp1250 share most bytes.
_WIDE = ("gb18030", "big5", "cp932", "euc_jp", "euc_kr")
_NARROW = ("cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256")
_LEGACY = (*_WIDE, *_NARROW)
_LONE_LETTER = re.compile(r"(?<![^\x00-\x7f])[^\x00-\x7f](?![^\x00-\x7f])")
# Control characters that no text has; tab, line ends, form feed, ESC (ISO-2022) and ^Z (DOS) do.
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x19\x1c-\x1f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_ASCII = bytes({*range(256)} - {*b"\t\n\r", *range(0x20, 0x7F)})
_MAX_CONTROL_SHARE = 0.005
_MAX_DAMAGE_SHARE = 0.001
_SAMPLE_BYTES = 64 * 1024
_MAX_ASCII_SHARE = 0.8  # of the bytes of UTF-16: in Latin text half are zeros, in others few


class NotText(ValueError):
    """Bytes that are not text in any known encoding."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text with line feeds, and its encoding. `n_damaged` bytes became U+FFFD."""

    text: str
    encoding: str
    n_damaged: int = 0


def decode_text(data: bytes, encoding: str = "auto") -> Decoded:
    name, skipped = _by_byte_order_mark(data)
    if encoding != "auto":
        return _decode_strictly(data[skipped:] if name else data, encoding)
    if name:
        return _decode_strictly(data[skipped:], name)
    wide = _utf16_without_mark(data)
    if wide:
        return _decode_strictly(data, wide)
    if b"\x00" in data:
        raise NotText("it has NUL bytes, as binary data has")
    n_controls = len(_CONTROLS.findall(data))
    if n_controls > _MAX_CONTROL_SHARE * len(data):
        raise NotText(f"{n_controls} of its {len(data)} bytes are control characters")
    return _as_utf8(data) or _as_old(data)


def is_known_encoding(encoding: str) -> bool:
    try:
        return encoding == "auto" or codecs.lookup(encoding)._is_text_encoding
    except LookupError:
        return False


def _by_byte_order_mark(data: bytes) -> tuple[str, int]:
    """Return the encoding and the length of a byte-order mark."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name, len(mark)
    return "", 0


def _decode_strictly(data: bytes, encoding: str) -> Decoded:
    """Decode with a known encoding; damage is an error."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise NotText(f"byte {error.start} is not {encoding}") from error
    if _SURROGATE.search(text):  # of `utf-7` and `unicode_escape`, which mails may name
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if "\x00" in text:
        raise NotText("it has NUL characters, as binary data has")
    return Decoded(_normalised_newlines(text), encoding)


def _utf16_without_mark(data: bytes) -> str:
    """Recognise UTF-16 without a mark; empty for anything else.

    Latin text has its zeros on one side. Chinese text has few, so its characters decide: read
    from the wrong side, they are unassigned ones, surrogates and private ones.
    """
    sample = data[: _SAMPLE_BYTES & ~1]
    if len(data) % 2 or len(data) < 4 or not _CONTROLS.search(sample):
        return ""
    n_ascii = len(sample.translate(None, _NOT_ASCII))
    if n_ascii > _MAX_ASCII_SHARE * len(sample):
        return ""  # a zero or two in plain text: two letters of it make a Chinese sign
    good = {name: _share_of_text(sample, name) for name in ("utf-16-le", "utf-16-be")}
    best = max(good, key=lambda name: good[name])
    return best if good[best] > 0.98 else ""


def _share_of_text(sample: bytes, encoding: str) -> float:
    """Return the share of plausible characters, weighted to common scripts."""
    text = sample.decode(encoding, "replace")
    bad = {"Cc", "Cn", "Co", "Cs"}
    odd = sum(
        char == "\ufffd" or (unicodedata.category(char) in bad and char not in "\t\n\r\f")
        for char in text
    )
    # Latin read from the wrong side gives assigned but rare characters, never a space.
    has_spacing = bool(re.search("[ \n\t\u3000-\u3002\uff0c]", text))
    return (1 - odd / len(text)) * (1.0 if has_spacing else 0.9)


def _as_utf8(data: bytes) -> Decoded | None:
    """Decode UTF-8, also with a few damaged bytes; None for other data.

    A single broken byte must not make a UTF-8 text decode as a legacy encoding.
    """
    try:
        return Decoded(_normalised_newlines(data.decode()), "utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
    n_damaged = text.count("\ufffd")
    n_whole = sum(1 for char in text if char > "\x7f") - n_damaged
    is_utf8 = n_whole > 4 * n_damaged and n_damaged <= max(1, _MAX_DAMAGE_SHARE * len(data))
    return Decoded(_normalised_newlines(text), "utf-8", n_damaged) if is_utf8 else None


def _as_old(data: bytes) -> Decoded:
    """Choose the legacy encoding in which the text reads most like a language."""
    found = _likeliest_encoding(data, _LEGACY)
    if found is not None and found.encoding in _WIDE and _loses_letters(found):
        found = _likeliest_encoding(data, _NARROW) or found
    if found is None:
        raise NotText("its bytes are not text in any known encoding")
    return found


def _likeliest_encoding(data: bytes, encodings: Sequence[str]) -> Decoded | None:
    from charset_normalizer import from_bytes

    def rank(name: str, chaos: float, coherence: float) -> tuple[float, float, int]:
        return (round(chaos, 2), -round(coherence, 1), _LEGACY.index(name))

    found = from_bytes(data, cp_isolation=list(encodings))
    if not found:
        return None
    best = min(found, key=lambda match: rank(match.encoding, match.chaos, match.coherence))
    return Decoded(_normalised_newlines(str(best)), best.encoding)


def _loses_letters(found: Decoded) -> bool:
    """Return whether most signs of a wide encoding stand alone and end with a letter's byte.

    So it is where they are none: the o umlaut of a short Western text, with the l after it, makes
    one Chinese sign. In a text of such signs they stand together.

    >>> _loses_letters(Decoded("K\u9c08n", "gb18030"))
    True
    """
    text = found.text[:_SAMPLE_BYTES]
    n_signs = sum(char > "\x7f" for char in text)
    alone = [sign.encode(found.encoding) for sign in _LONE_LETTER.findall(text)]
    n_swallowed: int = sum(len(sign) == 1 or sign[-1:].isalpha() for sign in alone)
    return 2 * n_swallowed > n_signs


def _normalised_newlines(text: str) -> str:
    """Convert line ends to line feeds; drop the DOS end mark."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.removesuffix("\x1a")
