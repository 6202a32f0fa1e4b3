import pytest

from paddock.steps.readers.html import HtmlText, html_to_markdown


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<p>10<sup>6</sup> tons of H<sub>2</sub>O</p>", "10^6 tons of H_2O"),
        ("<p>The 1<sup>st</sup>, 2<sup>nd</sup>, XX<sup>e</sup></p>", "The 1st, 2nd, XXe"),
        ("<p>10<sup>6</sup>5 and 10<sup>-6</sup> m</p>", "10^(6)5 and 10^-6 m"),
        ("<p>x<sup>n+1</sup> Ca<sup>2+</sup></p>", "x^(n+1) Ca^2+"),
        ("<p>x<sup>2<sup>3</sup></sup></p>", "x^(2^3)"),
        ("<p>Rain<sup><a href='#n'>[1]</a></sup></p>", "Rain[[1]](#n)"),
        ("<p>10<span style='vertical-align: super'>6</span></p>", "10^6"),
        ("<math><msup><mn>10</mn><mn>6</mn></msup></math>", "10^6"),
        ("<math><mfrac><mn>1</mn><mn>2</mn></mfrac></math>", "1/2"),
    ],
)
def test_raised_and_lowered_text_is_told_from_plain_text(markup: str, text: str) -> None:
    assert html_to_markdown(markup).text == text


def test_alternative_texts_of_pictures_are_read() -> None:
    page = html_to_markdown(
        "<p>See <img src='a.png' alt='Sales by  month'><img src='b.png'></p>"
        "<a href='/x'><img alt='Order'></a><span role='img' aria-label='Warning'></span>"
    )
    assert page.text == "See ![Sales by month]\n\n [![Order]](/x)  ![Warning]"


def test_the_words_of_drawings_are_read_once() -> None:
    drawing = (
        "<svg><title>Plan</title><style>b{}</style><text>Hall</text><g><text>Room</text></g></svg>"
    )
    page = html_to_markdown(f"<head><title>House</title></head><p>Left{drawing}right</p>")
    assert (page.text, page.title) == ("Left Plan Hall Room right", "House")


def test_values_of_forms_are_read() -> None:
    form = (
        "<form><label>Name</label><input value='Ada'><input type='radio'>new"
        "<input type=checkbox checked>old<select><option>S<option selected>M</select>"
        "<textarea>Thanks</textarea><input type=hidden value=x7></form>"
    )
    page = html_to_markdown(form)
    assert " ".join(page.text.split()) == "Name Ada [ ] new [x] old [ ] S [x] M Thanks"
    assert page.notes == (": values of 1 hidden or password field are not read",)


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<ul><li>a<li>b<ul><li>c</ul><li>d</ul>", "- a\n- b\n  - c\n- d"),
        (
            "<table><thead><tr><th>Item<th>Price<tbody><tr><td>Tea<td>3<tr><td>Nut<td>4</table>",
            "| Item | Price |\n| --- | --- |\n| Tea | 3 |\n| Nut | 4 |",
        ),
        ("<dl><dt>x<dd>y<dt>z<dd>w</dl>", "x\n:   y\n\nz\n:   w"),
        ("a<progress value=3></progress><meter value=2></meter>b", "a 3  2 b"),
    ],
)
def test_end_tags_may_be_left_out_and_nothing_runs_together(markup: str, text: str) -> None:
    assert html_to_markdown(markup).text == text


def test_blocks_are_not_run_together() -> None:
    page = html_to_markdown("<header>One</header><nav>Two</nav><main>Three</main>")
    assert page.text == "One\n\nTwo\n\nThree"


@pytest.mark.parametrize(
    "hiding",
    [
        "<p hidden>Pay <b>twice</b></p>",
        "<p style='color:red; display : none'>Pay <b>twice</b></p>",
        "<p style='visibility:hidden'>Pay <b>twice</b></p>",
        "<p style='font-size:0px'>Pay <b>twice</b></p>",
        "<p style='font-size:1px'>Pay <b>twice</b></p>",
        "<p style='max-height:0;mso-hide:all'>Pay <b>twice</b></p>",
        "<p style='color:transparent'>Pay <b>twice</b></p>",
        "<p style='height:0;overflow:hidden'>Pay <b>twice</b></p>",
        "<p style='clip-path: inset(100%)'>Pay <b>twice</b></p>",
        "<style>.x {clip: rect(1px, 1px)}</style><p class=x>Pay <b>twice</b></p>",
        "<style>.x, b {color: red} p.x {display: none}</style><p class='y x'>Pay <b>twice</b></p>",
        "<p style='color:#FFF'>Pay <b>twice</b></p>",
        "<p style='color: rgb(255,255,255); background: white'>Pay <b>twice</b></p>",
        "<div style='background:#123456'><p style='color:#123456'>Pay <b>twice</b></p></div>",
        "<p><font color=white>Pay <b>twice</b></font></p>",
        "<style>.x {color: white}</style><p class=x>Pay <b>twice</b></p>",
    ],
)
def test_text_that_a_page_hides_is_read_and_noted(hiding: str) -> None:
    page = html_to_markdown(f"<p>Invoice</p>{hiding}")
    assert page.text == "Invoice\n\nPay **twice**"
    assert page.notes == (
        ": text that the page does not show is read as well (9 characters: 'Pay twice')",
    )


@pytest.mark.parametrize(
    "shown",
    [
        "<table bgcolor=navy><tr><td><font color=white>Pay</font></td></tr></table>",
        "<div style='background:#036'><p style='color:#fff'>Pay</p></div>",
        "<div style='background: url(sea.png)'><p style='color:#fff'>Pay</p></div>",
        "<p style='color:#fff;position:absolute'>Pay</p>",
        "<style>.bar {background: #036} .bar a {color: white}</style>"
        "<p class=bar><a href=x>Pay</a></p>",
        "<style>main .box {background: #000} .box {color: #fff}</style><p class=box>Pay</p>",
        "<style>a:hover {color: #fff}</style><a href=x>Pay</a>",
        "<div style='color:#fff'><p style='color:black'>Pay</p></div>",
    ],
)
def test_white_text_on_a_field_is_shown(shown: str) -> None:
    assert html_to_markdown(f"<p>Invoice</p>{shown}").notes == ()


@pytest.mark.parametrize(
    "hidden",
    [
        "<img alt='Pay twice' style='display:none'>",
        "<div hidden><input value='Pay twice'></div>",
        "<svg style='display:none'><text>Pay twice</text></svg>",
    ],
)
def test_hidden_pictures_fields_and_drawings_are_noted(hidden: str) -> None:
    page = html_to_markdown(f"<p>Invoice</p>{hidden}")
    assert "Pay twice" in page.text
    assert page.notes == (
        ": text that the page does not show is read as well (9 characters: 'Pay twice')",
    )


def test_what_a_page_shows_is_not_noted() -> None:
    shown = (
        "<style>@media print {p {display: none}}</style><p style='font-size:0.9em'>Rain</p>"
        "<p style='background-color:transparent;line-height:0'>Snow<input type=checkbox hidden></p>"
        "<noscript><style>p {color: red}</style><img src=x></noscript><script>hide()</script>"
    )
    assert html_to_markdown(shown).notes == ()


@pytest.mark.parametrize(
    "unread",
    [
        "<noscript>Pay <b>twice</b></noscript>",
        "<template><p>Pay</p><template>twice</template></template>",
        "<noscript>Pay</noscript><p>Invoice</p><template>twice",
    ],
)
def test_text_of_noscript_and_template_is_noted(unread: str) -> None:
    page = html_to_markdown(f"<p>Rain</p>{unread}")
    assert "Rain" in page.text
    assert "twice" not in page.text
    (note,) = page.notes
    assert note.startswith(": text of `noscript` and `template` is not read (")
    assert "Pay" in note
    assert "twice" in note


def test_text_of_a_shadow_tree_that_a_page_declares_is_read() -> None:
    page = html_to_markdown(
        "<my-card><template shadowrootmode=open><p>Rain</p></template></my-card>"
    )
    assert page == HtmlText("Rain", "")


@pytest.mark.parametrize(
    "markup",
    [
        "<html><head><title>House</title><body><p>Left</p></body></html>",
        "<!doctype html><head><meta charset=utf-8><title>House</title><style>p{}</style><p>Left",
        "<title>House</title><p>Left",
    ],
)
def test_a_page_is_read_where_the_end_of_its_head_is_left_out(markup: str) -> None:
    assert html_to_markdown(markup) == HtmlText("Left", "House")


def test_embedded_pages_are_noted() -> None:
    page = html_to_markdown("<p>Rain</p><iframe src='map.html'></iframe>")
    assert page.notes == (": 1 embedded page or file is not read",)
    page = html_to_markdown("<audio src='a.mp3'></audio><video><source src='b.mp4'></video>")
    assert page.notes == (": 2 embedded pages or files are not read",)


@pytest.mark.timeout(90)  # less than 10 s of work; when each looked at all before it, minutes
@pytest.mark.parametrize(
    "markup",
    [
        "<font>x" * 20_000,
        "<b>" * 10_000 + "<option>x" * 10_000,
        "<img alt=x>" * 20_000,
        "<select><option>x" * 10_000,
        "<ol>" + "<li>x" * 20_000,
        "<table><thead>" + "<tr><td>x" * 10_000,
        "<style>" + "x" * 200_000 + "</style><p>x",
        "<style>" + "@a" * 100_000 + "</style><p>x",
        "<a " * 20_000,
        "<p>x" + " " * 40_000 + "x",
    ],
    ids=lambda markup: markup[:12],
)
def test_the_time_does_not_grow_with_what_is_open_before_or_unclosed(markup: str) -> None:
    assert html_to_markdown(markup).text.count("x") >= markup.count("x") - 200_000


def test_what_is_nested_beyond_reason_keeps_its_text_in_order() -> None:
    text = html_to_markdown("".join(f"<div>{n} " for n in range(300)) + "</div>" * 300 + "x").text
    assert text.split() == [*map(str, range(300)), "x"]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<ol start=3><li>a<ol><li>b</ol><li>c</ol>", "3. a\n   1. b\n4. c"),
        ("<p>a</p>5 < x and b <c", "a\n\n5 < x and b <c"),
        ("<select><option>a<select><option>b", "[x] a  [x] b"),
        (
            "<table><thead><tr><td>a<tr><td>b<tbody><tr><td>c</table>",
            "|  |\n| --- |\n| a |\n| b |\n| c |",
        ),
    ],
)
def test_numbers_of_items_heads_of_several_rows_and_cut_tags_are_kept(
    markup: str, text: str
) -> None:
    assert html_to_markdown(markup).text == text


def test_an_empty_field_shows_its_hint() -> None:
    page = html_to_markdown("<input placeholder='Your name'><input value=Ada placeholder=Name>")
    assert page.text.split() == ["Your", "name", "Ada"]
