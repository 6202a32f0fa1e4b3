# ruff: noqa: RUF001 - texts in many languages
import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.steps.readers.text_encoding import (
    NotText,
    UnclearEncoding,
    decode_text,
    is_known_encoding,
)
from paddock.steps.readers.text_files import read_text_file

CHINESE = "会议记录如下。今天天气很好，我们去公园散步。\n"
JAPANESE = "今日は天気がよいので、公園を散歩しました。\n"

OFFICE = {
    "cp1252": "für die Reparatur der Küche berechnen wir 84,00 € zuzüglich 19 % Umsatzsteuer.\n",
    "cp1250": "Sprzedawca: Zakład Usługowy Łódź\nNabywca: Grażyna Wiśniewska\n",
    "cp1251": "За ремонт крыши: 12 500 руб.\nИтого к оплате: 12 500 руб. Срок оплаты — 10 дней.\n",
    "koi8_r": (
        "Направляем Вам договор аренды помещения. Просим подписать его и вернуть один "
        "экземпляр до конца месяца.\n"
    ),
    "cp1253": "σας στέλνουμε το τιμολόγιο για την επισκευή της στέγης. Ποσό πληρωμής: 420 ευρώ.\n",
    "cp1254": (
        "İstanbul şubemizin mart ayı kirası için düzenlenen fatura ektedir. Ödemenizi ayın "
        "on beşine kadar yapmanızı rica ederiz.\n"
    ),
    "cp1255": "לכבוד גברת כהן,\nמצורפת חשבונית עבור תיקון הגג. נא לשלם עד סוף החודש.\n",
    "cp1256": (
        "نرسل إليكم فاتورة إصلاح السقف. المبلغ المطلوب خمسمئة دينار، ويرجى الدفع قبل نهاية الشهر.\n"
    ),
    "cp1257": "siunčiame sąskaitą už stogo remontą. Prašome apmokėti iki mėnesio pabaigos.\n",
    "cp1258": "chúng tôi gửi kèm hóa đơn sửa chữa mái nhà. Xin thanh toán trước cuối tháng.\n",
    "cp874": "ขอแจ้งค่าซ่อมหลังคาจำนวนสองพันบาท กรุณาชำระเงินก่อนสิ้นเดือน\nขอแสดงความนับถือ\n",
    "gb18030": (
        "发票号码：118\n尊敬的王女士：\n"
        "随函附上屋顶维修的发票，金额为二千四百元。请于月底前付款。\n此致敬礼\n"
    ),
    "big5": (
        "發票號碼：118\n敬愛的陳先生：\n"
        "隨函附上屋頂維修的發票，金額為二千四百元。請於月底前付款。\n"
    ),
    "cp932": (
        "請求書番号：118\n田中様\n"
        "屋根の修理代金として二万四千円をご請求申し上げます。月末までにお支払いください。\n"
    ),
    "iso2022_jp": (
        "山田様\nいつもお世話になっております。契約書を添付いたしますので、ご確認ください。\n"
    ),
    "cp949": (
        "청구서 번호: 118\n김철수 고객님께\n"
        "지붕 수리 비용 이십사만 원을 청구합니다. 월말까지 납부해 주시기 바랍니다.\n"
    ),
    "utf-16-le": "Mietvertrag über die Wohnung Größe 80 m²\nDie Miete beträgt 640 € monatlich.\n",
    "cp850": "Tür, weiß, 2 Stück\nGroße Schränke, 1 Stück\nÖlfarbe für die Küche, 3 Dosen\n",
}
"""An invoice, a letter or a table of an office, by the encoding that it is written in."""


MARKED = ("utf-8-sig", "utf-16", "utf-32", "utf-8")
WIDE = ("utf-16-le", "utf-16-be")
WESTERN = ("Name;Preis\nKöln;1,50\nBonn;2,50\n", "für", "Ça va", "El niño", "it’s", "São Paulo",
           "Åse Ødegård", "Invoice: £12",
           *(f"Position 1: {it}\n" for it in ("20 °C", "§ 5 Abs. 2", "40 €")))  # fmt: skip
"""Their only sign beyond ASCII makes, with the letter after it, one sign of a wide encoding."""


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        *((name, text) for name in MARKED for text in ("Plain.\n", CHINESE, "naïve – “quoted”\n")),
        *(
            (name, text)
            for name in WIDE
            for text in ("Plain words.\n", CHINESE, JAPANESE, "жили\n")
        ),
        *(("cp1252", text) for text in WESTERN),
        *(("gbk", text) for text in ("使用Python编程", "A股上涨", "姓名,年龄\n王伟,30\n")),
        *((name, "Rechnung über 40 €\n") for name in ("utf-32-le", "utf-32-be")),
        ("iso2022_kr", "청구서: 40 EUR\n"),
    ],
)
def test_a_text_is_read_whole_in_its_encoding_whether_it_has_a_mark_or_none(
    encoding: str, text: str
) -> None:
    assert decode_text(text.encode(encoding)).text == text


@pytest.mark.parametrize(
    ("encoding", "data", "text"),
    [
        ("utf-8", b"\xef\xbb\xbfabc", "abc"),
        ("cp1252", b"Gr\xf6\xdfe", "Größe"),
        ("utf-7", b"a +2AA- b", "a \ufffd b"),
        ("unicode_escape", b"a \\ud800 b", "a \ufffd b"),
        ("unicode_escape", b"a \\ud83d\\ude00 b", "a \U0001f600 b"),
        ("auto", b"one\r\ntwo\rthree\n\x1a", "one\ntwo\nthree\n"),
    ],
)
def test_an_encoding_that_the_author_names_is_taken_and_makes_no_half_a_character(
    encoding: str, data: bytes, text: str
) -> None:
    assert decode_text(data, encoding).text == text


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"Plain\x00words", "it has NUL bytes, as binary data has"),
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


@pytest.mark.parametrize(
    ("data", "n_damaged"),
    [
        ("Frau Müller,\ndie Gebühr ist 5 EUR.\nGrüße, Jörg".encode() + b" \xff\xfe", 2),
        ("Chère Madame,\nvoici la facture réglée.\n".encode() + b"Z\xfcrich, caf\xe9", 2),
        ("Szanowna Pani,\nprosimy o zapłatę.\nŁukasz Żak".encode().replace(b"\x82", b"", 1), 1),
        ("Уважаемый Иван,\nпросим оплатить счёт.".encode().replace(b"\xd0", b"", 3), 3),
        ("Sehr geehrter Herr Smith,\ndie Gebühr ist 20 EUR.\xff\xe9".encode("latin-1")
         .replace(b"\xfc", "ü".encode()), 2),
    ],
    ids=["two", "pasted", "half a character", "Cyrillic", "a single one is whole"],
)  # fmt: skip
def test_a_short_letter_with_damaged_bytes_is_read_and_its_damage_is_told(
    data: bytes, n_damaged: int
) -> None:
    found = decode_text(data)
    assert (found.encoding, found.n_damaged, found.is_guess) == ("utf-8", n_damaged, False)
    assert found.notes == (f": {n_damaged} damaged bytes of its UTF-8 are read as U+FFFD",)


def test_one_damaged_byte_does_not_turn_a_utf8_text_into_another_encoding() -> None:
    data = ("Grüße aus München. " * 50).encode() + b"\xff" + "Schöne Tage.".encode()
    decoded = decode_text(data)
    assert (decoded.encoding, decoded.n_damaged) == ("utf-8", 1)
    assert decoded.text.endswith("�Schöne Tage.")


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


@pytest.mark.parametrize("encoding", OFFICE)
def test_a_short_text_of_an_office_is_read_in_its_encoding(encoding: str) -> None:
    data = encoded(OFFICE[encoding], encoding)
    found = decode_text(data)
    assert found.text == OFFICE[encoding]
    is_marked = encoding.startswith(("utf", "iso2022"))
    assert found.is_guess != is_marked
    assert [
        note.startswith(": it declares no encoding and is read as ") for note in found.notes
    ] == ([] if is_marked else [True])


def encoded(text: str, encoding: str) -> bytes:
    """Encode, for `cp1258` with the tones of Vietnamese apart from its letters."""
    if encoding != "cp1258":
        return text.encode(encoding)
    tones = "\u0300\u0301\u0303\u0309\u0323"
    parts = [unicodedata.normalize("NFD", char) for char in text]
    letters = [
        unicodedata.normalize("NFC", "".join(c for c in part if c not in tones)) for part in parts
    ]
    marks = ["".join(c for c in part if c in tones) for part in parts]
    return "".join(a + b for a, b in zip(letters, marks, strict=True)).encode("cp1258")


@pytest.mark.parametrize(
    ("data", "encodings"),
    [
        ("Dolarý".encode("cp1252"), ("windows-1252", "windows-1250")),
        ("Frangı".encode("cp1254"), ("windows-1255", "windows-1256")),
        (b"\xe9", ("windows-1252", "windows-1250")),
    ],
)
def test_a_text_that_is_as_likely_in_two_encodings_is_refused_with_both(
    data: bytes, encodings: tuple[str, str]
) -> None:
    with pytest.raises(UnclearEncoding) as caught:
        decode_text(data)
    assert all(is_known_encoding(name) for name in caught.value.encodings)
    assert "`encoding: " in caught.value.remedy


def test_what_a_text_declares_outweighs_what_it_looks_like() -> None:
    xml = '<?xml version="1.0" encoding="ISO-8859-9"?><p>Frangı</p>'.encode("cp1254")
    page = '<meta charset="windows-874"><p>ฅ</p>'.encode("cp874")
    assert (read_text_file(xml, "txt").text[-10:], read_text_file(xml, "txt").notes) == (
        "Frangı</p>",
        (),
    )
    assert (read_text_file(page, "html").text, read_text_file(page, "html").notes) == ("ฅ", ())
    assert read_text_file("Frangı".encode("cp1254"), "txt", declared="latin5").text == "Frangı"


@pytest.mark.parametrize("label", ["iso-8859-1", "windows-1252", "us-ascii"])
def test_utf8_that_declares_the_default_of_old_programs_is_read_as_utf8(label: str) -> None:
    page = f"<meta charset={label}><p>Größe 40 €</p>".encode()
    found = read_text_file(page, "html")
    assert found.text == "Größe 40 €"
    assert found.notes == (f": it is not in {label}, which it declares, but in utf-8",)


def test_a_declaration_that_the_bytes_refute_is_noted() -> None:
    page = '<meta charset="utf-8"><p>Die Größe der Küche beträgt vierzig Fuß</p>'.encode("cp1252")
    found = read_text_file(page, "html")
    assert found.text.startswith("Die Größe der Küche")
    assert found.notes == (": it is not in utf-8, which it declares, but in windows-1252",)


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        *(("windows-874", "cp874"), ("x-mac-cyrillic", "mac_cyrillic"), ("x-sjis", "cp932")),
        *(("iso-8859-8-i", "iso8859_8"), ("GB2312", "gb18030"), ("ks_c_5601-1987", "cp949")),
        *(("csISOLatin5", "cp1254"), ("IBM00858", "cp858"), ("Windows-31J", "cp932")),
        *(("ISO8859_15", "iso8859_15"), ("iso_8859-5:1988", "iso8859_5"), ("CP-1251", "cp1251")),
        *(("UNICODE-1-1-UTF-7", "utf_7"), ("csKZ1048", "kz1048"), ("hp-roman8", "hp_roman8")),
    ],
)
def test_labels_of_the_published_lists_are_known_as_they_are_misspelt(
    label: str, codec: str
) -> None:
    text = "".join(char for char in "Grüße Łódź привет שלום 中文 日本" if is_in(codec, char))
    assert decode_text(text.encode(codec), declared=label).text == text
    assert decode_text(text.encode(codec), declared=f" {label.lower()};").text == text


def is_in(codec: str, char: str) -> bool:
    try:
        return char.encode(codec).decode(codec) == char
    except UnicodeError:
        return False


@pytest.mark.parametrize("declared", ["punycode", "unicode_escape", "rot13", "x-odd", "undefined"])
def test_a_text_cannot_declare_what_only_python_has(declared: str) -> None:
    found = decode_text("Grüße \\n".encode(), declared=declared)
    assert found.text == "Grüße \\n"
    said = f": it declares '{declared}', which is no known encoding, and is read as utf-8"
    assert found.notes == (said,)


@pytest.mark.parametrize("sign", ["§a of the lease", "§ 5 of the lease", "20 °C", "café", "£320"])
def test_a_sign_in_plain_text_is_no_half_of_a_chinese_one(sign: str) -> None:
    text = f"Under {sign} 77.00 EUR are due\n"
    assert decode_text(text.encode("cp1252")).text == text


def test_within_a_document_the_likelier_of_two_readings_is_taken_and_the_other_noted() -> None:
    data = "Doları".encode("cp1254")
    found = decode_text(data, declared=("",))
    assert found.text == "Doları"
    assert found.notes[1] == (
        ": its encoding is not clear: it can be read as windows-1254 ('Doları') or as windows-1252 "
        "('Dolarý'); the first is taken"
    )
    assert decode_text(data, declared=("", "utf-8", "iso-8859-1")).text == "Dolarý"
