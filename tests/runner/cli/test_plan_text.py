from paddock.engine.system.records import replace
from paddock.runner.cli.plan_text import plan_text
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.plan_report import PlanItem, PlanReport
from paddock.runner.progress.reasons import Why

PROMPT_TEXT = "the prompt of step 'sum' changed"


def test_items_stand_in_groups_of_the_same_reason() -> None:
    items = (
        PlanItem("each", "a.md", ItemState.NEW),
        *(
            PlanItem("each", f"{n}.md", ItemState.STALE, (Why.RECORDED(PROMPT_TEXT),))
            for n in range(7)
        ),
        PlanItem("each", "b\x1b.md", ItemState.DELETED, (Why.RECORDED("its document is gone"),)),
        *(PlanItem("each", f"f{n}.md", ItemState.FRESH) for n in range(1200)),
        PlanItem(
            "digest", "digest", ItemState.CHANGED, (Why.RECORDED("an item of 'each' changed"),)
        ),
    )
    report = PlanReport("folder-digest", items, calls=9, tokens=12345, loads=1, seconds=75.0)
    assert plan_text(report) == (
        "folder-digest: 10 of 1,210 items to do\n"
        "  each    new          a.md\n"
        "          stale        0.md, 1.md, 2.md, 3.md, 4.md and 2 more"
        "  (the prompt of step 'sum' changed)\n"
        "          deleted      b\\x1b.md  (its document is gone)\n"
        "          fresh        1,200 items\n"
        "  digest  changed      as a whole  (an item of 'each' changed)\n"
        "That would take 9 model calls, about 12,345 tokens, 1 model load, about 1 min 15 s."
    )


def test_what_only_the_run_can_tell_is_said() -> None:
    report = PlanReport("p", (), notes=("block 'each' depends on what step 'list' finds.",))
    assert plan_text(report) == (
        "p: what there is to do is only known during the run\n"
        "block 'each' depends on what step 'list' finds.\n"
        "The cost is not known yet."
    )


def test_of_several_models_the_sure_calls_and_the_possible_ones_are_told_apart() -> None:
    items = (PlanItem("each", "a.md", ItemState.NEW),)
    models = {"small": 6, "mid": 6, "big": 6}
    report = PlanReport(
        "p", items, 18, "at most", 18, 8, models=models, least_models={"small": 6, "mid": 2}
    )
    assert "take 8 to 18 model calls (6 of small, 2 to 6 of mid, at most 6 of big)." in plan_text(
        report
    )
    exact = replace(report, calls_are="exact")
    assert "take 18 model calls (6 of small, 6 of mid, 6 of big)." in plan_text(exact)
