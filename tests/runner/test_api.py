"""Run, plan and validate on real files, with a pool without a model: what is done, what is not."""

import asyncio
import inspect
import pydoc
import signal
from pathlib import Path
from typing import get_type_hints

import pytest

from paddock import runner
from paddock.engine.request import ChatRequest
from paddock.pipelines.errors import PipelineError
from paddock.runner.api import plan, run
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.progress.plan_report import PlanReport
from paddock.runner.progress.report import Report
from tests.fakes.pool import FakePool, echo
from tests.runner.world import World, reasons, settings, states


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.documents(5)
    return made


def test_a_first_run_does_everything_and_tells_what_it_did(world: World) -> None:
    report = world.run()
    assert report.status == "completed" and report.exit_status() == 0
    assert repr(report.counts) == "{'new': 6}"
    assert report.calls == 6 == len(world.pool.chats)
    assert report.tokens["completion"] > 0
    assert world.output("0.txt").startswith("[")
    assert report.returns["report"] == str(world.folder / "out/DIGEST.md")
    assert report.returns["counts"]["new"] == 5
    assert len(report.written) == 6
    assert [item.key for item in report.items if item.step == "each"] == [
        f"{n}.txt" for n in range(5)
    ]


def test_each_public_name_has_help_and_types() -> None:
    for public in (*(getattr(runner, name) for name in runner.__all__), Report, PlanReport):
        assert inspect.signature(public) and get_type_hints(public) is not None
        assert pydoc.render_doc(public)


def test_ctrl_c_ends_a_script_once_the_ledger_has_what_was_done(world: World) -> None:
    answers = []

    def interrupted(request: ChatRequest) -> str:
        answers.append(echo(request))
        if len(answers) == 3:
            signal.raise_signal(signal.SIGINT)
        return answers[-1]

    pool = FakePool(answer=interrupted, delay_s=0.05)
    environment = RunEnvironment(pool=pool, settings=settings(world.folder))
    with pytest.raises(KeyboardInterrupt):
        run(world.file, None, RunOptions(local=True), environment)
    report = world.run()
    assert report.status == "completed"
    assert len(world.pool.chats) + len(answers) == 6


def test_a_report_is_shown_in_ten_lines_and_as_html(world: World) -> None:
    world.documents(40)
    pool = FakePool(answer=lambda request: "<b>" + echo(request), n_ctx_tokens=100_000)
    many = world.run(pool=pool)
    shown = repr(many)
    assert len(shown.splitlines()) <= 10
    assert len(shown) < 1_500
    assert "items: 41 done" in shown
    assert "<b>" not in many._repr_html_()
    assert "<td>41 done</td>" in many._repr_html_()
    plan = world.plan(pool=pool)
    assert len(repr(plan).splitlines()) <= 10
    assert "41 fresh" in plan._repr_html_()


def test_where_an_event_loop_runs_the_async_twins_are_named(
    world: World, recwarn: pytest.WarningsRecorder
) -> None:
    async def in_a_notebook() -> list[str]:
        messages = []
        for call in (run, plan):
            with pytest.raises(RuntimeError) as caught:
                call(world.file)
            messages.append(str(caught.value))
        return messages

    words = (
        "`{0}` cannot be called where an event loop is running, as in a notebook. "
        "Write `await {0}_async(…)`: it takes the same arguments."
    )
    assert asyncio.run(in_a_notebook()) == [words.format("run"), words.format("plan")]
    assert not recwarn.list


FAR = """\
models: {far: {ref: m, ctx: 2k, pool: {url: "http://far.example:1"}}}
steps:
  - {id: a, uses: chat, with: {model: far, prompt: "Say noon"}}
"""


def test_a_plan_asks_no_server_that_a_run_may_not_ask(tmp_path: Path) -> None:
    world = World(tmp_path, FAR)
    planned = plan(world.file, settings=settings(tmp_path))
    assert (planned.calls, [item.state for item in planned.items]) == (1, ["new"])
    assert planned.advice[-1].startswith("A run wants to ask http://far.example:1 for a model.")
    world.run(allow=["network"])
    planned = plan(world.file, settings=settings(tmp_path))
    assert (planned.has_work, planned.items[0].why) == (False, None)


def test_a_changed_prompt_makes_all_stale_and_plan_says_why(world: World) -> None:
    world.run()
    world.edit("Sum up:", "Summarise:")
    plan = world.plan()
    assert set(reasons(plan).values()) == {"prompt changed (step 'sum')"}
    assert reasons(plan, "digest") == {"digest": "it reads 'each', which has work to do"}
    assert (plan.calls, plan.loads) == (6, 1)
    assert world.run().counts == {"stale": 6}


def test_a_broken_document_is_quarantined_and_known_the_next_time(world: World) -> None:
    world.write("inbox/empty.txt", "")
    first = world.run()
    assert first.status == "quarantined" and first.exit_status() == 3
    assert states(first)["empty.txt"] == "quarantined"
    failed = next(item for item in first.items if item.key == "empty.txt")
    assert failed.error == "step 'text': 'empty.txt' is empty."
    assert first.counts == {"new": 6, "quarantined": 1}
    second = world.run()
    assert second.counts == {"fresh": 6, "quarantined": 1}
    assert (second.exit_status(), second.exit_status("any"), second.exit_status("never")) == (
        0,
        3,
        0,
    )
    assert world.plan().has_work is False
    assert world.run(retry_failed=True).exit_status() == 3
    world.write("inbox/empty.txt", "Now there is something.")
    assert states(world.run()) == {"empty.txt": "changed"}


def test_on_error_fail_stops_the_run_and_skip_goes_on(world: World) -> None:
    world.write("inbox/empty.txt", "")
    world.edit("    do:", "    on_error: fail\n    do:")
    failed = world.run()
    assert failed.status == "failed" and failed.exit_status() == 1
    assert failed.message == "'empty.txt': step 'text': 'empty.txt' is empty."
    world.edit("on_error: fail", "on_error: skip")
    report = world.run()
    assert report.status == "completed" and states(report)["empty.txt"] == "skipped"


def test_a_key_that_no_item_has_is_refused_before_anything_is_done(world: World) -> None:
    with pytest.raises(PipelineError) as caught:
        world.run(only=["2.txt", "2.tx", "nothing.pdf"])
    assert [(fault.message, fault.remedy) for fault in caught.value.faults] == [
        ("no item has the key '2.tx'.", "Did you mean '2.txt' or '4.txt' or '3.txt'?"),
        ("no item has the key 'nothing.pdf'.", "Known: '0.txt', '1.txt', '2.txt' and 2 more."),
    ]
    assert not world.pool.chats


def test_paths_that_are_known_late_meet_when_they_are_written(world: World) -> None:
    world.edit("out/{{ doc.relpath }}", "out/{{ steps.text.media_type | replace('/', '-') }}")
    report = world.run()
    assert report.counts == {"new": 2, "blocked": 4}
    assert "is an output of item" in str(next(i.error for i in report.items if i.error))


def test_a_moved_folder_is_fresh_where_it_lands(world: World) -> None:
    world.run()
    moved = world.folder.parent / "moved"
    world.folder.rename(moved)
    world.folder = moved
    assert world.run().counts == {"fresh": 6}


def test_a_step_that_would_end_the_process_is_one_failure(world: World) -> None:
    def answer(request: ChatRequest) -> str:
        if "Document 2" in request.messages[-1].content:
            raise SystemExit("no licence")
        return echo(request)

    report = world.run(pool=FakePool(answer=answer))
    assert report.status == "quarantined"
    (item,) = [item for item in report.items if item.state == "quarantined"]
    assert (item.key, item.error) == ("2.txt", "step 'sum': SystemExit: no licence")
