import pytest

from paddock.steps.readers.text_files import html_to_markdown


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
        "<style>.x {clip: rect(1px, 1px)}</style><p class=x>Pay <b>twice</b></p>",
        "<style>.x, b {color: red} p.x {display: none}</style><p class='y x'>Pay <b>twice</b></p>",
    ],
)
def test_text_that_a_page_hides_is_read_and_noted(hiding: str) -> None:
    page = html_to_markdown(f"<p>Invoice</p>{hiding}")
    assert page.text == "Invoice\n\nPay **twice**"
    assert page.notes == (
        ": text that the page does not show is read as well (9 characters: 'Pay twice')",
    )


def test_what_a_page_shows_is_not_noted() -> None:
    shown = "<style>@media print {p {display: none}}</style><p style='font-size:0.9em'>Rain</p>"
    assert html_to_markdown(shown).notes == ()


def test_embedded_pages_are_noted() -> None:
    page = html_to_markdown("<p>Rain</p><iframe src='map.html'></iframe>")
    assert page.notes == (": 1 embedded page or file is not read",)
    page = html_to_markdown("<audio src='a.mp3'></audio><video><source src='b.mp4'></video>")
    assert page.notes == (": 2 embedded pages or files are not read",)
