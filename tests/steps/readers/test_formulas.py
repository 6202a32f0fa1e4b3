"""Formulas of Office and of pages in linear form: the same formula is the same text in both."""

import bs4
import pytest
from docx.oxml import parse_xml

from paddock.steps.readers.formulas import MATH_NS, mathml_text, omml_text


def r(text: str) -> str:
    return f"<m:r><m:t>{text}</m:t></m:r>"


def frac(top: str, bottom: str) -> str:
    return f"<m:f><m:num>{top}</m:num><m:den>{bottom}</m:den></m:f>"


def omml(inner: str) -> str:
    return omml_text(parse_xml(f'<m:oMath xmlns:m="{MATH_NS[1:-1]}">{inner}</m:oMath>'))


def mathml(inner: str) -> str:
    return mathml_text(bs4.BeautifulSoup(f"<math>{inner}</math>", "html.parser").math)


SUP = "<m:sSup><m:e>{}</m:e><m:sup>{}</m:sup></m:sSup>".format
ROWS = "<m:m><m:mr><m:e>{}</m:e><m:e>{}</m:e></m:mr><m:mr><m:e>{}</m:e><m:e>{}</m:e></m:mr></m:m>"


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        (frac(r("1"), r("2")), "1/2"),
        (r("3") + frac(r("3"), r("4")) + r("kg"), "3 3/4 kg"),
        (r("x=") + frac(r("a+b"), r("c+d")), "x=(a+b)/(c+d)"),
        (SUP(r("10"), r("6")) + r("3"), "10^6 3"),
        (SUP(r("a+b"), r("2")), "(a+b)^2"),
        ("<m:rad><m:deg/><m:e>" + r("16") + "</m:e></m:rad>", "sqrt(16)"),
        ("<m:rad><m:deg>" + r("3") + "</m:deg><m:e>" + r("x") + "</m:e></m:rad>", "root(3, x)"),
        (
            "<m:nary><m:naryPr><m:chr m:val='∑'/></m:naryPr><m:sub>" + r("i=1") + "</m:sub><m:sup>"
            + r("n") + "</m:sup><m:e>" + r("i") + "</m:e></m:nary>",
            "∑_(i=1)^n i",
        ),
        ("<m:d><m:e>" + r("a") + "</m:e><m:e>" + r("b") + "</m:e></m:d>", "(a|b)"),
        (
            "<m:d><m:dPr><m:begChr m:val='['/><m:endChr m:val=''/></m:dPr><m:e>" + r("a")
            + "</m:e></m:d>",
            "[a",
        ),
        (ROWS.format(*map(r, "1234")), "[1, 2; 3, 4]"),
        ("<m:acc><m:e>" + r("x") + "</m:e></m:acc>", "hat(x)"),
        (
            "<m:limLow><m:e>" + r("lim") + "</m:e><m:lim>" + r("x→0") + "</m:lim></m:limLow>"
            + frac(r("1"), r("x")),
            "lim_(x→0) 1/x",
        ),
        ("<m:sPre><m:sub>" + r("6") + "</m:sub><m:sup>" + r("14") + "</m:sup><m:e>" + r("C")
         + "</m:e></m:sPre>", "_6^14 C"),
        ("<m:sSubSup><m:e>" + r("x") + "</m:e><m:sub>" + r("1") + "</m:sub><m:sup>" + r("2")
         + "</m:sup></m:sSubSup>", "x_1^2"),
        (r("a ~~ b^2"), r"a \~~ b\^2"),
        ("<m:f/>" + "<m:rad/><m:nary/>", "/sqrt()∫"),
    ],
)  # fmt: skip
def test_a_formula_of_office_is_written_in_a_line(formula: str, text: str) -> None:
    assert omml(formula) == text


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        ("<mfrac><mn>1</mn><mn>2</mn></mfrac>", "1/2"),
        ("<mn>3</mn><mo>&#x2064;</mo><mfrac><mn>3</mn><mn>4</mn></mfrac>", "3 3/4"),
        ("<mn>3</mn><mfrac><mn>3</mn><mn>4</mn></mfrac>", "3 3/4"),
        ("<msqrt><mn>16</mn></msqrt>", "sqrt(16)"),
        ("<mroot><mi>x</mi><mn>3</mn></mroot>", "root(3, x)"),
        ("<mn>2</mn><mo>&#x2062;</mo><msup><mi>x</mi><mn>2</mn></msup><mi>y</mi>", "2x^2 y"),
        ("<msubsup><mi>x</mi><mn>1</mn><mrow><mo>-</mo><mn>2</mn></mrow></msubsup>", "x_1^-2"),
        ("<munderover><mo>∑</mo><mrow><mi>i</mi><mo>=</mo><mn>1</mn></mrow><mi>n</mi>"
         "</munderover><mi>i</mi>", "∑_(i=1)^n i"),
        ("<mover><mi>x</mi><mo>^</mo></mover>", "hat(x)"),
        ("<mi>sin</mi><mi>x</mi><mo>mod</mo><mn>2</mn>", "sin x mod 2"),
        ("<mo>(</mo><mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr>"
         "<mtr><mtd><mn>3</mn></mtd><mtd><mn>4</mn></mtd></mtr></mtable><mo>)</mo>",
         "([1, 2; 3, 4])"),
        ("<mfenced open='[' close=']'><mi>a</mi><mi>b</mi></mfenced>", "[a, b]"),
        ("<mmultiscripts><mi>C</mi><mn>2</mn><none/><mprescripts/><mn>6</mn><mn>14</mn>"
         "</mmultiscripts>", "_6^14 C_2"),
        ("1 &lt; 2<!-- 3 -->", "1 < 2"),
        ("<mfrac></mfrac><msup></msup><mmultiscripts></mmultiscripts>", "/"),
    ],
)  # fmt: skip
def test_a_formula_of_a_page_is_written_in_a_line(formula: str, text: str) -> None:
    assert mathml(formula) == text
