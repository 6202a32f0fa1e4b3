# ruff: noqa: RUF001 - texts in many languages
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.steps.readers.text_encoding import NotText, decode_text, is_known_encoding

CHINESE = "会议记录如下。今天天气很好，我们去公园散步。\n"
TRADITIONAL = "會議記錄如下。今天天氣很好，我們去公園散步。\n"
JAPANESE = "今日は天気がよいので、公園を散歩しました。\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-8"])
@pytest.mark.parametrize("text", ["Plain words.\n", CHINESE, "naïve – “quoted”\n"])
def test_a_marked_or_utf8_text_comes_back_whole(encoding: str, text: str) -> None:
    assert decode_text(text.encode(encoding)).text == text


@pytest.mark.parametrize(
    ("encoding", "data", "text"),
    [
        ("utf-7", b"a +2AA- b", "a \ufffd b"),
        ("unicode_escape", b"a \\ud800 b", "a \ufffd b"),
        ("unicode_escape", b"a \\ud83d\\ude00 b", "a \U0001f600 b"),
    ],
)
def test_no_encoding_makes_half_a_character(encoding: str, data: bytes, text: str) -> None:
    assert decode_text(data, encoding).text == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["Plain words.\n", CHINESE, JAPANESE, "жили были старик\n"])
def test_utf16_is_recognised_without_a_mark(encoding: str, text: str) -> None:
    assert decode_text(text.encode(encoding)).text == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gbk", CHINESE),
        ("gbk", "会议纪要"),
        ("big5", TRADITIONAL),
        ("shift_jis", JAPANESE),
        ("cp1252", "El niño comió piñas ayer en la montaña.\n"),
        ("cp1252", "It’s a “smart” quote – the café was closed, and we paid €5.\n"),
        ("cp1252", "A situação não é fácil: as eleições são amanhã.\n"),
        ("cp1250", "Příliš žluťoučký kůň. Dnes je hezké počasí a jdeme do parku.\n"),
        ("cp1251", "Сегодня хорошая погода, мы пошли гулять в парк.\n"),
    ],
)
def test_encodings_from_before_unicode_are_found_out(encoding: str, text: str) -> None:
    assert decode_text(text.encode(encoding)).text == text


@pytest.mark.parametrize(
    "text",
    [
        "Name;Preis\nKöln;1,50\nBonn;2,50\n",
        "für",
        "Ça va",
        "El niño",
        "it’s",
        "São Paulo",
        "Åse Ødegård",
        "Invoice: £12",
    ],
)
def test_a_short_western_text_is_not_taken_for_a_chinese_one(text: str) -> None:
    """Its only sign beyond ASCII makes, with the letter after it, one sign of a wide encoding."""
    assert decode_text(text.encode("cp1252")).text == text


@pytest.mark.parametrize("text", ["使用Python编程", "A股上涨", "姓名,年龄\n王伟,30\n"])
def test_a_short_chinese_text_with_latin_letters_stays_one(text: str) -> None:
    assert decode_text(text.encode("gbk")).text == text


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"Plain\x00words", "it has NUL bytes, as binary data has"),
        (b"a,b\n1,\x00\n", "it has NUL bytes, as binary data has"),
        (b"abc def\x00\n" * 30 + b"x", "it has NUL bytes, as binary data has"),
        (b"\x01\x02\x03abc", "3 of its 6 bytes are control characters"),
        (b"\xff\xfea", "byte 0 is not utf-16-le"),
    ],
)
def test_what_is_no_text_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(NotText) as caught:
        decode_text(data)
    assert str(caught.value) == why


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size", [64, 1000, 20_000])
def test_random_bytes_are_no_text(seed: int, size: int) -> None:
    with pytest.raises(NotText):
        decode_text(random.Random(seed).randbytes(size))


def test_one_damaged_byte_does_not_turn_a_utf8_text_into_another_encoding() -> None:
    data = ("Grüße aus München. " * 50).encode() + b"\xff" + "Schöne Tage.".encode()
    decoded = decode_text(data)
    assert (decoded.encoding, decoded.n_damaged) == ("utf-8", 1)
    assert decoded.text.endswith("�Schöne Tage.")


def test_an_encoding_that_the_author_names_is_taken_strictly() -> None:
    assert decode_text("Größe".encode("cp1252"), "cp1252").text == "Größe"
    with pytest.raises(NotText, match="byte 2 is not utf-8"):
        decode_text("Größe".encode("cp1252"), "utf-8")


def test_a_mark_is_no_part_of_the_text_when_the_encoding_is_named_either() -> None:
    assert decode_text(b"\xef\xbb\xbfabc", "utf-8").text == "abc"


def test_line_ends_become_line_feeds() -> None:
    assert decode_text(b"one\r\ntwo\rthree\n\x1a").text == "one\ntwo\nthree\n"


def test_codecs_that_are_no_text_encodings_are_not_known() -> None:
    assert is_known_encoding("utf-8")
    assert is_known_encoding("auto")
    assert not is_known_encoding("rot13")
    assert not is_known_encoding("klingon")


@given(st.binary(max_size=400))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        assert isinstance(decode_text(data).text, str)
    except NotText as error:
        assert str(error)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=80))
def test_every_utf8_text_comes_back(text: str) -> None:
    assert decode_text(text.encode()).text == text.removeprefix("\ufeff")
