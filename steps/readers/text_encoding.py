"""Bytes to text: by what is declared, else by what the bytes allow, else by the languages.

1. A byte-order mark, which no declaration outweighs, then the declared encoding.
2. UTF-16 and UTF-32 by their zeros, ISO-2022 by its escapes, UTF-8.
3. What the message around a text declares of its other parts.
4. The encodings of the WHATWG's standard that the bytes allow, IBM's for Cyrillic, and UTF-8 with
   damaged bytes: the reading that is likeliest in its language. It is a guess, which is noted.
   Where two readings are nearly as likely, a file is refused with both, for its author can name
   one; of a text within a document the likelier one is read, and the other noted.

Binary data is refused. Labels are compared as UTS #22 has it, by their letters and digits;
`charset_labels.csv` has those of the WHATWG's standard (2026-05), else of IANA's registry (2019),
else of Python's standard encodings, as far as Python decodes them.
"""

from __future__ import annotations

import codecs
import csv
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

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
_OF_PAIRS = ("shift_jis", "gb18030", "euc-kr", "big5", "johab")
_RARITY = 10.0
_ODD_PAIR = 20.0  # as an odd sign
_MOST_COST = 5.5  # a byte; random ones cost 6 to 20, texts of the corpus at most 5
_LEAST_MARGIN = 5.0
"""Of plausibility; with it 1 % of 400 texts of chardet's corpus are read wrongly, 2 % refused."""
_XML = re.compile(rb"\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w:.-]{1,40})", re.IGNORECASE)
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w:.-]{1,40})", re.IGNORECASE)
_HEAD_BYTES = 4096
# Control characters that no text has; tab, line ends, form feed, ESC (ISO-2022) and ^Z (DOS) do.
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x19\x1c-\x1f]")
_CONTROLS_IN_TEXT = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\ufffd]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_LABEL = re.compile("[^a-z0-9]+|(?<![0-9])0+")
_LONE_PAIR = re.compile(rb"(?<![\x80-\xff])[\x81-\xfe][A-Za-z](?![\x80-\xff])")
"""In plain text a letter with a sign before it, such as a section's; not half of a Chinese one."""
_TAG_OF_ASCII = re.compile(rb"<[^<>\x80-\xff]*>")
_PIECE = re.compile(rb"[^\r\n]{1,200}(?=[\r\n]|\Z)|[^\r\n]{100,200}[ ,;\t]|[^\r\n]{1,200}")
_END_MARK = "\x1a"  # of DOS
_HIGH = re.compile(rb"[\x80-\xff]")
_NOT_ASCII = bytes({*range(256)} - {*b"\t\n\r", *range(0x20, 0x7F)})
_MAX_CONTROL_SHARE = 0.005
_MAX_DAMAGE_SHARE = 0.001
_MAX_DAMAGE_OF_DECLARED = 0.1
_SAMPLE_BYTES = 64 * 1024
_JUDGED_BYTES = 1_500  # some 15 ms for all encodings
_MAX_ASCII_SHARE = 0.86  # of the bytes of UTF-16: half in Latin text, most in that of kana


class NotText(ValueError):
    """Bytes that are not text in any known encoding."""


class Decoded(Struct, frozen=True):
    """A text and its encoding. `n_damaged` bytes became U+FFFD."""

    written: str
    """With its own line ends, without the end mark of DOS."""
    encoding: str
    n_damaged: int = 0
    is_guess: bool = False
    not_declared: str = ""
    doubt: str = ""
    """How else it can be read."""

    @property
    def text(self) -> str:
        """It with line feeds."""
        return self.written.replace("\r\n", "\n").replace("\r", "\n")

    @property
    def notes(self) -> tuple[str, ...]:
        """As those of a `Document`."""
        declared, name = self.not_declared, self.encoding
        guess = f": it declares no encoding and is read as {name}" if self.is_guess else ""
        if declared:
            guess = f": it is not in {declared}, which it declares, but in {name}"
        if declared and not _codec(declared):
            guess = f": it declares '{declared}', which is no known encoding, and is read as {name}"
        damage = f": {self.n_damaged} damaged bytes of its {name.upper()} are read as U+FFFD"
        doubt = f": {self.doubt}" if self.doubt else ""
        return tuple(filter(None, (guess, doubt, damage if self.n_damaged else "")))


class UnclearEncoding(NotText):
    """A text that is as likely in one encoding as in another."""

    def __init__(self, likelier: Decoded, readings: Iterable[tuple[str, str]]) -> None:
        readings = tuple(readings)
        self.likelier = likelier
        self.encodings = tuple(name for name, _ in readings)
        shown = " or as ".join(f"{name} ('{words}')" for name, words in readings)
        super().__init__(f"its encoding is not clear: it can be read as {shown}")

    @property
    def remedy(self) -> str:
        return "Say which it is: " + " or ".join(f"`encoding: {e}`" for e in self.encodings) + "."


def decode_text(
    data: bytes, encoding: str = "auto", declared: str | tuple[str, ...] = ""
) -> Decoded:
    """Return the text in the author's encoding, else the declared one, else a detected one.

    What is declared is a tuple for a text within a document: its own, then that of others there.

    Raises:
        UnclearEncoding: a file can be read in two, and its author may name one.
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
    own, *around = (declared,) if isinstance(declared, str) else declared
    if codec := _codec(own):
        with suppress(NotText):
            found = _decode_strictly(data, own, codec)
            # Who declares the default of old programs has often saved UTF-8, which is no accident.
            is_default = codec == "cp1252" and not data.isascii()
            utf8 = _as_utf8(data, may_be_damaged=False) if is_default else None
            return found if utf8 is None else replace(utf8, not_declared=own)
    elif data.isascii():
        own = ""
    try:
        found = _detected(data, around)
    except UnclearEncoding as error:
        if isinstance(declared, str):
            raise
        found = replace(error.likelier, doubt=f"{error}; the first is taken")
    return replace(found, not_declared=own)


def decode_damaged(data: bytes, declared: str) -> Decoded:
    """Return what is declared a text, with U+FFFD for each sign that is none.

    Raises:
        NotText: these are more than a tenth.
    """
    codec = _codec(declared) or "utf-8"
    text = _CONTROLS_IN_TEXT.sub("\ufffd", data.decode(codec, "replace"))
    n_damaged = text.count("\ufffd")
    if n_damaged > max(1, _MAX_DAMAGE_OF_DECLARED * len(text)):
        raise NotText(f"{n_damaged} of its {len(text)} characters are damaged")
    return Decoded(text, codec, n_damaged)


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
    """Return whether an author may name it: a label, or a codec of Python's."""
    try:
        is_known = encoding == "auto" or bool(_codec(encoding))
        return is_known or codecs.lookup(encoding)._is_text_encoding
    except LookupError:
        return False


def _codec(label: str) -> str:
    """Return Python's name; empty for what no text may declare: Python has codecs of its own."""
    return _labels().get(_NO_LABEL.sub("", label.lower()), "")


@cache
def _labels() -> Mapping[str, str]:
    with Path(__file__).with_name("charset_labels.csv").open(encoding="utf-8") as file:
        return {label: codec for codec, labels in csv.reader(file) for label in labels.split()}


def _detected(data: bytes, around: Iterable[str]) -> Decoded:
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
    if utf8 := _as_utf8(data):
        return utf8
    for declared in filter(_codec, around):
        with suppress(NotText):
            return replace(_decode_strictly(data, declared), is_guess=True)
    return _likeliest_reading(data)


def _by_byte_order_mark(data: bytes) -> tuple[str, int]:
    found = ((name, len(mark)) for mark, name in _MARKS if data.startswith(mark))
    return next(found, ("", 0))


def _decode_strictly(data: bytes, encoding: str, codec: str = "") -> Decoded:
    codec = codec or _codec(encoding)
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        raise NotText(f"byte {error.start} is not {encoding}") from error
    if _SURROGATE.search(text):  # of `utf-7` and `unicode_escape`, which mails may name
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if "\x00" in text:
        raise NotText("it has NUL characters, as binary data has")
    if codec == "cp1258":  # it has letters and tones apart
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
    n_lone_pairs = len(_LONE_PAIR.findall(sample))
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
        rarity += n_lone_pairs * _ODD_PAIR if name in _OF_PAIRS else 0
        ranked.append((plausibility(sample.decode(codec, "replace")) - rarity, name, text))
    ranked.sort(key=lambda reading: reading[0], reverse=True)
    n_high = sum(len(_HIGH.findall(line)) for line in lines)
    best, name, text = ranked[0] if ranked else (-math.inf, "", "")
    if best < -_MOST_COST * max(n_high, 8):  # a lone byte may be anything
        raise NotText("its bytes are not text in any known encoding")
    if name == "utf-8":
        found = Decoded(text.removesuffix(_END_MARK), name, text.count("\ufffd"))
    else:
        found = Decoded(_decode_strictly(data, name).written, name, is_guess=True)
    for other, other_name, other_text in ranked[1:]:
        if best - other < _LEAST_MARGIN and other_text != text:
            at = next(
                (n for n, (a, b) in enumerate(zip(text, other_text, strict=False)) if a != b), 0
            )
            start, end = max(0, at - 10), at + 20
            shown = (" ".join(reading[start:end].split()) for reading in (text, other_text))
            raise UnclearEncoding(found, zip((name, other_name), shown, strict=True))
    return found


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
