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
    shapes.add_chart(XL_CHART_TYPE.BAR_CLUSTERED, 0, 9_000_000, 100, 100, levels)
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


def test_a_layout_and_a_master_without_shapes_have_no_text() -> None:
    presentation = new_presentation(pptx([("Hello", "", "")]))
    (slide,) = presentation.slides
    layout, master = slide.slide_layout, slide.slide_layout.slide_master
    slide.shapes._spTree.remove(slide.placeholders[1]._element)
    layout._element.cSld.remove(layout._element.cSld.spTree)
    master._element.remove(master._element.cSld)
    assert document(saved(presentation)).text == "# Hello"


def test_shapes_that_lack_their_properties_or_chart_do_not_hide_the_others() -> None:
    from pptx.chart.data import CategoryChartData
    from pptx.enum.chart import XL_CHART_TYPE

    presentation = new_presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])
    group = slide.shapes.add_group_shape()
    data: Any = CategoryChartData()  # type: ignore[no-untyped-call]
    chart = slide.shapes.add_chart(XL_CHART_TYPE.LINE, 0, 0, 9, 9, data)
    box, place = (group.shapes.add_textbox(0, 0, 9, 9) for _ in range(2))
    box.text_frame.text, place.text_frame.text = "Hello", "Left"
    box._element.nvSpPr.remove(box._element.nvSpPr.cNvPr)
    place._element.spPr.xfrm.find("{*}off").set("x", "far")
    slide.slide_layout.shapes._spTree.append(chart._element)
    found = document(saved(presentation)).text
    assert [one in found for one in ("Hello", "Left")] == [True, True]


def test_a_hidden_shape_of_a_group_is_noted() -> None:
    presentation = new_presentation()
    group = presentation.slides.add_slide(presentation.slide_layouts[6]).shapes.add_group_shape()
    for text in ("Shown", "Pay twice"):
        box = group.shapes.add_textbox(0, 0, 9, 9)
        box.text_frame.text = text
    box._element.nvSpPr.cNvPr.set("hidden", "1")
    found = document(saved(presentation))
    assert found.pages == ("Shown\n\nPay twice",)
    assert found.notes == (
        ": text that the slide does not show is read as well (9 characters: 'Pay twice')",
    )


def test_text_beside_a_slide_is_noted() -> None:
    from pptx.util import Cm

    presentation = new_presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])
    for text, left in (("on it", 1), ("half", -2), ("Pay twice", -9)):
        slide.shapes.add_textbox(Cm(left), Cm(1), Cm(4), Cm(2)).text_frame.text = text
    assert document(saved(presentation)).notes == (
        ": text that the slide does not show is read as well (9 characters: 'Pay twice')",
    )
