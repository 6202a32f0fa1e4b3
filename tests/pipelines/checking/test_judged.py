r"""Judged cases of evidence and `numbers_found`: texts of 24 languages, and what the guide decides.

`= text` is followed by its values. Of evidence each is behind its verdict and the rule that finds
it: `+` found, `?` in part, `-` not found, `~` right, but in a form that is not looked for; a place
may follow: `value => quote @ line`. Of `numbers_found`, `+` is accepted and `-` is refused; `~` is
accepted as well, though what its words say of the values is wrong: no rule looks at that.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.checking.codes import Code
from paddock.pipelines.checking.evidence import locate
from paddock.pipelines.checking.functions import numbers_found
from paddock.pipelines.checking.source_index import DayAndTime, sought_in
from paddock.pipelines.text_cells import SourceText

MATCHES = {
    "+": ("exact", "normalised"), "?": ("partial",), "-": ("none", "fuzzy"), "~": ("none", "fuzzy"),
}  # fmt: skip


def sources(file: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each text with its cases."""
    text, cases = "", list[str]()
    for line in Path(__file__).with_name(file).read_text("utf-8").splitlines():
        if line.startswith("= "):
            yield text, cases
            text, cases = unescaped(line[2:]), []
        elif not line.startswith("#"):
            cases.append(line)
    yield text, cases


def unescaped(text: str) -> str:
    return re.sub(r"\\(n|u[0-9a-f]{4})", lambda at: str(json.loads(f'"{at[0]}"')), text)


def rule_of(value: Any) -> str:
    if isinstance(value, int | float):
        return "number"
    sought = sought_in(str(value).strip())
    if sought is None:
        return "text"
    return (
        "code"
        if isinstance(sought, Code)
        else "date"
        if isinstance(sought, DayAndTime)
        else "number"
    )


# Not a test for each of the 2,200 texts: to collect and report one takes longer than to judge it.
N_TOGETHER = 100
EVIDENCE = [(text, case) for text, cases in sources("judged_evidence.txt") for case in cases]
GROUNDED = [(text, case) for text, cases in sources("judged_grounded.txt") for case in cases]


@pytest.mark.parametrize("first", range(0, len(EVIDENCE), N_TOGETHER))
def test_each_value_is_found_as_the_guide_says(first: int) -> None:
    for text, case in EVIDENCE[first : first + N_TOGETHER]:
        verdict, (rule, written) = case[0], case[1:].split(" ", 1)
        value, _, place = written.partition(" => ")
        quote, _, line = place.partition(" @ ")
        answer = json.loads(value)
        fields = answer if isinstance(answer, dict) else {"field": answer}
        found = list(locate(fields, {}, [SourceText("s", text)]).values())[-1]
        assert rule_of(list(fields.values())[-1]) == rule, case
        assert found["match"] in MATCHES[verdict], case
        assert line in ("", str(found["line"])), case
        assert not quote or quote in found["quote"] or found["quote"] in quote, case


@pytest.mark.parametrize("first", range(0, len(GROUNDED), N_TOGETHER))
def test_each_answer_is_accepted_or_refused_as_the_guide_says(first: int) -> None:
    for text, case in GROUNDED[first : first + N_TOGETHER]:
        refused = numbers_found(unescaped(case[2:]), text)
        assert (refused is None) == (case[0] in "+~"), (text, case, refused)
