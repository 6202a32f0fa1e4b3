"""Documents that are damaged somewhere: a text of their own bytes, or a sentence."""

import errno
import os
import random
import re
from collections.abc import Callable
from io import BufferedReader, BytesIO, FileIO
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.system import no_links
from paddock.engine.system.frames import read_frame
from paddock.steps.readers import reader_process
from paddock.steps.readers.reader import Unreadable
from paddock.steps.readers.reader_process import ReadOptions, read_document
from tests.fakes.damage import damaged, mutated
from tests.fakes.office import docx, eml, epub, pptx, xlsx, zipped
from tests.fakes.pdf import NAMED_FONT, pdf, pdf_form, pdf_of_objects

N_SEEDS = int(os.environ.get("PADDOCK_TEST_MUTATIONS", "25"))
LINES = [f"Bill {n} of the harbour: 12 ropes and 3 lamps, {n},50 EUR by March" for n in range(6)]
MAIL = b"""\
From ann@example.org Mon Mar  2 10:00:00 2026
From: Ann <ann@example.org>
Subject: Ropes and lamps
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="part"

--part
Content-Type: text/plain; charset=us-ascii

Dear Bo, please pay the ropes. From 10:30 to 12:00 the pier is closed.

--part
Content-Type: text/plain; name="note.txt"
Content-Disposition: attachment; filename="note.txt"

The second lamp is broken.
--part--

From bo@example.org Tue Mar  3 11:00:00 2026
From: Bo <bo@example.org>
Subject: Answer
Content-Length: 25

I have paid them yesterday
"""
FILES = {
    "mail.mbox": MAIL * 3,
    "mail.eml": MAIL.partition(b"\n")[2].partition(b"\nFrom bo@")[0],
    "pages.pdf": pdf(["\n".join(LINES), LINES[0], None]),
    "font.pdf": pdf_of_objects(f"BT /F1 9 Tf 72 700 Td ({LINES[1]}) Tj ET", NAMED_FONT),
    "form.pdf": pdf_form(
        ["<< /Type /Annot /Subtype /Text /Rect [9 9 99 99] /Contents (Paid in March) >>"]
    ),
    "a.docx": docx("# Offer", "- one", [["a", "b"], ["c", "d"]]),
    "a.xlsx": xlsx({"A": [["a", "b"], [1, 2.5], ["=A1", None]]}),
    "a.pptx": pptx([("Title", "a\nb", "notes")]),
    "a.eml": eml("Hi", attachments={"x.docx": docx("x")}),
    "a.epub": epub({"a.xhtml": "<h1>x</h1><p>y</p>"}, title="t"),
    "a.zip": zipped({"a.xml": "\n".join(LINES), "a.docx": docx("x"), "b.zip": zipped({"b": "y"})}),
}
OURS = re.findall(
    r"\w+",
    "Attachments not read attachment mail text plain mixed octet stream application bytes comment "
    "Comments Fields From Reply To Cc Bcc Date Subject multipart message rfc822 note Note hidden",
)


def shuffled(data: bytes, dice: random.Random) -> bytes:
    """Return a text of many lines with some of them moved or repeated, and bytes changed."""
    lines = data.split(b"\n")
    for _ in range(dice.randrange(4)):
        at, to = dice.randrange(len(lines)), dice.randrange(len(lines))
        part = lines[at : at + dice.choice((1, 3))] * dice.choice((0, 1, 2, 300))
        lines[to : to + dice.randrange(2)] = part
    return mutated(b"\n".join(lines), dice)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_its_own_text_or_a_sentence(
    placed: Callable[[str, bytes], Path], name: str
) -> None:
    n_read, whole = 0, FILES[name]
    for seed in range(N_SEEDS):
        data = (damaged if whole.startswith(b"PK") else shuffled)(whole, random.Random(seed))
        try:
            found = read_document(placed(name, data), ReadOptions(ocr=False), 1 << 26)
        except Unreadable as error:
            assert str(error), seed
            continue
        n_read += 1
        known = re.sub(rb"[\W_]", b"", data).decode("latin-1").lower()
        ours = " ".join(OURS).lower()
        foreign = {
            word
            for page in (re.sub(r"[\d,]+ bytes\)", "", page) for page in found.pages)
            for word in re.findall(r"[A-Za-z0-9]{3,}", page.lower())
            if word not in known and word not in ours
        }
        assert not foreign or whole.startswith(b"PK"), seed
    assert n_read


class _Failing(FileIO):
    """A file on a disk that fails behind the bytes that tell its kind."""

    n_left = 2

    def readinto(self, buffer: Any) -> int | None:
        self.n_left -= 1
        if self.n_left < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().readinto(buffer)


@pytest.mark.parametrize("name", ["a.docx", "a.xlsx", "a.pptx", "a.epub"])
def test_what_a_disk_cannot_read_is_no_damage_of_the_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    monkeypatch.setattr(no_links, "open_file", lambda path: BufferedReader(_Failing(path)))
    wishes = {"kind": None, "encoding": "auto", "ocr": "off", "max_bytes": 10**8}
    request = {"do": "read", "path": str(tmp_path / name), **wishes}
    meta, _ = read_frame(BytesIO(reader_process._carried_out(BytesIO(), request, b"")))
    assert meta.get("errno") == errno.EIO, meta
