"""Filters whose cost depends on more than the length of the text."""

import random
import textwrap

from paddock.pipelines.filters import _LinearWrapper, wordwrap


def test_wordwrap_never_holds_a_word_that_it_would_copy_for_each_line() -> None:
    parts = _LinearWrapper(1)._split("x" * 1_000_000)
    assert "".join(parts) == "x" * 1_000_000
    assert max(map(len, parts)) < 1_000
    assert len(wordwrap("x" * 1_000_000, 1)) == 1_999_999


def test_wordwrap_gives_what_the_standard_library_gives() -> None:
    chance = random.Random(1)
    for _ in range(300):
        words = "".join(chance.choice("ab- .\n") for _ in range(chance.randint(0, 60)))
        text = words + chance.choice(["", "x" * 1500, "x-y" * 500, "--" * 700])
        width = chance.randint(1, 30)
        lines = [textwrap.wrap(line, width) for line in text.split("\n")]
        assert wordwrap(text, width) == "\n".join("\n".join(one) for one in lines)
