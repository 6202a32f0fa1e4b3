"""Variants of a pipeline are run without touching it, and no call is made twice."""

from tests.fakes.pool import FakePool
from tests.runner.compare.bills import N_BILLS, Bills, clerk


def test_each_combination_is_a_variant_and_those_of_one_model_follow_each_other(
    bills: Bills,
) -> None:
    runs = bills.runs(models=("clerk=small,big",), prompts=("bill=prompts/a.md,prompts/b.md",))
    assert [run.variant.name for run in runs] == [
        "clerk=small bill=prompts/a.md", "clerk=small bill=prompts/b.md",
        "clerk=big bill=prompts/a.md", "clerk=big bill=prompts/b.md",
    ]  # fmt: skip
    refs = [request.model.ref for request in bills.made.chats]
    assert refs == ["small"] * 2 * N_BILLS + ["big"] * 2 * N_BILLS
    assert [len(run.items) for run in runs] == [N_BILLS] * 4
    item = runs[0].items["03.txt"]
    assert (item.output["number"], item.gold_key) == ("R-3", "03.txt")
    assert item.evidence["number"]["match"] == "exact"


def test_a_variant_that_equals_the_pipeline_costs_nothing_and_no_call_is_made_twice(
    bills: Bills,
) -> None:
    bills.run(pool=FakePool(answer=clerk))
    same, other = bills.runs(models=("clerk=small,big",))
    assert (same.calls, same.cached_calls, other.calls) == (0, N_BILLS, N_BILLS)
    assert {request.model.ref for request in bills.made.chats} == {"big"}
    again = bills.runs(models=("clerk=small,big,third",))
    assert [run.calls for run in again] == [0, 0, N_BILLS]
    assert [len(run.items) for run in again] == [N_BILLS] * 3


def test_a_comparison_changes_no_file_and_leaves_the_pipeline_as_it_was(bills: Bills) -> None:
    bills.run(pool=FakePool(answer=clerk), review="accept")
    before = bills.files()
    planned = bills.plan().items
    bills.runs(models=("clerk=small,big",), settings=("bill.params.temperature=0,0.5",))
    assert bills.files() == before
    assert bills.plan().items == planned
    assert bills.run(pool=FakePool(answer=clerk), review="accept").calls == 0


def test_a_variant_that_cannot_be_run_is_a_sentence_and_the_others_go_on(bills: Bills) -> None:
    missing, sound = bills.runs(prompts=("bill=prompts/none.md,prompts/b.md",))
    assert missing.fault == (
        "there is no file 'prompts/none.md'. Paths are relative to the YAML; create or correct it."
    )
    assert (sound.fault, len(sound.items)) == (None, N_BILLS)
    (wrong,) = bills.runs(settings=("bill.params.temperature=hot",))
    assert wrong.fault is not None and "'hot'" in wrong.fault
    assert "pipeline." not in wrong.fault  # no place in a text that no one wrote


def test_a_step_that_may_change_something_is_not_run(bills: Bills) -> None:
    bills.edit(
        '      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}\n',
        '      - {id: moved, uses: files.move, with: {path: "{{ doc.path }}", to: out}}\n'
        '      - {id: text, uses: files.read, with: {path: "{{ steps.moved.path }}"}}\n',
    )
    (run,) = bills.runs(models=("clerk=big",))
    assert run.fault == (
        "'bill' reads 'moved' (`files.move`), which may change something. "
        "A comparison runs only steps that change nothing."
    )
    assert len([*(bills.folder / "inbox").iterdir()]) == N_BILLS
