import random
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from paddock.steps.base import StepError
from tests.fakes.office import docx, eml, epub, pptx, xlsx
from tests.fakes.readers import read_here

WHOLE = {
    "a.docx": docx("# Offer", "- one", [["a", "b"], ["c", "d"]]),
    "a.xlsx": xlsx({"A": [["a", "b"], [1, 2.5], ["=A1", None]]}),
    "a.pptx": pptx([("Title", "a\nb", "notes")]),
    "a.eml": eml("Hi", attachments={"x.docx": docx("x")}),
    "a.epub": epub({"a.xhtml": "<h1>x</h1><p>y</p>"}, title="t"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whatever_is_broken_in_a_document_it_is_read_or_refused_in_words(
    name: str, tmp_path: Path
) -> None:
    chance = random.Random(name)
    for _ in range(25):
        (tmp_path / name).write_bytes(_broken(WHOLE[name], chance))
        try:
            assert read_here(tmp_path / name).pages
        except StepError as error:
            assert error.reason.startswith(f"'{name}' ")


def _broken(data: bytes, chance: random.Random) -> bytes:
    """Break the file itself, or one part of the archive that it is."""
    if not data.startswith(b"PK") or chance.random() < 0.2:
        return _spoilt(data, chance)
    out = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        parts = [name for name in old.namelist() if name.endswith((".xml", ".rels", ".opf"))]
        victim = chance.choice(parts)
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, _spoilt(part, chance) if name == victim else part)
    return out.getvalue()


def _spoilt(data: bytes, chance: random.Random) -> bytes:
    spoilt = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        spoilt[chance.randrange(len(spoilt))] = chance.choice(b'<>/"=&;az019\x00')
    start = chance.randrange(len(spoilt))
    return bytes(spoilt[:start] if chance.random() < 0.3 else spoilt)
