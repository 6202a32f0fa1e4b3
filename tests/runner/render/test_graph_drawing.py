import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from paddock.runner.render.graph_drawing import (
    BOLD_CHAR,
    CHAR,
    graph_mermaid,
    graph_page,
    graph_svg,
    text_width,
)
from paddock.runner.render.graph_model import GraphBox, LastStepRun, PipelineGraph
from paddock.runner.render.html_page import COLOUR_CSS

HOSTILE = '<script>alert(\'x\')</script> & "]; click a "javascript:alert(1)" %%{init}%% end'
SCENE = PipelineGraph(
    HOSTILE,
    HOSTILE,
    (
        GraphBox("docs", "docs", "files.scan", last=LastStepRun("done", n=1)),
        GraphBox(
            "each", "each", f"doc in steps.docs.files | select('{HOSTILE}')", reads=("docs",),
            is_block=True,
            body=(
                GraphBox("text", "text", "files.read", last=LastStepRun("done", n=3, seconds=0.4)),
                GraphBox("sum", "sum", "chat", f"writer = {HOSTILE}", reads=("text",),
                    last=LastStepRun("failed", n=3, seconds=75, calls=2)),
                GraphBox("(files.write)", "files.write", "", "", True, ("sum",),
                    last=LastStepRun("left")),
            ),
            last=LastStepRun("failed", {"new": 2, "quarantined": 1}, 3)
        ),
    ),
    "Run 'calm-otter'",
)  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"


def test_a_picture_is_well_formed_and_holds_no_markup_of_others() -> None:
    root = ElementTree.fromstring(graph_svg(SCENE))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "title", "desc", "defs", "marker", "path", "style", "rect", "text", "g",
    }  # fmt: skip
    assert root.find(f"{SVG}title").text == HOSTILE  # type: ignore[union-attr]


def test_a_picture_loads_nothing() -> None:
    text = graph_svg(SCENE)
    assert re.findall(r"https?://[^\"' ]+", text) == ["http://www.w3.org/2000/svg"]
    assert re.findall(r"url\(([^)]*)\)", text.replace("'", "")) == ["#tip"] * 3
    assert "href" not in text
    assert "@import" not in text


def test_each_box_says_all_in_words_and_can_be_reached_by_keyboard() -> None:
    root = ElementTree.fromstring(graph_svg(SCENE))
    labels = [group.get("aria-label", "") for group in root.iter(f"{SVG}g")]
    assert labels[0] == "docs: files.scan. done"
    assert labels[1].endswith(". 2 done · 1 quarantined")
    assert labels[3].endswith(". 3 times · 1 min 15 s · 2 calls")
    assert labels[4] == "files.write. not reached"
    reached = [group for group in root.iter(f"{SVG}g") if group.get("tabindex") == "0"]
    assert len(reached) == 4  # a block is read by what stands in it


def test_a_state_has_a_mark_besides_its_colour() -> None:
    root = ElementTree.fromstring(graph_svg(SCENE))
    marks = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "mark"]
    assert marks == ["✓", "✗", "✓", "✗", "-"]


def test_every_box_of_a_page_leads_to_its_row() -> None:
    page = graph_page(SCENE)
    links = re.findall(r'<a href="#([^"]+)"', page)
    rows = re.findall(r'<th scope="row" id="([^"]+)"', page)
    assert links == rows
    assert "<script" not in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_mermaid_is_made_of_harmless_words() -> None:
    text = graph_mermaid(SCENE)
    body = text.split("flowchart TD\n")[1]
    for line in body.splitlines():
        assert line.count('"') in (0, 2)  # no one's text ends a label
        assert not re.search(r"<(?!b>|/b>|br/>)|%|&|\\", line)
    assert 'n_docs["<b>docs</b><br/>files.scan<br/>done"]' in body
    assert "subgraph n_each[" in body
    assert "n_docs --> n_each" in body
    assert "n_sum --> n__28files_2ewrite_29" in body
    assert "class n_sum failed" in body


def luminance(colour: str) -> float:
    digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_what_is_written_or_drawn_can_be_told_from_what_is_behind_it(scheme: int) -> None:
    named = re.findall(r"--([a-z]+):#([0-9a-f]+)", COLOUR_CSS.split("@media")[scheme])
    colours = {name: luminance(colour) for name, colour in named}
    texts = {"ink", "soft", "done", "fresh", "failed", "running", "left", "work", "known"}
    for behind in ("paper", "box", "block"):
        for name in (*texts, "line"):
            dark, light = sorted((colours[name], colours[behind]))
            least = 4.5 if name in texts else 3.0
            assert (light + 0.05) / (dark + 0.05) >= least, (name, behind)


def test_a_long_word_is_cut_and_whole_in_its_title(tmp_path: Path) -> None:
    long = "x" * 500
    text = graph_svg(PipelineGraph("n", "", (GraphBox(long, long, "chat"),)))
    assert f"<title>{long}: chat</title>" in text
    assert max(map(len, re.findall(r'<text class="id"[^>]*>([^<]*)<', text))) < 60


def test_a_long_or_wide_name_stays_in_its_box() -> None:
    boxes = (
        GraphBox("d" * 60, "d" * 60, "chat", last=LastStepRun("done", n=1)),
        GraphBox(
            "b", "b" * 80, "for each x in y", is_block=True, body=(GraphBox("c", "c", "chat"),)
        ),
        GraphBox(
            "p", "p", "pipeline 文書文書文書文書文書文書文書文書文書文書文書文書文書文書文書.yaml"
        ),
    )
    root = ElementTree.fromstring(graph_svg(PipelineGraph("n", "", boxes)))
    for group in root.iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        assert rect is not None
        right = float(rect.get("x", "")) + float(rect.get("width", ""))
        for text in group.findall(f"{SVG}text"):
            if text.get("class") != "mark":
                char = BOLD_CHAR if text.get("class") == "id" else CHAR
                assert float(text.get("x", "")) + text_width(text.text or "") * char <= right
