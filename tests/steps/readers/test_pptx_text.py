from io import BytesIO
from typing import Any

from paddock.steps.readers.office_and_epub import read_pptx
from paddock.steps.readers.reader import Document
from paddock.steps.readers.reader_process import ReadOptions
from tests.fakes.office import pptx


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
    from pptx import Presentation
    from pptx.chart.data import CategoryChartData
    from pptx.enum.chart import XL_CHART_TYPE
    from pptx.util import Cm

    presentation = Presentation()
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
    out = BytesIO()
    presentation.save(out)
    assert document(out.getvalue()).text == (
        "left\n\nright\n\nbelow\n\n| Item | Price |\n| --- | --- |\n| Slates | 5 |\n\n"
        "|  | Roofs |\n| --- | --- |\n| 2023 | 3 |\n| 2024 | 4.5 |"
    )


def test_charts_of_points_and_of_several_levels_are_read_whole() -> None:
    from pptx import Presentation
    from pptx.chart import data
    from pptx.enum.chart import XL_CHART_TYPE

    presentation = Presentation()
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
    out = BytesIO()
    presentation.save(out)
    rule = "| --- | --- |\n"
    assert read_pptx(BytesIO(out.getvalue()), ReadOptions()).text == (
        f"|  | Here |\n{rule}| 1 | 1000000.5 |\n\n|  | There |\n{rule}| 7 | 7000003.5 |\n\n"
        f"|  | Sum |\n{rule}| 2024 Jan | 1 |\n| Feb | 2 |"
    )
