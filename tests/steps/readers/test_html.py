import re

import pytest

from paddock.steps.readers.html import HtmlText, html_to_markdown
from paddock.steps.readers.style_sheets import known_properties, property_of

PAGES = {
    "raised and lowered text is told from plain text": [
        ("<p>10<sup>6</sup> tons of H<sub>2</sub>O</p>", "10^6 tons of H_2O"),
        ("<p>10<sup>6</sup>5 and 10<sup>-6</sup> m</p>", "10^(6)5 and 10^-6 m"),
        ("<p>x<sup>n+1</sup> Ca<sup>2+</sup></p>", "x^(n+1) Ca^2+"),
        ("<p>Rain<sup><a href='#n'>[1]</a></sup></p>", "Rain[^1]"),
        ("<p>10<span style='vertical-align: super'>6</span></p>", "10^6"),
        ("<math><msup><mn>10</mn><mn>6</mn></msup></math>", "10^6"),
    ],
    "end tags may be left out and nothing runs together": [
        ("<ul><li>a<li>b<ul><li>c</ul><li>d</ul>", "- a\n- b\n  - c\n- d"),
        (
            "<table><thead><tr><th>Item<th>Price<tbody><tr><td>Tea<td>3<tr><td>Nut<td>4</table>",
            "| Item | Price |\n| --- | --- |\n| Tea | 3 |\n| Nut | 4 |",
        ),
        (
            "<table><thead><tr><th>Item<th>Price<tbody><tr><td>Tea<td>3"
            "<tfoot><tr><td>Sum<td>7<tbody><tr><td>Nut<td>4</table>",
            "| Item | Price |\n| --- | --- |\n| Tea | 3 |\n| Nut | 4 |\n| Sum | 7 |",
        ),
        (
            "<table><tbody><tr><td>Tea<td>3<tbody><tr><td>Nut<td>4</table>",
            "|  |  |\n| --- | --- |\n| Tea | 3 |\n| Nut | 4 |",
        ),
        (
            "<table><tfoot><tr><td>Sum<td>7</tfoot><tr><th>Item<th>Price<tr><td>Tea<td>7</table>",
            "| Item | Price |\n| --- | --- |\n| Tea | 7 |\n| Sum | 7 |",
        ),
    ],
    "rows of a table stay in order under their head and none is lost": [
        (
            "<table><tr><th>Item<th>Sum</tr><tbody><form><tr><td>Ink<td>9</tr></form></tbody></table>",
            "| Item | Sum |\n| --- | --- |\n| Ink | 9 |",
        ),
        (
            "<table><tbody><tr><th>Item<th>Sum</tr></tbody><tbody>Due 500<tr><td>Ink<td>9</table>",
            "Due 500\n\n| Item | Sum |\n| --- | --- |\n| Ink | 9 |",
        ),
        (
            "<p>See<table><tr><th>Item<th>Sum<tr>Due <b>500</b><td>Ink<td>9</table>",
            "See\n\nDue **500**\n\n| Item | Sum |\n| --- | --- |\n| Ink | 9 |",
        ),
        (
            "<table><tr><th>Item<th>Sum<tr><td>Ink<td>9<tfoot><td>Total<td>9</table>",
            "| Item | Sum |\n| --- | --- |\n| Ink | 9 |\n| Total | 9 |",
        ),
        (
            "<table><tr><th>Item<th>Sum<tr><td>Ink<td>9<tfoot><p>Total 9</table>",
            "Total 9\n\n| Item | Sum |\n| --- | --- |\n| Ink | 9 |",
        ),
        (
            "<table><tr><th>Item<th>Sum<tr><td>Ink<td>9</tr>"
            "<tfoot><table><tr><td>Total<td>9</table></tfoot></table>",
            "| Item | Sum |\n| --- | --- |\n| Ink | 9 |\n\n|  |  |\n| --- | --- |\n| Total | 9 |",
        ),
        (
            "<table><thead><tr><th>Net<th>Tax<tbody><tr><td>1<td>2"
            "<thead><tr><th>Paid<th>Open<tbody><tr><td>3<td>4</table>",
            "| Net | Tax |\n| --- | --- |\n| 1 | 2 |\n| Paid | Open |\n| --- | --- |\n| 3 | 4 |",
        ),
        (
            "<table><tbody><tr><th>A<th>B</tr><tr><td>1<td>1</tr></tbody><!-- x -->"
            "<tr><td>2<td>2</tr> <tbody> <tr><td>3<td>3</tr></tbody></table>",
            "| A | B |\n| --- | --- |\n| 1 | 1 |\n| 2 | 2 |\n| 3 | 3 |",
        ),
        (
            "<table><tbody></tbody><tbody><tr><td>1<td>2<tfoot><tr><td>1<td>2"
            "<tbody><tr><td>3<td>4<tfoot><tr><td>3<td>4</table>",
            "|  |  |\n| --- | --- |\n| 1 | 2 |\n| 1 | 2 |\n| 3 | 4 |\n| 3 | 4 |",
        ),
        (
            "<table><thead></thead><tbody> </tbody><tr><td>1<td>2<tbody><tr><td>3<td>4</table>",
            "|  |  |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |",
        ),
    ],
    "terms and gauges are written as text": [
        ("<dl><dt>x<dd>y<dt>z<dd>w</dl>", "x\n:   y\n\nz\n:   w"),
        ("a<progress value=3></progress><meter value=2></meter>b", "a 3  2 b"),
    ],
    "numbers of items heads of several rows and cut tags are kept": [
        ("<ol start=3><li>a<ol><li>b</ol><li>c</ol>", "3. a\n   1. b\n4. c"),
        ("<p>a</p>5 < x and b <c", "a\n\n5 < x and b <c"),
        ("<select><option>a<select><option>b", "[x] a  [x] b"),
    ],
    "a mark of a note is told from a power": [
        (
            "<p>Fee 40<sup>1</sup></p><p><sup>1</sup> without tax</p>",
            "Fee 40[^1]\n\n[^1]: without tax",
        ),
        ("<p>Fee 40<sup>2</sup></p><p><sup>1</sup> without tax</p>", "Fee 40^2\n\n1 without tax"),
        (
            "<p>Fee 40<a epub:type=noteref href='#n'>1</a></p>"
            "<aside id=n epub:type=footnote><p>1. Net</p></aside>",
            "Fee 40[^1]\n\n[^1]: Net",
        ),
        (
            "<p>Fee 40<sup id=cite_ref-1><a href='#cite_note-1'>[1]</a></sup></p>"
            "<ol><li id=cite_note-1><a href='#cite_ref-1'>^</a> <i>Net</i></ol>",
            "Fee 40[^1]\n\n[^1]: *Net*",
        ),
        (
            "<p>Fee 40<a id=_ftnref1 href='#_ftn1'><span>[1]</span></a></p>"
            "<p><a id=_ftn1 href='#_ftnref1'>[1]</a> Net</p>",
            "Fee 40[^1]\n\n[^1]: Net",
        ),
        ("<p>Carbon has 14<sup>1</sup></p><p><sup>1</sup>H</p>", "Carbon has 14^1\n\n1H"),
        ("<p>See <a href='#2'>2</a> and <a href='#fees'>Fees</a>", "See [2](#2) and [Fees](#fees)"),
    ],
    "struck text is marked": [
        ("<s>40</s> <strike>41</strike> <del>42</del> 43", "~~40~~ ~~41~~ ~~42~~ 43"),
        ("<p style='text-decoration: underline line-through'>40 <s>EUR</s></p>", "~~40 EUR~~"),
        ("<style>td > .old {text-decoration: line-through}</style><p class=old>40</p>", "40"),
        ("<del><p>40</p><p>45</p></del>", "~~40~~\n\n~~45~~"),
    ],
    "marks that the page itself has are escaped": [
        ("<p>2^3 ~~ [^1] &lt;!-- x --&gt;</p>", r"2\^3 \~~ [\^1] \<!-- x \-->"),
        ("<p>x<code>a^b</code></p>", r"x`a\^b`"),
        ("<math><mtext>a^b</mtext></math>", r"a\^b"),
    ],
    "hidden text is marked where nothing else stands": [
        (
            "<div hidden><table><tr><td>a<td>b</table></div><p>c",
            "<!-- |  |  |\n| --- | --- |\n| a | b | -->\n\nc",
        ),
        (
            "<p style='color:white'>a <b style='color:red'>b</b> c</p>",
            "<!-- a --> **b** <!-- c -->",
        ),
    ],
    "items have the numbers that a browser shows": [
        ("<ol type=a start=3><li>x<li value=7>y<li>z</ol>", "c. x\ng. y\nh. z"),
        ("<ol type=I><li>x<ol type=i><li>y<li>z</ol><li>w</ol>", "I. x\n   i. y\n   ii. z\nII. w"),
        ("<style>.n {list-style: none}</style><ol class=n><li>x</ol>", "- x"),
    ],
    "tables that lay out a page are readable": [
        (
            "<table><tr><td><table><tr><th>Tea<th>3</table><td><p>right</table>",
            "| Tea | 3 |\n| --- | --- |\n\nright",
        ),
        ("<table><tr><td><p>a<p>b</table><table><tr><td> <td></table>c", "a\n\nb\n\nc"),
        ("<table><tr><td>a<td>b<br>c</table>", "a\n\nb\nc"),
        ("<table><tr><td>a<td>b</table>", "|  |  |\n| --- | --- |\n| a | b |"),
        (
            "<table><caption>Fees</caption><col><tr><th>a<th>b</table>",
            "Fees\n\n| a | b |\n| --- | --- |",
        ),
    ],
}


@pytest.mark.parametrize(
    ("markup", "text"),
    [pytest.param(*case, id=claim) for claim, cases in PAGES.items() for case in cases],
)
def test_a_page_is_read_as_it_is_shown(markup: str, text: str) -> None:
    assert html_to_markdown(markup).text == text


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
    "hiding",
    [
        "<p hidden>Pay <b>twice</b></p>",
        "<p style='color:red; display : none'>Pay <b>twice</b></p>",
        "<p style='visibility:hidden'>Pay <b>twice</b></p>",
        "<p style='font-size:0px'>Pay <b>twice</b></p>",
        "<p style='font-size: 2pt'>Pay <b>twice</b></p>",
        "<p style='color:transparent'>Pay <b>twice</b></p>",
        "<p style='height:0;overflow:hidden'>Pay <b>twice</b></p>",
        "<style>.x {clip: rect(1px, 1px)}</style><p class=x>Pay <b>twice</b></p>",
        "<style>.x, b {color: red} p.x {display: none}</style><p class='y x'>Pay <b>twice</b></p>",
        "<p style='color:#FFF'>Pay <b>twice</b></p>",
        "<div style='background:#123456'><p style='color:#123456'>Pay <b>twice</b></p></div>",
        "<style>.x {color: white}</style><p class=x>Pay <b>twice</b></p>",
    ],
)
def test_text_that_a_page_hides_is_marked_and_noted(hiding: str) -> None:
    page = html_to_markdown(f"<p>Invoice</p>{hiding}")
    assert page.text == "Invoice\n\n<!-- Pay **twice** -->"
    assert page.notes == (
        ": text that the page does not show is read as well (9 characters: 'Pay twice')",
    )


@pytest.mark.parametrize(
    ("hiding", "text"),
    [
        ("filter: opacity(0)", ""), ("opacity: 0.01", ""),
        ("width: 0; overflow: hidden", ""), ("margin-left: -5000px", ""),
        ("letter-spacing: -1em", ""),
        ("color: #fefefe", ""), ("font: 0/0 a", ""), ("text-indent: -99em", ""),
        ("scale: 0", ""), ("font-size: 0; height: 9px; overflow: hidden", ""),
        ("clip-path: inset(50%)", ""), ("transform: translateX(-999em)", ""),
        ("display: var(--d)", ""),
        ("position: absolute; right: 9999px", ""), ("visibility: hidden", "Pay <!-- twice -->"),
        ("font-size: 0", "Pay <!-- twice -->"), ("text-indent: 0", "Pay twice"),
        ("left: -9999px", "Pay twice"), ("height: 0", "Pay twice"),
        ("font-size: 62.5%", "Pay twice"),
        ("overflow: hidden; width: 80em", "Pay twice"),
        ("mso-line-height-rule: exactly", "Pay twice"),
    ],
)  # fmt: skip
def test_a_style_hides_what_a_browser_does_not_paint_and_nothing_else(
    hiding: str, text: str
) -> None:
    undone = (
        "<b style='font-size: 16px; visibility: visible'>" if text.startswith("Pay <") else "<b>"
    )
    page = html_to_markdown(
        f"<style>:root {{--d: none}} .a > .x {{{hiding}}} .x {{opacity: 1}}</style>"
        f"<p>Invoice</p><div class=a><p class=x>{undone}Pay</b> twice</p></div>"
    )
    shown = page.text.removeprefix("Invoice").strip().replace("*", "")
    assert shown == (text or "<!-- Pay twice -->")
    assert ("not show" in "".join(page.notes)) == ("<!--" in shown)
    assert not any("not checked" in note for note in page.notes)


@pytest.mark.parametrize(
    ("styles", "doubt"),
    [
        ("p {mask: linear-gradient(transparent, transparent)}", "mask"),
        ("p {paint-nothing: yes}", "paint-nothing"),
        ("p {mix-blend-mode: screen}", "mix-blend-mode"),
        ("p {color: white; background: url(dark.png)}", "background"),
        ("p {opacity: calc(0 * 1)}", "opacity"), ("p {display: var(--unknown)}", "display"),
        ("p {height: 1em; overflow: hidden; font-size: 40px}", "overflow"),
        ("p {color: #444; background: linear-gradient(white, #eee)}", "background"),
        ("p {-webkit-text-fill-color: transparent}", "-webkit-text-fill-color"),
        ("@layer a {p {display: none}}", "@layer"),
        ("p {animation: out 1s; opacity: 0}", "animation"),
        ("p {display: none} @supports (gap: 0) {p {display: block}}", "@supports"),
        ("@supports (gap: 0) {body {color: white}} p {background: white}", "color"),
        ("@supports (gap: 0) {body {--c: white}} p {color: var(--c, black)}", "color"),
        ("body {& > p {display: none}}", "rules within rules"),
        ("p {@media (width > 1px) {display: none}}", "@media"),
        ("p:not(:has(b)) {display: none}", "rule 'p:not(:has(b))'"),
        ("@container (width > 1px) {p {display: none}}", "@container"),
        ("div {background: navy} p {color: white; position: absolute}", "color"),
        ("p {animation: out 1s} @keyframes out {to {opacity: 0}}", "animation"),
    ],
)  # fmt: skip
def test_a_style_that_could_hide_text_and_is_not_decided_is_named_with_the_text(
    styles: str, doubt: str
) -> None:
    page = html_to_markdown(f"<style>{styles}</style><p>Pay twice</p>")
    assert page.text == "Pay twice"
    (note,) = page.notes
    assert note.startswith(": styled page, not checked whether text is hidden by ")
    named = doubt if doubt.startswith("rule '") else f"{doubt} (9 characters: 'Pay twice')"
    assert named in note


@pytest.mark.parametrize(
    ("css", "is_hidden"),
    [
        (".x {display: none}", True), ("div .x {display: none} .x {display: block}", True),
        (".x {display: none !important} #i {display: block}", True),
        (".x {display: none} #i {display: block}", False),
        ("@layer a {#i {display: none}} .x {display: block}", False),
        ("@media screen and (min-width: 600px) {.x {display: none}}", True),
        ("@media print, (max-width: 600px) {.x {display: none}}", False),
        ("@media not print {.x {display: none}}", True),
        ("@media (prefers-color-scheme: dark) {.x {display: none}}", False),
        (".x {display: none; display: nonsense}", True),
        (".x:not(.y) {display: none}", True), ("p:nth-child(2) {display: none}", False),
        (".x:hover {display: none}", False), ("[hidden] {display: block}", False),
    ],
)  # fmt: skip
def test_rules_hold_by_their_precedence(css: str, is_hidden: bool) -> None:
    text = html_to_markdown(f"<style>{css}</style><div><p class=x id=i>Pay</p></div>").text
    assert text == ("<!-- Pay -->" if is_hidden else "Pay")


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<svg><defs><text>Pay</text></defs></svg>", "<!-- Pay -->"),
        ("<datalist><option>Pay</datalist>", "<!-- Pay -->"),
        ("<p popover>Pay</p>", "<!-- Pay -->"),
        ("<dialog open>Pay</dialog><dialog>twice</dialog>", "Pay\n\n<!-- twice -->"),
        ("<style>body {background: #000}</style><p style='color: #fff'>Pay</p>", "Pay"),
        ("<style>body {background: #000}</style><p>Pay</p>", "<!-- Pay -->"),
        ("<body text=white><p>Pay</p></body>", "<!-- Pay -->"),
        ("<style media=print>p {display: none}</style><p>Pay", "Pay"),
        ("<style media=screen>p {display: none}</style><p>Pay", "<!-- Pay -->"),
        ("<noscript><style>p {display: none}</style></noscript><p>Pay", "Pay"),
        ("<style><!-- .x {DISPLAY: None} --></style><p class=x>Pay", "<!-- Pay -->"),
        ("<p style='background: yellow'><mark style='color: yellow'>Pay</mark>", "<!-- Pay -->"),
    ],
)  # fmt: skip
def test_elements_hide_as_browsers_have_them(markup: str, text: str) -> None:
    assert " ".join(html_to_markdown(markup).text.split()) == " ".join(text.split())


def test_text_of_a_drawing_with_attributes_is_named() -> None:
    page = html_to_markdown("<svg><text fill-opacity=0>Pay</text></svg>")
    assert page.notes == (
        ": styled page, not checked whether text is hidden by svg (3 characters: 'Pay')",
    )


def test_what_is_shown_once_it_is_opened_is_named() -> None:
    page = html_to_markdown("<details><summary>Terms</summary><p>Thirty days</p></details>")
    assert page.text == "Terms\n\nThirty days"
    assert page.notes == (
        ": styled page, not checked whether text is hidden by details "
        "(11 characters: 'Thirty days')",
    )


@pytest.mark.parametrize(
    "styles",
    [
        "p {width: " + "calc(" * 5_000 + "1}",
        "a {" * 20_000,
        ":is(" * 300 + "p" + ")" * 300 + "{color: red}",
        ":has(:has(b)) {color: red} p ~ p ~ p {color: red}",
        "[a=\"'+1/0+'\"] {color: red}",
        "".join(f"* {{--{n}: var(--{n - 1}) var(--{n - 1})}}" for n in range(30)),
    ],
    ids=lambda styles: styles[:12],
)  # fmt: skip
def test_styles_beyond_reason_are_given_up_and_what_elements_say_still_holds(styles: str) -> None:
    page = html_to_markdown(
        f"<style>{styles}</style>{'<p>x</p>' * 300}<p style='display: none'>Pay</p>"
    )
    assert page.text.endswith("\n\n<!-- Pay -->")


def test_each_known_property_has_one_class_and_any_other_could_hide() -> None:
    kinds = {"cannot-hide", "decided", "could-hide"}
    assert all(of.kind in kinds for of in known_properties().values())
    assert property_of("paint-nothing")[1].kind == "could-hide"
    assert property_of("-webkit-transform") == property_of("transform")


@pytest.mark.parametrize(
    "shown",
    [
        "<table bgcolor=navy><tr><td><font color=white>Pay</font></td></tr></table>",
        "<div style='background:#036'><p style='color:#fff'>Pay</p></div>",
        "<style>.bar {background: #036} .bar a {color: white}</style>"
        "<p class=bar><a href=x>Pay</a></p>",
        "<style>main .box {background: #000} .box {color: #fff}</style>"
        "<main><p class=box>Pay</p></main>",
        "<div style='color:#fff'><p style='color:black'>Pay</p></div>",
    ],
)
def test_white_text_on_a_field_is_shown(shown: str) -> None:
    assert html_to_markdown(f"<p>Invoice</p>{shown}").notes == ()


@pytest.mark.parametrize(
    "hidden",
    ["<img alt='Pay twice' style='display:none'>", "<div hidden><input value='Pay twice'></div>"],
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


@pytest.mark.parametrize(
    "markup",
    [
        "<font>x" * 4_000,
        "<b>" * 3_000 + "<option>x" * 3_000,
        "<table><thead>" + "<tr><td>x" * 3_000,
        "<style>" + "x" * 200_000 + "</style><p>x",
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
    "markup",
    [
        "x<span style='vertical-align:super;font-size:8pt'>2</span>",
        "x<span style='position:relative;top:-3pt;mso-text-raise:3.0pt'>2</span>",
    ],
)
def test_text_is_raised_by_styles(markup: str) -> None:
    assert html_to_markdown(markup).text.replace("*", "") == "x^2"


@pytest.mark.parametrize(
    ("rows", "cells"),
    [
        ("<tr><th rowspan=2>a<th colspan=2>b<tr><th>c<th>d<tr><td>1<td>2<td>3",
         ["a,b,", ",c,d", "1,2,3"]),
        ("<tr><td>a<td rowspan=2>b<tr><td>c<tr><td>d<td>e", ["a,b", "c,", "d,e"]),
        ("<tr><td rowspan=0>a<td>b<tr><td>c<tr><td>d", ["a,b", ",c", ",d"]),
        ("<tr><td colspan=99>a<tr><td>b<td>c", ["a,", "b,c"]),
        ("<tbody><tr><td rowspan=9>a<td>b<tbody><tr><td>c<td>d", ["a,b", "c,d"]),
        ("<tr><td rowspan=oops>a<td colspan=-1>b", ["a,b"]),
    ],
)  # fmt: skip
def test_cells_keep_their_columns_beside_and_below_spans(rows: str, cells: list[str]) -> None:
    lines = html_to_markdown(f"<table>{rows}</table>").text.split("\n")
    found = [",".join(cell.strip() for cell in line[1:-1].split("|")) for line in lines]
    assert [line for line in found if line.strip(",-") or len(found) < 2] == cells


def test_spans_beyond_reason_fill_no_memory() -> None:
    markup = "<table>" + "<tr><td rowspan=60000 colspan=1000>x<td colspan=1000>y" * 300
    assert len(html_to_markdown(markup).text) < 1_000_000


@pytest.mark.parametrize(
    "markup",
    [
        "<span style='display:block'>Tea</span><span style='display:block'>Nut</span>",
        "<style>.t {display: inline-block}</style><a class=t>Tea</a><a class=t>Nut</a>",
        "<center>Tea</center><search>Nut</search>", "<ruby>Tea<rt>Nut</rt></ruby>",
        "<b>Tea<br>Nut</b>", "<menu><li>Tea<li>Nut</menu>",
    ],
)  # fmt: skip
def test_words_that_stand_apart_are_not_glued(markup: str) -> None:
    assert re.findall(r"\w+", html_to_markdown(markup).text) == ["Tea", "Nut"]


@pytest.mark.parametrize(
    ("markup", "page"),
    [
        ("<p>See <img src='a.png' alt='Sales by  month'><img src='b.png'></p><a href='/x'>"
         "<img alt='Order'></a><span role='img' aria-label='Warning'></span>",
         HtmlText("See ![Sales by month]\n\n [![Order]](/x)  ![Warning]", "")),
        ("<head><title>House</title></head><p>Left<svg><title>Plan</title><style>b{}</style>"
         "<text>Hall</text><g><text>Room</text></g></svg>right</p>",
         HtmlText("Left Plan Hall Room right", "House")),
        ("<header>One</header><nav>Two</nav><main>Three</main>",
         HtmlText("One\n\nTwo\n\nThree", "")),
        ("<my-card><template shadowrootmode=open><p>Rain</p></template></my-card>",
         HtmlText("Rain", "")),
        ("<html><head><title>House</title><body><p>Left</p></body></html>",
         HtmlText("Left", "House")),
        ("<!doctype html><head><meta charset=utf-8><title>House</title><style>p{}</style><p>Left",
         HtmlText("Left", "House")),
        ("<title>House</title><p>Left", HtmlText("Left", "House")),
        ("<p>Rain</p><iframe src='map.html'></iframe>",
         HtmlText("Rain", "", (": 1 embedded page or file is not read",))),
        ("<link rel=stylesheet href=a.css><link rel=icon href=b><p>Rain</p>",
         HtmlText("Rain", "",
                  (": 1 style sheet elsewhere is not read; text hidden there is read as shown",))),
        ("<audio src='a.mp3'></audio><video><source src='b.mp4'></video>",
         HtmlText("[](b.mp4)", "", (": 2 embedded pages or files are not read",))),
        ("<input placeholder='Your name'><input value=Ada placeholder=Name>",
         HtmlText("Your name Ada", "")),
        ("a <i style='vertical-align:-0.125em'>b</i>", HtmlText("a *b*", "")),
        ("<p><del>40</del> <ins>45</ins> EUR <ins class=ad></ins></p>",
         HtmlText("~~40~~ 45 EUR", "", (": 1 inserted text is read as text",))),
        ("<style>h2::before {content: counter(h) '. '}</style><h2>Fees</h2>",
         HtmlText("## Fees", "", (": numbers by 1 rule of its styles are not read",))),
        ("<style>.neg::before {content:'\\2212'} .eur:after{content:' EUR'} div > .no::before {"
         "content: 'not '} li::before{content:'\\2022'} b::after{content:'x';display:none} "
         "i::after{content: ' (' attr(data-unit) ')' !important}</style><p>Balance "
         "<span class=neg>40</span>, fee <span class=eur>30</span> <i data-unit=kg>7</i> <b>8</b>"
         "<div><p class=no>insured</div><p class=no>here<ul><li>a</ul>",
         HtmlText("Balance \u221240, fee 30 EUR *7 (kg)* **8**\n\nnot insured\n\nhere\n\n- a", "")),
        ("<table><tr><th>a|b<th><a href='/x|y'>c</a><tr><td><code>d|e</code><td>f<p>1|2</p></table>"
         "<p>g|h",
         HtmlText("| a\\|b | [c](/x\\|y) |\n| --- | --- |\n| `d\\|e` | f 1\\|2 |\n\ng|h", "")),
    ],
)  # fmt: skip
def test_a_page_has_its_text_its_title_and_notes_of_what_is_not_read(
    markup: str, page: HtmlText
) -> None:
    assert html_to_markdown(markup) == page
