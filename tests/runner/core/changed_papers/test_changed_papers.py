"""One thing is changed in papers of known senders: what matters is asked, the rest is read."""

from collections.abc import Iterable, Mapping
from typing import Any

from paddock.pipelines.text_cells import SourceText
from paddock.runner.rules import Offers, Rules, TaughtAnswer, offers_of
from tests.runner.core.changed_papers import that_matter, that_mean_nothing

SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["invoice", "credit note", "reminder"]},
        "currency": {"enum": ["EUR", "GBP", "USD", "AUD", "CHF", "SEK", "JPY"]},
    },
}
Case = Mapping[str, Any]


def offers(text: str) -> Offers:
    return offers_of([SourceText("a.txt", text, (0,))], None, SCHEMA)


def tried(cases: Iterable[Case]) -> tuple[list[str], list[str], int]:
    """Return the papers that are read wrong, those of which a field is asked, and the number."""
    wrong, asked, count = [], [], 0
    for case in cases:
        count += 1
        taught = [
            TaughtAnswer(
                str(n),
                answer,
                frozenset(answer),
                frozenset(("kind", "currency")),
                offers(text).pack(),
            )
            for n, (text, answer) in enumerate(case["decided"], 1)
        ]
        read = Rules(taught).read(offers(case["next"])).sure
        right = case["right"]
        misread = {f: got.value for f, got in read.items() if got.value != right.get(f)}
        wrong += [f"{case['case']}: read {misread}"] if misread else []
        asked += [case["case"]] if right.keys() - read.keys() else []
    return wrong, asked, count


def test_a_change_that_matters_is_not_read_over() -> None:
    wrong, _, count = tried(that_matter.cases())
    assert count >= 400
    assert len(wrong) <= 3, "\n".join(wrong)


def test_a_change_that_means_nothing_is_not_asked_about() -> None:
    wrong, asked, count = tried(that_mean_nothing.cases())
    assert not wrong, "\n".join(wrong)
    assert count - len(asked) >= 170, "\n".join(asked)


def test_known_papers_of_a_second_week_are_read_unasked() -> None:
    wrong, asked, count = tried(that_mean_nothing.second_week())
    assert not wrong, "\n".join(wrong)
    assert len(asked) <= 0.08 * count, "\n".join(asked)
