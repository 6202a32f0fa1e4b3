r"""Pages at all angles whose text is known, layered as scanners and OCR programs do it.

    python -m tests.steps.readers.askew_pages [N [SEED [FOLDER]]]

prints how many of N pages are read whole (each word, in order, with its blanks and marks), and the
others; into FOLDER it writes these.
"""

import difflib
import random
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from ctypes import c_float
from functools import cache
from io import BytesIO
from itertools import permutations
from math import ceil, cos, radians, sin
from pathlib import Path
from typing import Any, NamedTuple

import pypdfium2  # type: ignore[import-untyped]
from pypdfium2 import raw

from paddock.steps.readers import pdf
from paddock.steps.readers.reader import Document
from paddock.steps.readers.reader_process import ReadOptions

WORDS = (
    "the tenant pays rent for rooms on each third day and heats all of them while owner keeps "
    "illegible jetty files quickly (early) office; Berth no. 14-B of pier: yes, 77.00 or 1,250.50"
)
GOODS = ("Rope 12 mm", "Oil filter", "Paint, white", "Crane hour", "Mooring ring A-4", "Gas")
KINDS = ("bill", "prose", "columns", "letter", "margin")
LAYERS = ("lines", "words", "glyphs", "arrays", "level words", "scaled words", "one text", "group")
WIDTH, HEIGHT = 595.0, 842.0


class Text(NamedTuple):
    """A run of text on a level page, at its base line."""

    x: float
    y: float
    text: str
    size: float = 11.0
    turn: float = 0.0
    """In degrees, on the level page."""


class Page(NamedTuple):
    texts: list[Text]
    said: list[str]
    """What it says, in the order in which it is read; what is turned may stand in another."""


@cache
def _font() -> tuple[Any, Any]:
    document = pypdfium2.PdfDocument.new()
    return document, raw.FPDFText_LoadStandardFont(document, b"Helvetica")


@cache
def width_of(text: str) -> float:
    """Return the width of a text in Helvetica of size 1."""
    width, total = c_float(), 0.0
    for char in text:
        raw.FPDFFont_GetGlyphWidth(_font()[1], ord(char), 1.0, width)
        total += width.value
    return total


def prose(chance: random.Random, n: int) -> list[str]:
    return [*chance.choices(WORDS.split(), k=n - 1), "end."]


def wrapped(words: Sequence[str], width: float, size: float) -> Iterator[list[str]]:
    line = list[str]()
    for word in words:
        if line and width_of(" ".join([*line, word])) * size > width:
            yield line
            line = []
        line.append(word)
    yield line


def page(kind: str, chance: random.Random) -> Page:
    texts, said = list[Text](), list[str]()

    def paragraph(
        x: float, y: float, words: Sequence[str], width: float, size: float = 11.0
    ) -> float:
        for line in wrapped(words, width, size):
            texts.append(Text(x, y, " ".join(line), size))
            said.append(" ".join(line))
            y -= round(1.25 * size, 1)
        return y - size

    if kind == "columns":
        for x in (60.0, 320.0):
            y = 760.0
            for _ in range(3):
                y = paragraph(x, y, prose(chance, chance.randint(30, 60)), 215.0, 10.0)
        return Page(texts, [" ".join(said)])
    y = 770.0
    texts.append(Text(60, y, "Gull Harbour Ltd", 16))
    said.append("Gull Harbour Ltd")
    y = paragraph(60, y - 40, prose(chance, chance.randint(12, 50)), 470.0)
    if kind == "bill":
        rows = [("Article", "Count", "Price", "Amount")]
        for name in chance.sample(GOODS, k=chance.randint(3, 6)):
            price = chance.randint(100, 99999)
            rows.append(
                (name, str(chance.randint(1, 20)), f"{price / 100:.2f}", f"{price / 10:,.2f}")
            )
        rows.append(("Total", "", "", f"{chance.randint(10**5, 10**6) / 100:,.2f} EUR"))
        for row in rows:
            for at, (cell, x) in enumerate(zip(row, (60, 300, 400, 530), strict=True)):
                left = x - width_of(cell) * 11 if at else x
                texts += [Text(left, y, cell)] if cell else []
            said.append(" ".join(filter(None, row)))
            y -= 16
        y = paragraph(
            60, y - 10, ["To", "be", "paid", "by", "31", "March", "2026", "to", "4711-0815"], 470.0
        )
    if kind == "prose":
        for raised, size in (("2", 11.0), ("2", 9.0)):
            head, tail = "The berth has 120 m", "of water, and 77.00 EUR are due"
            x = 60 + width_of(head) * size
            texts += [Text(60, y, head, size), Text(x, y + 0.36 * size, raised, 0.6 * size)]
            texts.append(Text(x + width_of(raised + " ") * size, y, tail, size))
            said.append(f"{head}^{raised} {tail}")
            y -= 16
        head, label = "Water is billed by the month", "1"
        texts.append(Text(60, y, head))
        texts.append(Text(60 + width_of(head) * 11, y + 4, label, 6.5))
        said.append(f"{head}[^1]")
        y = paragraph(60, y - 30, prose(chance, 60), 470.0)
        texts += [Text(60, 80.0, label, 5.5), Text(64.5, 77.0, "without tax of 19 % for guests", 9)]
        said.append("[^1]: without tax of 19 % for guests")
    if kind == "letter":
        for _ in range(3):
            y = paragraph(60, y, prose(chance, chance.randint(2, 70)), 470.0)
    turned = list[str]()
    if kind == "margin":
        y = paragraph(60, y, prose(chance, 80), 470.0)
        turned = ["Form 12-B of 3 May 2020", "PAID 320.00 EUR"]
        texts += [Text(30, 300, turned[0], 8, 90), Text(300, 200, turned[1], 24, 45)]
    return Page(texts, [" ".join(said), *turned])


def layered(
    found: Page, layer: str, angle: float, chance: random.Random | None = None, n: float = 0.0
) -> str:
    """Return the content of a page whose texts are turned about its middle.

    `n`: how uneven it is: degrees by which its lines differ, a third of the points by which its
    words do.
    """
    chance, out = chance or random.Random(1), list[str]()
    digits = chance.choice((2, 3, 5))
    is_level = layer == "level words"
    up_to = 0.0 if layer in ("lines", "group", "arrays", "glyphs") else 3 * n

    def matrix(x: float, y: float, turn: float, scale: float = 1.0) -> str:
        y += chance.uniform(-up_to, up_to)
        a, b = cos(radians(angle)), sin(radians(angle))
        dx, dy = x - WIDTH / 2, y - HEIGHT / 2
        place = WIDTH / 2 + a * dx - b * dy, HEIGHT / 2 + b * dx + a * dy
        own = radians(turn + (0 if is_level else angle + line_turn))
        parts = scale * cos(own), scale * sin(own), -sin(own), cos(own)
        return " ".join([*(f"{n:.5f}" for n in parts), *(f"{n:.{digits}f}" for n in place), "Tm"])

    def escaped(text: str) -> str:
        return re.sub(r"([()\\])", r"\\\1", text)

    if layer == "one text":  # one after the other, as Tesseract does it
        out.append("BT")
    line_turn, known_y = 0.0, 0.0
    for x, y, text, size, turn in found.texts:
        line_turn = chance.uniform(-n, n) if abs(y - known_y) > 6 else line_turn
        known_y = y
        a, b = cos(radians(turn)), sin(radians(turn))
        if layer in ("lines", "group"):
            out.append(f"BT /F1 {size} Tf {matrix(x, y, turn)} ({escaped(text)}) Tj ET")
            continue
        if layer == "arrays":  # without the characters of blanks
            gap = -1000 * width_of(" ")
            inner = f" {gap:.0f} ".join(f"({escaped(word)})" for word in text.split(" "))
            out.append(f"BT /F1 {size} Tf {matrix(x, y, turn)} [{inner}] TJ ET")
            continue
        along = 0.0
        words = text.split(" ")
        for at, word in enumerate(words):
            pieces = [word] if layer != "glyphs" else list(word)
            for piece in pieces:
                there = x + a * along, y + b * along
                if layer == "scaled words":
                    high = size * chance.uniform(0.9, 1.1)
                    scale = 100 * size / high
                    out.append(
                        f"BT /F1 {high:.2f} Tf {scale:.2f} Tz {matrix(*there, turn)} "
                        f"({escaped(piece)}) Tj ET"
                    )
                elif layer == "one text":
                    blank = " " if at + 1 < len(words) else ""
                    out.append(
                        f"/F1 {size} Tf {matrix(*there, turn)} [({escaped(piece)}{blank})] TJ"
                    )
                else:
                    out.append(f"BT /F1 {size} Tf {matrix(*there, turn)} ({escaped(piece)}) Tj ET")
                along += width_of(piece) * size
            along += width_of(" ") * size
    if layer == "one text":
        out.append("ET")
    return "\n".join(out)


def pdf_of(
    content: str, layer: str, angle: float, rotation: int, *, is_scan: bool = False
) -> bytes:
    """Return a PDF of one page; `is_scan`: the text is invisible over a picture of itself."""
    a, b = abs(cos(radians(angle))), abs(sin(radians(angle)))
    across, up = (
        ceil((WIDTH * a + HEIGHT * b - WIDTH) / 2),
        ceil((WIDTH * b + HEIGHT * a - HEIGHT) / 2),
    )
    box = f"{-across} {-up} {WIDTH + across} {HEIGHT + up}"
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
    picture = b""
    if is_scan:
        shown = pdf_of(content, layer, angle, 0, is_scan=False)
        bitmap = pypdfium2.PdfDocument(shown)[0].render(scale=1.0, grayscale=True)
        rows = [
            bytes(bitmap.buffer)[n * bitmap.stride :][: bitmap.width] for n in range(bitmap.height)
        ]
        data = zlib.compress(b"".join(rows), 1)
        head = (
            f"<< /Type /XObject /Subtype /Image /Width {bitmap.width} /Height {bitmap.height} "
            f"/ColorSpace /DeviceGray /BitsPerComponent 8 /Filter /FlateDecode "
            f"/Length {len(data)} >>"
        )
        picture = head.encode() + b"\nstream\n" + data + b"\nendstream"
        place = f"{WIDTH + 2 * across} 0 0 {HEIGHT + 2 * up} {-across} {-up} cm"
        content = f"q {place} /P Do Q\n3 Tr\n{content}"
    streams = [content]
    if layer == "group":
        streams = ["/G Do", content]
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [{box}] /Rotate {rotation} /Contents 4 0 R "
        "/Resources << /Font << /F1 6 0 R >> /XObject << /G 5 0 R /P 7 0 R >> >> >>".encode(),
        f"<< /Length {len(streams[0])} >>\nstream\n{streams[0]}\nendstream".encode("cp1252"),
        (
            f"<< /Type /XObject /Subtype /Form /BBox [{box}] /Resources << /Font << /F1 6 0 R >> "
            f"/XObject << /P 7 0 R >> >> /Length {len(streams[-1])} >>\nstream\n"
            f"{streams[-1]}\nendstream"
        ).encode("cp1252"),
        font,
        picture or b"null",
    ]
    out = bytearray(b"%PDF-1.7\n")
    places = list[int]()
    for number, body in enumerate(bodies, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(bodies) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{at:010d} 00000 n \n".encode() for at in places)
    out += f"trailer << /Size {len(bodies) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF".encode()
    return bytes(out)


class Sample(NamedTuple):
    name: str
    data: bytes
    said: list[str]

    def is_whole(self) -> bool:
        own = words_of(read(self.data).text)
        first, *turned = self.said
        return any(own == " ".join([first, *some]).split() for some in permutations(turned))


def samples(n: int, seed: int) -> Iterator[Sample]:
    chance = random.Random(seed)
    for at in range(n):
        kind, layer = KINDS[at % len(KINDS)], chance.choice(LAYERS)
        share = chance.random()
        angle = chance.gauss(0, 1.5) if share < 0.65 else chance.uniform(-45, 45)
        if share > 0.9:
            angle = 0.0
        if layer == "level words":
            angle = max(-3.0, min(3.0, angle))
        rotation = chance.choice((0, 0, 0, 90, 180, 270))
        found = page(kind, chance)
        content = layered(found, layer, angle, chance, chance.choice((0.0, 0.0, 0.1, 0.2)))
        is_scan = chance.random() < 0.5
        name = f"{at}: {kind}, {layer}, {angle:.2f}, {rotation}{', scan' if is_scan else ''}"
        yield Sample(name, pdf_of(content, layer, angle, rotation, is_scan=is_scan), found.said)


def read(data: bytes) -> Document:
    return pdf.read_pdf(BytesIO(data), ReadOptions(ocr=False))


def words_of(text: str) -> list[str]:
    return re.sub(r"(?m)^#+ |\||---", " ", text).split()


def main() -> None:
    n, seed, *folder = (*sys.argv[1:], *("300", "84")[len(sys.argv) - 1 :])
    n_whole = n_noted = 0
    for sample in samples(int(n), int(seed)):
        found = read(sample.data)
        own, wanted = words_of(found.text), " ".join(sample.said).split()
        if sample.is_whole():
            n_whole += 1
            continue
        n_noted += bool(found.notes)
        print(sample.name, found.notes)
        for line in difflib.unified_diff(wanted, own, n=1, lineterm=""):
            print("   ", line)
        if folder:
            Path(folder[0], f"{sample.name.partition(':')[0]}.pdf").write_bytes(sample.data)
    print(f"{n_whole} of {n} whole, {n_noted} others noted")


if __name__ == "__main__":
    main()
