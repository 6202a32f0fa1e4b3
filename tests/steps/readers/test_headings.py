from paddock.steps.text.headings import Headings

TEXT = """before
# One
## Two ##
~~~
# code
~~~
### Three
# Four
#hash
"""


def test_a_place_has_the_headings_over_it() -> None:
    headings = Headings.of(TEXT)
    over = {word: headings.at(TEXT.index(word)) for word in ("before", "# code", "#hash")}
    assert over == {"before": (), "# code": ("One", "Two"), "#hash": ("Four",)}


def test_a_heading_stands_over_itself() -> None:
    assert Headings.of(TEXT).at(TEXT.index("### Three")) == ("One", "Two", "Three")
