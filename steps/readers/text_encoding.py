"""Bytes to text: by what is declared, else by what the bytes allow, else by the languages.

1. A byte-order mark, which no declaration outweighs, then the declared encoding.
2. UTF-16 and UTF-32 by their zeros, ISO-2022 by its escapes, UTF-8.
3. The encodings of the WHATWG's standard that the bytes allow, IBM's for Cyrillic, and UTF-8 with
   damaged bytes: the reading that is likeliest in its language. It is a guess, which is noted.
   Where two readings are nearly as likely, the text is refused with both.

Binary data is refused.
"""

from __future__ import annotations

import codecs
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import suppress

from paddock.engine.system.records import Struct, replace

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_COMMON = (
    *("windows-1252", "windows-1251", "windows-1250", "shift_jis", "gb18030", "euc-kr", "euc-jp"),
    *("windows-1253", "windows-1254", "iso-8859-2", "iso-8859-15", "windows-1255", "windows-1256"),
    *("windows-1257", "koi8-r", "iso-8859-7", "iso-8859-5", "ibm866", "windows-1258"),
)
_RARE = (
    *("big5", "koi8-u", "x-mac-cyrillic", "iso-8859-6", "iso-8859-8", "iso-8859-4"),
    *("iso-8859-13", "iso-8859-3", "ibm855"),
)
_RAREST = (  # in that of Thai many bytes are letters
    *("windows-874", "macintosh", "iso-8859-10", "iso-8859-14", "iso-8859-16", "johab"),
    *("ibm850", "ibm852"),
)
_CODECS = {
    **dict.fromkeys(("iso-8859-1", "latin1", "latin-1", "ascii", "us-ascii"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk", "x-gbk", "gb_2312-80", "chinese"), "gb18030"),
    **dict.fromkeys(("euc-kr", "ks_c_5601-1987", "ksc5601", "windows-949"), "cp949"),
    **dict.fromkeys(("shift_jis", "shift-jis", "sjis", "x-sjis", "windows-31j"), "cp932"),
    **dict.fromkeys(("windows-874", "tis-620", "iso-8859-11"), "cp874"),
    **dict.fromkeys(("big5", "big5-hkscs", "cn-big5", "x-x-big5"), "big5hkscs"),
    **{"iso-8859-9": "cp1254", "latin5": "cp1254", "iso-8859-8-i": "iso8859_8"},
    **{"x-mac-cyrillic": "mac_cyrillic", "unicode": "utf-16"},
}
"""What the standard reads for a label; other labels are Python's."""
_RARITY = 10.0
_MOST_COST = 5.5  # a byte; random ones cost 6 to 20, texts of the corpus at most 5
_LEAST_MARGIN = 5.0
"""Of plausibility; with it 1 % of 400 texts of chardet's corpus are read wrongly, 2 % refused."""
_XML = re.compile(rb"\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w:.-]{1,40})", re.IGNORECASE)
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w:.-]{1,40})", re.IGNORECASE)
_HEAD_BYTES = 4096
# Control characters that no text has; tab, line ends, form feed, ESC (ISO-2022) and ^Z (DOS) do.
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x19\x1c-\x1f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TAG_OF_ASCII = re.compile(rb"<[^<>\x80-\xff]*>")
_PIECE = re.compile(rb"[^\r\n]{1,200}(?=[\r\n]|\Z)|[^\r\n]{100,200}[ ,;\t]|[^\r\n]{1,200}")
_END_MARK = "\x1a"  # of DOS
_HIGH = re.compile(rb"[\x80-\xff]")
_NOT_ASCII = bytes({*range(256)} - {*b"\t\n\r", *range(0x20, 0x7F)})
_MAX_CONTROL_SHARE = 0.005
_MAX_DAMAGE_SHARE = 0.001
_SAMPLE_BYTES = 64 * 1024
_JUDGED_BYTES = 1_500  # some 15 ms for all encodings
_MAX_ASCII_SHARE = 0.86  # of the bytes of UTF-16: half in Latin text, most in that of kana


class NotText(ValueError):
    """Bytes that are not text in any known encoding."""


class UnclearEncoding(NotText):
    """A text that is as likely in one encoding as in another."""

    def __init__(self, readings: Iterable[tuple[str, str]]) -> None:
        readings = tuple(readings)
        self.encodings = tuple(name for name, _ in readings)
        shown = " or as ".join(f"{name} ('{words}')" for name, words in readings)
        super().__init__(f"its encoding is not clear: it can be read as {shown}")

    @property
    def remedy(self) -> str:
        return "Say which it is: " + " or ".join(f"`encoding: {e}`" for e in self.encodings) + "."


class Decoded(Struct, frozen=True):
    """A text and its encoding. `n_damaged` bytes became U+FFFD."""

    written: str
    """With its own line ends, without the end mark of DOS."""
    encoding: str
    n_damaged: int = 0
    is_guess: bool = False
    not_declared: str = ""

    @property
    def text(self) -> str:
        """It with line feeds."""
        return self.written.replace("\r\n", "\n").replace("\r", "\n")

    @property
    def notes(self) -> tuple[str, ...]:
        """As those of a `Document`."""
        declared, name = self.not_declared, self.encoding
        wrong = f": it is not in {declared}, which it declares, but in {name}" if declared else ""
        guess = f": it declares no encoding and is read as {name}" if self.is_guess else ""
        damage = f": {self.n_damaged} damaged bytes of its UTF-8 are read as U+FFFD"
        return tuple(filter(None, (wrong or guess, damage if self.n_damaged else "")))


def decode_text(data: bytes, encoding: str = "auto", declared: str = "") -> Decoded:
    """Return the text in the author's encoding, else the declared one, else a detected one.

    Raises:
        NotText: it is in none, or `encoding` is not its own.
    """
    name, skipped = _by_byte_order_mark(data)
    if encoding != "auto":
        try:
            codec = codecs.lookup(encoding).name  # the author means Python's
        except LookupError:
            codec = ""
        return _decode_strictly(data[skipped:] if name else data, encoding, codec)
    if name:
        return _decode_strictly(data[skipped:], name)
    if not (declared and is_known_encoding(declared)):
        return _detected(data)
    try:
        found = _decode_strictly(data, declared)
    except NotText:
        return replace(_detected(data), not_declared=declared)
    # Who declares the default of old programs has often saved UTF-8, which is then no accident.
    is_default = _codec(declared) == "cp1252" and not data.isascii()
    utf8 = _as_utf8(data, may_be_damaged=False) if is_default else None
    return found if utf8 is None else replace(utf8, not_declared=declared)


def declared_encoding(data: bytes, *, is_html: bool = False) -> str:
    """Return the encoding that XML or a page declares, or an empty text."""
    head = data[:_HEAD_BYTES]
    found = _XML.match(head) or (_META.search(head) if is_html else None)
    name = found[1].decode("ascii").lower() if found else ""
    # A declaration that can be read as ASCII is not in UTF-16.
    return "utf-8" if name.startswith(("utf-16", "utf-32", "ucs-", "unicode")) else name


def narrow(data: bytes) -> bytes:
    """Return what is in UTF-16 or UTF-32 as UTF-8, without a byte-order mark; other data as is."""
    name, skipped = _by_byte_order_mark(data)
    name = name or _wide_without_mark(data)
    return data[skipped:].decode(name, "replace").encode() if name else data


def is_known_encoding(encoding: str) -> bool:
    try:
        return encoding == "auto" or codecs.lookup(_codec(encoding))._is_text_encoding
    except LookupError:
        return False


def _codec(label: str) -> str:
    """Return Python's name.

    Raises:
        LookupError: it is unknown.
    """
    label = label.strip().lower()
    return codecs.lookup(_CODECS.get(label, label)).name


def _detected(data: bytes) -> Decoded:
    wide = _wide_without_mark(data)
    if wide:
        return _decode_strictly(data, wide)
    if b"\x00" in data:
        raise NotText("it has NUL bytes, as binary data has")
    if b"\x1b$" in data and data.isascii():  # by its escapes Japanese or Korean
        with suppress(NotText):
            return _decode_strictly(data, "iso2022_kr" if b"\x1b$)C" in data else "iso2022_jp_ext")
    n_controls = len(_CONTROLS.findall(data))
    if n_controls > _MAX_CONTROL_SHARE * len(data):
        raise NotText(f"{n_controls} of its {len(data)} bytes are control characters")
    return _as_utf8(data) or _likeliest_reading(data)


def _by_byte_order_mark(data: bytes) -> tuple[str, int]:
    found = ((name, len(mark)) for mark, name in _MARKS if data.startswith(mark))
    return next(found, ("", 0))


def _decode_strictly(data: bytes, encoding: str, codec: str = "") -> Decoded:
    try:
        text = data.decode(codec or _codec(encoding))
    except UnicodeDecodeError as error:
        raise NotText(f"byte {error.start} is not {encoding}") from error
    if _SURROGATE.search(text):  # of `utf-7` and `unicode_escape`, which mails may name
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if "\x00" in text:
        raise NotText("it has NUL characters, as binary data has")
    if _codec(encoding) == "cp1258":  # it has letters and tones apart
        text = unicodedata.normalize("NFC", text)
    return Decoded(text.removesuffix(_END_MARK), encoding)


def _wide_without_mark(data: bytes) -> str:
    """Recognise UTF-16 and UTF-32 without a mark; empty for anything else.

    Latin text has its zeros on one side. Chinese text has few, so its characters decide: read
    from the wrong side, they are unassigned ones, surrogates and private ones.
    """
    sample = data[: _SAMPLE_BYTES & ~3]
    if len(data) % 2 or len(data) < 4 or not _CONTROLS.search(sample):
        return ""
    n_ascii = len(sample.translate(None, _NOT_ASCII))
    if n_ascii > _MAX_ASCII_SHARE * len(sample):
        return ""  # a zero or two in plain text: two letters of it make a Chinese sign
    for name in ("utf-32-le", "utf-32-be") if len(data) % 4 == 0 else ():
        if _share_of_text(sample, name) > 0.89:  # bytes that are something else are no UTF-32
            return name
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


def _as_utf8(data: bytes, *, may_be_damaged: bool = True) -> Decoded | None:
    """Decode UTF-8, also with a few damaged bytes; None for other data.

    A single broken byte must not make a UTF-8 text decode as a legacy encoding.
    """
    try:
        return Decoded(data.decode().removesuffix(_END_MARK), "utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
    n_damaged = text.count("\ufffd")
    n_whole = sum(1 for char in text if char > "\x7f") - n_damaged
    most = max(1, _MAX_DAMAGE_SHARE * len(data)) if may_be_damaged else 0
    is_utf8 = n_whole > 4 * n_damaged and n_damaged <= most
    text = text.removesuffix(_END_MARK)
    return Decoded(text, "utf-8", n_damaged) if is_utf8 else None


def _likeliest_reading(data: bytes) -> Decoded:
    """Return the reading that fits its language best.

    Raises:
        UnclearEncoding: another reading fits nearly as well.
        NotText: none is one of a text.
    """
    from paddock.pipelines.checking.language_model import plausibility  # takes half a second

    lines = list(_judged_lines(data))
    sample = b"\n".join(lines)
    ranked = list[tuple[float, str, str]]()
    damaged = data.decode("utf-8", "replace")
    if any(char > "\x7f" and char != "\ufffd" for char in damaged):
        ranked.append((plausibility(sample.decode("utf-8", "replace")), "utf-8", damaged))
    for n, name in enumerate((*_COMMON, *_RARE, *_RAREST)):
        codec = _codec(name)
        try:
            text = data.decode(codec)
        except UnicodeDecodeError:
            continue
        rarity = n / 10 + _RARITY * ((name not in _COMMON) + (name in _RAREST))
        ranked.append((plausibility(sample.decode(codec, "replace")) - rarity, name, text))
    ranked.sort(key=lambda reading: reading[0], reverse=True)
    n_high = sum(len(_HIGH.findall(line)) for line in lines)
    best, name, text = ranked[0] if ranked else (-math.inf, "", "")
    if best < -_MOST_COST * max(n_high, 8):  # a lone byte may be anything
        raise NotText("its bytes are not text in any known encoding")
    for other, other_name, other_text in ranked[1:]:
        if best - other < _LEAST_MARGIN and other_text != text:
            at = next(
                (n for n, (a, b) in enumerate(zip(text, other_text, strict=False)) if a != b), 0
            )
            start, end = max(0, at - 10), at + 20
            shown = (" ".join(reading[start:end].split()) for reading in (text, other_text))
            raise UnclearEncoding(zip((name, other_name), shown, strict=True))
    if name == "utf-8":
        return Decoded(text.removesuffix(_END_MARK), name, text.count("\ufffd"))
    return Decoded(_decode_strictly(data, name).written, name, is_guess=True)


def _judged_lines(data: bytes) -> Iterator[bytes]:
    """Yield lines with bytes beyond ASCII, evenly, and each that has such a byte first."""
    plain = _TAG_OF_ASCII.sub(b"\n", data[: 16 * _SAMPLE_BYTES])
    lines = [piece for piece in _PIECE.findall(plain) if not piece.isascii()]
    step = max(1, sum(map(len, lines)) // _JUDGED_BYTES)
    seen = set[bytes]()
    for n, line in enumerate(lines):
        found = set(_HIGH.findall(line))
        if n % step == 0 or not found <= seen:
            seen |= found
            yield line
