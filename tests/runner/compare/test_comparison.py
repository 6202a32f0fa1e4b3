"""What a comparison says of its variants, in figures and words."""

import json

from paddock.engine.request import ChatRequest
from paddock.engine.system.item_samples import ItemSample
from paddock.runner.compare.comparison_page import comparison_page
from paddock.runner.compare.comparison_text import comparison_text
from paddock.runner.compare.regression_check import EarlierResult, result_change
from tests.runner.compare.bills import N_BILLS, Bills, clerk

MODELS = ("clerk=small,big",)


def test_the_better_variant_is_better_by_a_paired_test_and_in_each_field(bills: Bills) -> None:
    found = bills.compare(models=MODELS)
    small, big = found.variants
    assert small.agreement is not None and big.agreement is not None
    assert (small.agreement.mean, big.agreement.mean) == (0.75, 1.0)
    assert small.agreement.low < 0.75 < small.agreement.high
    assert small.fields["total"].agreement.mean == 1.0
    assert small.is_chance and not big.is_chance, "so it is worth no time"
    assert small.fields["kind"].confusion == {("food", "food"): 10, ("travel", "food"): 10}
    assert small.located is not None and small.located.mean == 1.0
    (test,) = found.tests
    assert (test.first, test.second, test.result.is_shown) == ("clerk=small", "clerk=big", True)
    assert [difference.key for difference in found.differences] == [
        f"{n:02}.txt" for n in range(1, 20, 2)
    ]
    assert found.gold is not None and (found.gold.origin, found.n_gold) == ("gold.csv", N_BILLS)


def test_the_text_has_figures_tests_and_differing_answers(bills: Bills) -> None:
    text = comparison_text(bills.compare(models=MODELS))
    lines = text.splitlines()
    assert lines[0] == "bills: 2 variants of 'bill' on 20 items; gold for 20 of them: gold.csv"
    assert "clerk=small   0.75 (0." in lines[3]
    assert "kind (label), A: 0.50 (0.30 to 0.70)" in lines
    assert any(line.startswith("B against A: better by 0.250 (p = 0.0") for line in lines)
    assert "Different answers to 10 items:" in lines
    assert "  01.txt (gold: total: 1.5, kind: travel)" in lines


def test_without_gold_variants_are_compared_by_where_their_values_stand(bills: Bills) -> None:
    def inventing(request: ChatRequest) -> str:
        answer = json.loads(clerk(request))
        if request.model.ref == "small":
            answer["number"] = "X-99"
        return json.dumps(answer)

    bills.answer = inventing
    found = bills.compare(gold=None, models=MODELS)
    assert found.quality == "located"
    assert [variant.located.mean for variant in found.variants if variant.located] == [0.5, 1.0]
    assert found.tests[0].result.is_shown


def test_equal_variants_one_item_and_a_faulty_variant_are_a_sentence_each(bills: Bills) -> None:
    same = bills.compare(prompts=("bill=prompts/a.md,prompts/b.md",))
    assert same.notes == ("all variants say the same of each of the 20 items.",)
    assert same.tests[0].result.words() == "no difference shown: the same on average"
    found = bills.compare(models=MODELS, sample=ItemSample(1))
    assert found.notes == (
        "there is 1 item: nothing can be shown by it. Compare on more documents.",
    )
    faulty = bills.compare(prompts=("bill=prompts/none.md,prompts/b.md",))
    assert faulty.notes == (
        "bill=prompts/none.md: there is no file 'prompts/none.md'. Paths are relative to the YAML; "
        "create or correct it.",
    )
    assert "✗   A   bill=prompts/none.md" in comparison_text(faulty)


def test_the_quicker_and_better_variants_are_on_the_front(bills: Bills) -> None:
    found = bills.compare(models=MODELS, settings=("bill.params.max_tokens=60",))
    by_name = {variant.name: variant for variant in found.variants}
    assert by_name["clerk=big"].is_on_front
    worse = by_name["clerk=small"]
    assert worse.seconds is not None and by_name["clerk=big"].seconds is not None
    assert worse.is_on_front == (worse.seconds < by_name["clerk=big"].seconds)


def test_the_page_loads_nothing_and_marks_words_that_differ(bills: Bills) -> None:
    def hostile(request: ChatRequest) -> str:
        return clerk(request).replace('R-1"', '<script>alert(1)</script>"')

    bills.answer = hostile
    page = comparison_page(bills.compare(models=MODELS))
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<del>" in page and "<ins>" in page
    assert "Paired tests of agreement with gold" in page


def test_a_gold_row_that_may_be_about_two_items_counts_for_neither(bills: Bills) -> None:
    bills.write("inbox/more/00.txt", "Bill R-0: 0.50 for food.")
    bills.edit("doc.relpath, metrics", "doc.name, metrics")
    found = bills.compare(key="doc.name", models=MODELS)
    assert (found.n_items, found.n_gold) == (N_BILLS + 1, N_BILLS - 1)
    assert found.notes == (
        "gold.csv: 1 row that may be about several items do not count, such as '00.txt': "
        "'00.txt' or 'more/00.txt'. Write a `gold.key` that differs for each, as `doc.relpath`.",
    )


def test_an_item_or_a_variant_that_only_the_earlier_result_has_is_a_loss(bills: Bills) -> None:
    before = EarlierResult.model_validate(bills.compare(models=MODELS).as_json())
    for n in range(2, N_BILLS):
        (bills.folder / f"inbox/{n:02}.txt").unlink()
    now = bills.compare(models=("clerk=small,other",))
    change = result_change(now, before, 0.0)
    assert change.shared == ("clerk=small: compared on 2 of 20 earlier items.",)
    assert change.losses == (
        "clerk=big: this variant of the earlier result is missing.",
        "clerk=small: 18 earlier items missing, such as '02.txt'.",
    )
    sampled = Bills(bills.folder / "other").compare(models=MODELS, sample=ItemSample(5))
    assert result_change(sampled, before, 0.0).losses == ()
