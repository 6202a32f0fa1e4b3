"""A judge prefers an answer only where it does so in both orders."""

import json
import time
from collections.abc import Callable

import pytest

from paddock.engine.request import ChatRequest
from paddock.pipelines.plan import read_plan
from paddock.runner.compare.comparison import GoldSource, compare
from paddock.runner.compare.comparison_page import comparison_page
from paddock.runner.compare.comparison_text import comparison_text
from paddock.runner.compare.judge import Judgement, judge_variants
from paddock.runner.compare.variant_runs import ComparedPipeline
from tests.fakes.pool import FakePool
from tests.runner.compare.bills import Bills, clerk

MODELS = ("clerk=small,big",)


def judged(
    bills: Bills, answer: Callable[[ChatRequest], str], budget_s: float = 600
) -> tuple[Judgement, FakePool]:
    runs = bills.runs(models=MODELS)
    pool = FakePool(answer=answer)
    compared = ComparedPipeline(
        bills.file,
        read_plan(bills.file),
        "bill",
        {},
        bills.settings(),
        until=time.monotonic() + budget_s,
        pool=pool,
    )
    return judge_variants(compared, runs, "judge:1b"), pool


def fair(request: ChatRequest) -> str:
    """Prefer the answer whose kind the document has."""
    text = request.messages[-1].content
    kind = "travel" if "for travel" in text else "food"
    answers = [part.partition("</answer>")[0] for part in text.split("<answer>")[1:]]
    rights = [json.loads(answer)["kind"] == kind for answer in answers]
    better = "equal" if rights[0] == rights[1] else "1" if rights[0] else "2"
    return json.dumps({"reason": "the kind", "better": better})


def test_each_differing_item_is_asked_in_both_orders_and_once_only(bills: Bills) -> None:
    found, pool = judged(bills, fair)
    (preference,) = found.preferences
    assert (preference.n_better, preference.n_worse, preference.n_equal) == (10, 0, 10)
    assert found.notes == ()
    assert preference.p == pytest.approx(2 / 2**10)
    assert len(pool.chats) == 2 * 10
    assert "Bill R-1: 1.50 for travel." in pool.chats[0].messages[-1].content  # the task
    again, other = judged(bills, fair)
    assert (again, other.chats) == (found, [])


def test_a_judge_that_prefers_what_stands_first_prefers_nothing(bills: Bills) -> None:
    found, _ = judged(bills, lambda _: json.dumps({"reason": "first", "better": "1"}))
    (preference,) = found.preferences
    assert (preference.n_better, preference.n_worse, preference.n_equal, preference.share) == (
        0,
        0,
        20,
        None,
    )
    assert preference.words() == "0 better, 0 worse, 20 equal (p = 1.000; no preference shown)"


def test_a_judge_that_answers_nonsense_is_a_sentence(bills: Bills) -> None:
    found, _ = judged(bills, lambda _: "I like both.")
    assert found.notes == (
        "judge judge:1b: 20 verdicts could not be read and count as equal. It said: I like both.",
    )
    assert found.preferences[0].n_equal == 20


def test_a_judge_ends_with_the_budget_and_the_same_command_goes_on(bills: Bills) -> None:
    found, pool = judged(bills, fair, budget_s=0)
    assert (found.preferences, found.is_over_budget, pool.chats) == ((), True, [])
    assert found.notes == ("judge judge:1b: the budget is used up. The same command goes on.",)
    assert judged(bills, fair)[0].preferences[0].n_better == 10


def test_an_invalid_answer_loses_without_a_judge(bills: Bills) -> None:
    def refusing(request: ChatRequest) -> str:
        return "no" if request.model.ref == "small" else clerk(request)

    bills.answer = refusing
    found, pool = judged(bills, fair)
    assert (found.preferences[0].n_better, pool.chats) == (20, [])


def test_text_json_and_page_have_the_preferences(bills: Bills) -> None:
    found, _ = judged(bills, fair)
    whole = compare("bills", "bill", bills.runs(models=MODELS), GoldSource(None), found)
    line = "B against A by judge judge:1b: 10 better, 0 worse, 10 equal (p = 0.002)"
    assert line in comparison_text(whole).splitlines()
    assert whole.as_json()["judge"]["preferences"][0]["better"] == 10
    assert "Preferences of judge:1b" in comparison_page(whole)
