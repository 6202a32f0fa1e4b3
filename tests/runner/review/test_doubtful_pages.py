"""`review.when` over how sure OCR was of a document's pages."""

import json
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw

from tests.fakes.office import scan
from tests.fakes.pool import FakePool
from tests.runner.world import ReviewedWorld, each_document

PIPELINE = each_document("""\
      - id: bill
        uses: chat
        with: {prompt: "{{ steps.text.text }}"}
        reply: {schema: {total: float}}
        review: {when: "steps.text.pages | map(attribute='doubt') | max > 0.02"}
    returns:
      {name: doc.name, doubt: "steps.text.pages[0].doubt", lines: "steps.text.pages[0].lines"}
returns: steps.each.results
""")
TOTAL = "Total due 2,120.50 EUR"


def crossed_out(picture: bytes) -> bytes:
    """Return a picture whose letters fine white lines cut, as after a bad copy."""
    page = Image.open(BytesIO(picture))
    for left in range(40, 500, 6):
        ImageDraw.Draw(page).line((left, 35, left + 20, 75), "white", 3)
    out = BytesIO()
    page.save(out, "PNG")
    return out.getvalue()


def test_a_person_is_asked_about_what_ocr_was_not_sure_of(tmp_path: Path) -> None:
    world = ReviewedWorld(tmp_path, PIPELINE)
    world.write("inbox/typed.txt", TOTAL)
    for name, data in (("clean.png", scan(TOTAL)), ("copied.png", crossed_out(scan(TOTAL)))):
        (world.folder / "inbox" / name).write_bytes(data)
    report = world.run(pool=FakePool(answer=lambda _: json.dumps({"total": 2120.5})))
    assert set(world.waiting()) == {"copied.png"}
    read = {result["name"]: result for result in report.returns}
    assert (read["typed.txt"]["doubt"], read["typed.txt"]["lines"]) == (0.0, [])
    [line] = read["clean.png"]["lines"]
    assert (line["start"], line["end"]) == (0, len(TOTAL))
    assert read["clean.png"]["doubt"] == round(1 - line["p"], 3) < 0.02
