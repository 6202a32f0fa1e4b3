"""`reply.evidence` over real documents: each field is found, and its box covers it on the page."""

import asyncio
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddock.engine.request import ChatRequest
from paddock.steps.readers import documents, ocr_engine
from paddock.steps.readers.reader_pool import ReaderPool
from tests.fakes.papers import INVOICES, write
from tests.fakes.pdf import pdf_form
from tests.fakes.pool import FakePool
from tests.runner.world import World, each_document

PIPELINE = each_document("""\
      - id: bill
        uses: chat
        with: {prompt: "{{ doc.name }}: {{ steps.text.text }}"}
        reply: {schema: {number: str, total: float}, evidence: steps.text}
    returns: {name: doc.name, evidence: steps.bill.evidence}
returns: steps.each.results
""")
ANSWERS: dict[str, dict[str, Any]] = {
    "boatyard.pdf": {"number": "2024-118", "total": 1320.0},
    "chandlery.pdf": {"number": "HC-0457", "total": 1234.5},
    "fuel.png": {"number": "F-309", "total": 412.75},
    "piano.eml": {"number": "24-007", "total": 93.0},
    "roofing.docx": {"number": "24-031", "total": 2120.0},
    "sailmaker.pdf": {"number": "S 88", "total": 84.0},
    "tides.csv": {"number": "T-5512", "total": 61.4},
}
QUOTED = {
    "boatyard.pdf": ("2024-118", "1,320.00"),
    "chandlery.pdf": ("HC-0457", "1.234,50"),
    "fuel.png": ("F-309", "412.75"),
    "sailmaker.pdf": ("S 88", "84.00"),
}
SIDE_PX = 2000


def answer(request: ChatRequest) -> str:
    return json.dumps(ANSWERS[request.messages[0].content.partition(":")[0]])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the folder of the invoices, and by name what was found in each."""
    here = World(tmp_path_factory.mktemp("bills"), PIPELINE)
    write(here.folder / "inbox", INVOICES)
    report = here.run(pool=FakePool(answer=answer))
    assert report.status == "completed"
    return here.folder / "inbox", {result["name"]: result["evidence"] for result in report.returns}


@pytest.mark.parametrize("name", sorted(QUOTED))
def test_the_box_of_each_field_covers_it_on_the_page(
    found: tuple[Path, dict[str, Any]], name: str
) -> None:
    folder, evidence = found
    pool = ReaderPool()
    try:
        page = _page(folder / name, pool)
    finally:
        pool.close()
    for field, quote in zip(("number", "total"), QUOTED[name], strict=True):
        at = evidence[name][field]
        assert (at["quote"], at["page"], at["line"]) == (quote, 1, None)
        assert at["source"] == f"inbox/{name}"
        assert quote.replace(" ", "") in _read_within(page, at["box"])
        left, top, right, bottom = at["box"]
        assert right - left < 0.25
        assert bottom - top < 0.2


def test_values_of_a_filled_form_and_of_its_page_both_have_boxes(tmp_path: Path) -> None:
    here = World(tmp_path, PIPELINE)
    (here.folder / "inbox").mkdir(parents=True)
    field = "/Subtype /Widget /FT /Tx /T (total) /V (12.50)"
    form = pdf_form([field], form="<< /Fields [10 0 R] >>", text="Bill B-77")
    (here.folder / "inbox/form.pdf").write_bytes(form)
    reply = json.dumps({"number": "B-77", "total": 12.5})
    [result] = here.run(pool=FakePool(answer=lambda _: reply)).returns
    number, total = (result["evidence"][name]["box"] for name in ("number", "total"))
    assert number[3] < 0.2 < total[1]
    assert total == pytest.approx([72 / 612, 172 / 792, 172 / 612, 192 / 792], abs=1e-3)


def _page(path: Path, pool: ReaderPool) -> Any:
    from PIL import Image

    data = asyncio.run(documents.render_page(path, 1, SIDE_PX, readers=pool))
    return np.asarray(Image.open(BytesIO(data)))


def _read_within(page: Any, box: list[float]) -> str:
    """Return what OCR reads within a box, on a white margin."""
    height, width = page.shape[:2]
    left, top, right, bottom = box
    part = page[
        int(top * height) - 2 : int(bottom * height) + 2,
        int(left * width) - 2 : int(right * width) + 2,
    ]
    framed = np.full((part.shape[0] + 200, part.shape[1] + 200, 3), 255, np.uint8)
    framed[100:-100, 100:-100] = part
    return ocr_engine.recognise(framed).text.replace(" ", "")


@pytest.mark.parametrize(
    ("name", "line", "column"),
    [("piano.eml", 7, 17), ("roofing.docx", None, None), ("tides.csv", 3, 16)],
)
def test_where_there_are_no_pages_line_and_column_are_known(
    found: tuple[Path, dict[str, Any]], name: str, line: int | None, column: int | None
) -> None:
    folder, evidence = found
    at = evidence[name]["number"]
    assert at["quote"] == ANSWERS[name]["number"]
    assert (at["page"], at["box"]) == (None, None)
    assert at["line"] is not None
    assert at["column"] is not None
    if line is not None and name == "tides.csv":
        written = (folder / name).read_text().splitlines()
        assert written[at["line"] - 1][at["column"] - 1 :].startswith(at["quote"])
