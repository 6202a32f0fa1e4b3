from io import BytesIO
from typing import Any

import pytest

from paddock.steps.readers.powerpoint import read_pptx
from paddock.steps.readers.reader import Document
from paddock.steps.readers.reader_process import ReadOptions
from tests.fakes.office import new_presentation, pptx, saved


def document(data: bytes) -> Document:
    return read_pptx(BytesIO(data), ReadOptions())


def test_each_slide_is_a_page_with_its_title_points_and_notes() -> None:
    found = document(
        pptx([("The plan", "Buy slates\nMend the roof", "Be quick."), ("End", "", "")])
    )
    assert found.pages == (
        "# The plan\n\n- Buy slates\n- Mend the roof\n\nNotes: Be quick.",
        "# End",
    )


def test_shapes_are_read_as_one_reads_and_tables_and_charts_are_tables() -> None:
    from pptx.chart.data import CategoryChartData
    from pptx.enum.chart import XL_CHART_TYPE
    from pptx.util import Cm

    presentation = new_presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])
    for text, left, top in (("below", 1, 9), ("right", 9, 1), ("left", 1, 1)):
        box = slide.shapes.add_textbox(Cm(left), Cm(top), Cm(4), Cm(2))
        box.text_frame.text = text
    table = slide.shapes.add_table(2, 2, Cm(1), Cm(11), Cm(4), Cm(2)).table
    for index, text in enumerate(("Item", "Price", "Slates", "5")):
        table.cell(index // 2, index % 2).text = text
    data: Any = CategoryChartData()  # type: ignore[no-untyped-call]
    data.categories = ["2023", "2024"]
    data.add_series("Roofs", (3, 4.5))
    slide.shapes.add_chart(XL_CHART_TYPE.LINE, Cm(1), Cm(14), Cm(4), Cm(2), data)
    assert document(saved(presentation)).text == (
        "left\n\nright\n\nbelow\n\n| Item | Price |\n| --- | --- |\n| Slates | 5 |\n\n"
        "|  | Roofs |\n| --- | --- |\n| 2023 | 3 |\n| 2024 | 4.5 |"
    )


def test_charts_of_points_and_of_several_levels_are_read_whole() -> None:
    from pptx.chart import data
    from pptx.enum.chart import XL_CHART_TYPE

    presentation = new_presentation()
    shapes = presentation.slides.add_slide(presentation.slide_layouts[6]).shapes
    kinds: Any = data
    points = kinds.XyChartData()
    for name, x in (("Here", 1), ("There", 7)):
        points.add_series(name).add_data_point(x, x * 1_000_000.5)
    shapes.add_chart(XL_CHART_TYPE.XY_SCATTER, 0, 0, 100, 100, points)
    levels = kinds.CategoryChartData()
    year = levels.add_category("2024")
    year.add_sub_category("Jan")
    year.add_sub_category("Feb")
    levels.add_series("Sum", (1, 2))
    shapes.add_chart(XL_CHART_TYPE.BAR_CLUSTERED, 0, 6_000_000, 100, 100, levels)
    rule = "| --- | --- |\n"
    assert document(saved(presentation)).text == (
        f"|  | Here |\n{rule}| 1 | 1000000.5 |\n\n|  | There |\n{rule}| 7 | 7000003.5 |\n\n"
        f"|  | Sum |\n{rule}| 2024 Jan | 1 |\n| Feb | 2 |"
    )


def test_text_of_layout_and_master_is_read_once_and_boxes_of_the_notes_too() -> None:
    presentation = new_presentation()
    layout = presentation.slide_layouts[6]
    for _ in range(2):
        slide = presentation.slides.add_slide(layout)
    slide.notes_slide.notes_text_frame.text = "Speak up"
    owners = (layout, presentation.slide_master, slide.notes_slide)
    for owner, text in zip(owners, ("Draft", "Mill Ltd", "To the board"), strict=True):
        box = slide.shapes.add_textbox(0, 0, 9, 9)
        box.text_frame.text = text
        owner.shapes._spTree.append(box._element)
    found = document(saved(presentation))
    assert found.pages == ("Draft\n\nMill Ltd", "Notes: Speak up\nTo the board")
    layout._element.set("showMasterSp", "0")
    assert document(saved(presentation)).pages[0] == "Draft"


@pytest.mark.parametrize("missing", ["slide_layout", "slide_master"])
def test_a_slide_without_a_layout_or_a_master_is_read(missing: str) -> None:
    presentation = new_presentation(pptx([("Hello", "Buy slates", "")]))
    (slide,) = presentation.slides
    box = slide.shapes.add_textbox(0, 0, 9, 9)
    box.text_frame.text = "Draft"
    slide.slide_layout.shapes._spTree.append(box._element)
    owner = (slide if missing == "slide_layout" else slide.slide_layout).part
    (found,) = [key for key, one in owner.rels.items() if one.reltype.endswith(missing[6:].title())]
    owner.rels.pop(found)
    drawn = "" if missing == "slide_layout" else "\n\nDraft"
    assert document(saved(presentation)).text == f"# Hello\n\nBuy slates{drawn}"


@pytest.mark.parametrize(
    ("fill", "width", "text"),
    [
        (True, 8, "<!-- Salary 40 -->"),
        (None, 8, "<!-- Salary 40 -->"),  # as its style has it
        (False, 8, "Salary 40"),
        (True, 3, "Salary 40"),
    ],
)
def test_text_under_a_box_is_marked_and_noted(fill: bool | None, width: int, text: str) -> None:
    from pptx.dml.color import RGBColor
    from pptx.enum.shapes import MSO_SHAPE
    from pptx.util import Cm

    presentation = new_presentation()
    shapes = presentation.slides.add_slide(presentation.slide_layouts[6]).shapes
    shapes.add_textbox(Cm(2), Cm(2), Cm(6), Cm(1)).text_frame.text = "Salary 40"
    box = shapes.add_shape(MSO_SHAPE.RECTANGLE, Cm(1), Cm(1), Cm(width), Cm(3))
    if fill:
        box.fill.solid()
        box.fill.fore_color.rgb = RGBColor(0, 0, 0)  # type: ignore[no-untyped-call]
    elif fill is False:
        box.fill.background()
    found = document(saved(presentation))
    assert found.text == text
    assert bool(found.notes) is text.startswith("<!--")


def test_tiny_text_of_a_slide_is_marked() -> None:
    from pptx.util import Cm, Pt

    presentation = new_presentation()
    shapes = presentation.slides.add_slide(presentation.slide_layouts[6]).shapes
    frame = shapes.add_textbox(Cm(2), Cm(2), Cm(6), Cm(1)).text_frame
    frame.text = "Salary "
    run = frame.paragraphs[0].add_run()
    run.text, run.font.size = "40", Pt(1)
    assert document(saved(presentation)).text == "Salary <!-- 40 -->"


def test_text_beside_a_slide_is_noted() -> None:
    from pptx.util import Cm

    presentation = new_presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])
    for text, left in (("on it", 1), ("half", -2), ("Pay twice", -9)):
        slide.shapes.add_textbox(Cm(left), Cm(1), Cm(4), Cm(2)).text_frame.text = text
    assert document(saved(presentation)).notes == (
        ": text that the slide does not show is read as well (9 characters: 'Pay twice')",
    )


A = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'


def with_paragraphs(*paragraphs: str, layout: int = 6) -> Any:
    """Make a presentation of one slide with these paragraphs of raw XML, and return it."""
    from pptx.oxml import parse_xml

    presentation = new_presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[layout])
    box = slide.shapes.add_textbox(0, 0, 9, 9) if layout == 6 else slide.placeholders[1]
    body = box.text_frame._txBody
    body.remove(body.p_lst[0])
    for paragraph in paragraphs:
        body.append(parse_xml(f"<a:p {A}>{paragraph}</a:p>"))
    return presentation


@pytest.mark.parametrize(
    ("runs", "text"),
    [
        ("<a:r><a:t>10</a:t></a:r><a:r><a:rPr baseline='30000'/><a:t>6</a:t></a:r>", "10^6"),
        ("<a:r><a:t>H</a:t></a:r><a:r><a:rPr baseline='-25%'/><a:t>2</a:t></a:r>"
         "<a:r><a:t>O</a:t></a:r>", "H_2O"),
        ("<a:r><a:rPr strike='dblStrike'/><a:t>40</a:t></a:r><a:r><a:t> 45</a:t></a:r>",
         "~~40~~ 45"),
        ("<a:r><a:rPr strike='noStrike'/><a:t>2^3</a:t></a:r>", r"2\^3"),
        ("<a14:m xmlns:a14='http://schemas.microsoft.com/office/drawing/2010/main'><m:oMath "
         "xmlns:m='http://schemas.openxmlformats.org/officeDocument/2006/math'><m:f><m:num>"
         "<m:r><m:t>1</m:t></m:r></m:num><m:den><m:r><m:t>2</m:t></m:r></m:den></m:f>"
         "</m:oMath></a14:m>", "1/2"),
    ],
)  # fmt: skip
def test_what_the_look_of_a_run_means_is_marked(runs: str, text: str) -> None:
    assert document(saved(with_paragraphs(runs))).text == text


def test_a_raised_number_is_a_notes_mark_where_a_paragraph_begins_with_it() -> None:
    one = "<a:r><a:rPr baseline='30000'/><a:t>1</a:t></a:r>"
    paragraphs = (f"<a:r><a:t>Fee 40</a:t></a:r>{one}", f"{one}<a:r><a:t> net</a:t></a:r>")
    found = document(saved(with_paragraphs(*paragraphs)))
    assert found.text == "- Fee 40[^1]\n- [^1]: net"


def test_automatic_numbers_of_a_slide_are_those_that_it_shows() -> None:
    def item(text: str, form: str, level: int = 0) -> str:
        return f"<a:pPr lvl='{level}'>{form}</a:pPr><a:r><a:t>{text}</a:t></a:r>"

    number = "<a:buAutoNum type='arabicPeriod' startAt='3'/>"
    letter = "<a:buAutoNum type='alphaLcParenBoth'/>"
    presentation = with_paragraphs(
        item("fee", number), item("a", letter, 1), item("b", letter, 1), item("term", number),
        item("first", letter, 1), item("point", "<a:buChar char='-'/>"), item("next", number),
    )  # fmt: skip
    assert document(saved(presentation)).text == (
        "3. fee\n  (a) a\n  (b) b\n4. term\n  (a) first\n- point\n3. next"
    )


def test_automatic_numbers_of_a_layout_and_of_a_master_hold_for_their_slides() -> None:
    from pptx.oxml import parse_xml

    presentation = with_paragraphs(
        "<a:r><a:t>one</a:t></a:r>", "<a:r><a:t>two</a:t></a:r>", layout=1
    )
    layout = presentation.slide_layouts[1]
    level = f"<a:lvl1pPr {A}><a:buAutoNum type='romanUcPeriod'/></a:lvl1pPr>"
    styles = layout.placeholders[1].text_frame._txBody.find("{*}lstStyle")
    styles.append(parse_xml(level))
    assert document(saved(presentation)).text == "I. one\nII. two"
    styles.remove(styles[0])
    body = presentation.slide_master._element.find("{*}txStyles/{*}bodyStyle")
    body.replace(body[0], parse_xml(level))
    assert document(saved(presentation)).text == "I. one\nII. two"


def test_a_merged_cell_of_a_slide_is_said_once_and_the_columns_stay() -> None:
    presentation = new_presentation()
    shapes = presentation.slides.add_slide(presentation.slide_layouts[6]).shapes
    table = shapes.add_table(3, 3, 0, 0, 9, 9).table
    for index, text in enumerate("abcdefghi"):
        table.cell(index // 3, index % 3).text = text
    table.cell(0, 0).merge(table.cell(0, 1))
    table.cell(1, 0).merge(table.cell(2, 0))
    found = document(saved(presentation))
    assert found.text == "| a b |  | c |\n| --- | --- | --- |\n| d g | e | f |\n|  | h | i |"


def test_what_a_layout_strikes_is_struck_and_numbers_of_odd_formats_are_counted() -> None:
    from pptx.oxml import parse_xml

    names = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
    presentation = new_presentation(pptx([("Fees", "rent\nwater\nheating", "")]))
    (slide,) = presentation.slides
    styles = slide.slide_layout.placeholders[1]._element.txBody.find("{*}lstStyle")
    styles.clear()
    styles.append(
        parse_xml(f'<a:lvl1pPr {names}><a:buNone/><a:defRPr strike="sngStrike"/></a:lvl1pPr>')
    )
    for kind, paragraph in zip(
        ("circleNumDbPlain", "thaiAlphaPeriod", ""), slide.placeholders[1].text_frame.paragraphs,
        strict=True,
    ):  # fmt: skip
        number = f'<a:buAutoNum type="{kind}" startAt="3"/>' if kind else ""
        paragraph._p.insert(0, parse_xml(f"<a:pPr {names}>{number}</a:pPr>"))
    paragraph.runs[0].font._element.set("strike", "noStrike")
    found = document(saved(presentation))
    assert found.text == "# Fees\n\n③ ~~rent~~\n3. ~~water~~\n- heating"
    assert found.notes == (
        ": 1 automatic number has a format that is not known and written in digits",
    )


def test_a_shape_with_a_formula_keeps_the_numbers_of_its_list() -> None:
    presentation = new_presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])
    frame = slide.shapes.add_textbox(0, 0, 100, 100).text_frame
    frame.text = "one\ntwo"
    drawing = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
    for paragraph in frame.paragraphs:
        form: Any = paragraph._p.get_or_add_pPr()
        form.append(form.makeelement(f"{drawing}buAutoNum", {"type": "arabicPeriod"}))
    shape: Any = slide.shapes[0]._element
    compatible = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
    choice = shape.makeelement(f"{compatible}Choice")
    shape.getparent().replace(shape, choice)
    choice.append(shape)
    assert document(saved(presentation)).text == "1. one\n2. two"


def test_a_comment_on_a_slide_has_its_author_and_day() -> None:
    from pptx.opc.package import Part
    from pptx.opc.packuri import PackURI

    presentation = new_presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])
    said = b"<l><cm authorId='0' dt='2026-03-01T10:30:00'><text>by phone</text></cm></l>"
    part = Part(PackURI("/ppt/comments/comment1.xml"), "application/xml", slide.part.package, said)
    slide.part.relate_to(part, "http://x/comments")
    assert document(saved(presentation)).text == "Comments:\n- by phone (2026-03-01)"
