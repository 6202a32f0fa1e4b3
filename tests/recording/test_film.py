import doctest
import re
from xml.etree import ElementTree

import pytest

from tests.recording import film
from tests.recording.film import (
    FASTER,
    SHEET,
    SHORTEST_S,
    Frame,
    Run,
    look,
    runs,
    shorten,
    svg,
    thin,
)

SVG = "{http://www.w3.org/2000/svg}"


def picture(*texts: str) -> film.Picture:
    return tuple((Run(0, text),) for text in texts)


def seconds(frames: tuple[Frame, ...]) -> float:
    return sum(frame.seconds for frame in frames)


def drawn(*frames: Frame) -> ElementTree.Element:
    return ElementTree.fromstring(svg(frames, "a title", "about it"))


def texts(drawing: ElementTree.Element) -> list[str | None]:
    return [text.text for text in drawing.iter(f"{SVG}text")]


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(film).failed == 0


def test_markup_quotes_and_odd_letters_of_the_terminal_do_no_harm() -> None:
    hostile = """</text><script>alert("1")</script>&amp; ']]>"""
    frame = Frame(1.0, picture(hostile, "bell \x07, half \ud800"))
    text = svg((frame,), hostile, f"about {hostile}")
    drawing = ElementTree.fromstring(text.encode())
    assert texts(drawing) == [hostile, "bell \ufffd, half \ufffd", hostile]
    assert drawing.attrib["aria-label"] == f"about {hostile}"
    assert "<script" not in text


def test_the_drawing_needs_nothing_from_elsewhere() -> None:
    text = svg((Frame(1.0, picture("$ ls")),), "a title", "about it")
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"url\(|@import|<image|\son\w+=", text)


def test_every_frame_comes_at_its_time_and_the_last_stands_to_the_end() -> None:
    text = svg([Frame(t, picture(f"{t}")) for t in (0.5, 1.5, 2.0)], "a title", "about it")
    assert "animation: play 4.00s step-end infinite" in text
    times = re.findall(r"([\d.]+)% { transform: translateY\((-?\d+)px\) }", text)
    moves = [(float(at) / 100 * 4.0, int(y)) for at, y in times]
    assert moves == [(0.0, 0), (0.5, -SHEET), (2.0, -2 * SHEET), (4.0, -2 * SHEET)]


def test_who_does_not_play_it_sees_the_last_frame() -> None:
    drawing = drawn(Frame(1.0, picture("first")), Frame(1.0, picture("last")))
    strip = drawing.find(f".//{SVG}g[@id='strip']")
    assert strip is not None
    assert strip.attrib["transform"] == f"translate(0 -{SHEET})"
    style = drawing.findtext(f"{SVG}style") or ""
    assert "@media (prefers-reduced-motion: reduce) { #strip { animation: none } }" in style


def test_a_line_that_stays_is_stored_once() -> None:
    drawing = drawn(*(Frame(1.0, picture("$ ls", f"{n}")) for n in range(3)))
    assert texts(drawing) == ["$ ls", "0", "1", "2", "a title"]
    assert len(list(drawing.iter(f"{SVG}use"))) == 6


def test_colours_and_bold_start_a_run_of_their_own() -> None:
    green = look("green", bold=True)
    cells = [("$", green), (" ", ""), ("l", ""), ("s", "")]
    assert runs(cells) == (Run(0, "$", green), Run(2, "ls"))
    assert green == 'fill="#a6e3a1" font-weight="bold"'


def test_what_is_quick_keeps_its_time() -> None:
    frames = (Frame(1.0, picture("a")), Frame(2.0, picture("b")))
    assert shorten(frames) == frames


@pytest.mark.parametrize(("waited_s", "times"), [(20, 5), (60, FASTER), (300, 25)])
def test_waiting_is_shortened_and_says_by_how_much(waited_s: int, times: int) -> None:
    frames = tuple(Frame(waited_s / 50, picture(f"{n}")) for n in range(50))
    shortened = shorten(frames)
    assert seconds(shortened) == pytest.approx(waited_s / times)
    assert {frame.note for frame in shortened} == {f"{times} times faster"}


def test_thinning_keeps_the_time_and_the_newest_picture() -> None:
    frames = tuple(Frame(0.04, picture(f"{n // 3}")) for n in range(99))
    thinned = thin(frames)
    assert seconds(thinned) == pytest.approx(seconds(frames))
    assert all(frame.seconds >= SHORTEST_S for frame in thinned[:-1])
    assert thinned[-1].picture == frames[-1].picture
