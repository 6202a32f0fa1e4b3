"""The example of a package of one's own: installed into a folder, used like what is built in."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HOUSE = Path(__file__).resolve().parents[1]
PLUGIN = HOUSE / "examples" / "plugin"
UV = shutil.which("uv")
pytestmark = pytest.mark.skipif(
    UV is None, reason="the plug-in was NOT tested: uv, which installs it, is not on the PATH"
)

USE = r'''
import asyncio, json, os, sys
from pathlib import Path
from tests.fakes.pool import FakePool
from tests.runner.world import settings
from paddock.engine.system.records import replace
from paddock.runner import RunEnvironment, RunOptions, run, validate
from paddock.runner.cli.step_catalogue import list_installed, llm_template
from paddock.runner.cli.installed_schema import installed_schema
from paddock.runner.schedule.order_queue import OrderQueue
from paddock.runner.schedule.pipeline_triggers import triggers_of
from paddock.runner.schedule.triggered_pipeline import read_triggered_pipeline
from paddock.runner.schedule.triggers import TriggerDesk
from paddock.runner.testing.suite_runner import SuiteOptions, read_suite, run_suites

LINES = """
on: {lines: {file: todo.txt, input: task}}
inputs: {task: {type: str, required: true}}
steps: [{uses: files.write, with: {path: out.txt, text: "{{ inputs.task }}"}}]
"""

TABLE = """
inputs: {rows: {type: rows}}
steps: [{uses: files.write, with: {path: table.html, rows: "{{ inputs.rows }}"}}]
"""

async def orders(file, todo):
    """Append lines, one of them by half, and start the trigger again after each."""
    triggered = read_triggered_pipeline(file, file.read_text(), settings(folder))
    queue = OrderQueue(folder / "state")
    await queue.serve([triggered.key])
    for text in ("first\n", "second\nhal", "f\n"):
        with todo.open("a") as lines:
            lines.write(text)
        (trigger,) = triggers_of(triggered)
        desk = TriggerDesk(trigger.key, lambda: triggered, queue, None, None, print)
        running = asyncio.create_task(trigger.run(desk))
        n_lines = todo.read_text().count("\n")
        while len(queue.orders) < n_lines or (await desk.remembered()).get("at", 0) < last(todo):
            await asyncio.sleep(0.01)
        running.cancel()
    await queue.close()
    return [[order.trigger, order.inputs] for order in queue.orders.values()]

def last(todo):
    return todo.read_bytes().rindex(b"\n") + 1

folder = Path(sys.argv[1])
board = Path(os.environ["NOTICE_BOARD"])
found = list_installed()
allowed = replace(settings(folder), allow=frozenset({"tool"}))
answers = iter(["HELP! The ferry!", "The ferry leaves early."])
pool = FakePool(answer=lambda request: next(answers))
around = RunEnvironment(pool=pool, settings=allowed)
report = run(folder / "demo.yaml", None, RunOptions(local=True), around)
again = run(folder / "demo.yaml", None, RunOptions(local=True), around)
tests = [read_suite(folder / "demo.yaml")]
(suite,) = run_suites(tests, SuiteOptions("replay", flags={"allow": "tool"}))
told = {
    "tests": suite.as_json(),
    "faults": [fault.message for fault in validate(folder / "demo.yaml").faults],
    "installed": [
        [kind, row["name"], row["description"]]
        for kind, rows in found.as_json().items() if kind != "broken"
        for row in rows if row["package"] == "paddock-example-plugin"
    ],
    "broken": found.broken,
    "schema": "with reading_time" in installed_schema()["definitions"],
    "llm": "# reading_time: How long a text takes to read." in llm_template(found),
    "run": report.as_json(),
    "asked": [request.messages[-1].content for request in pool.chats],
    "again": again.as_json(),
}
notices = folder / "notices.yaml"
for step in ("pin, with: {notice: ferry, text: It leaves}", "prompt, with: {template: x}"):
    notices.write_text(f"steps: [{{uses: {step}}}]")
    run(notices, None, RunOptions(local=True, prune=True), around)
    told.setdefault("notices", []).append([file.read_text() for file in board.iterdir()])
table = folder / "table.yaml"
table.write_text(TABLE)
for rows in ([{"a": "<1>"}, {"a": None}], [{"a": 2}]):
    written = run(table, {"rows": rows}, RunOptions(local=True), around)
    told.setdefault("pages", []).append([(folder / "table.html").read_text(), list(written.notes)])
lines = folder / "lines.yaml"
lines.write_text(LINES)
told["line faults"] = [fault.message for fault in validate(lines).faults]
told["orders"] = asyncio.run(orders(lines, folder / "todo.txt"))
print(json.dumps(told))
'''


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Install a copy, since building leaves things behind, and use it in a process of its own."""
    folder = tmp_path_factory.mktemp("plugin")
    left_out = shutil.ignore_patterns("build", "*.egg-info", ".paddock", "__pycache__")
    shutil.copytree(PLUGIN, folder / "copy", ignore=left_out)
    here = ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
    command = [str(UV), "pip", "install", "-q", "--no-deps", *here, "--python", sys.executable]
    subprocess.run([*command, "--target", str(folder / "site"), str(folder / "copy")], check=True)
    done = subprocess.run(
        [sys.executable, "-c", USE, str(folder / "copy")],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(folder / "site"), str(HOUSE))),
            "PADDOCK_HOME": str(folder / "home"),
            "NOTICE_BOARD": str(folder / "board"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def test_it_is_listed_next_to_what_is_built_in(told: dict[str, Any]) -> None:
    assert told["installed"] == [
        ["steps", "pin", "A notice on the board."],
        ["steps", "reading_time", "How long a text takes to read."],
        ["tools", "days_between", "The function example_plugin.tool:days_between."],
        ["checks", "calm", "Nobody shouts in it: no exclamation marks, no words in capitals."],
        ["readers", "srt", "application/x-subrip"],
        ["formats", "html_table", "written"],
        ["triggers", "lines", "Start a run for each line that is appended to a file."],
    ]
    assert (told["broken"], told["schema"], told["llm"]) == ([], True, True)


def test_its_tests_pass_without_a_model(told: dict[str, Any]) -> None:
    (case,) = told["tests"]["tests"]
    assert (case["outcome"], case["problems"], case["notes"]) == ("passed", [], [])


def test_a_pipeline_uses_all_of_it(told: dict[str, Any]) -> None:
    assert told["faults"] == []
    run = told["run"]
    assert run["status"] == "completed", run
    assert run["returns"]["days"] == 7
    (result,) = run["returns"]["results"]
    assert result == {"file": "ferry.srt", "minutes": 0.3, "short": "The ferry leaves early."}
    assert "Nobody waits for it on Sundays,\nsince there is none." in told["asked"][0]
    assert "-->" not in told["asked"][0]
    assert "exclamation marks" in told["asked"][1], "the check's sentence went back to the model"
    assert told["again"]["calls"] == 0 and told["again"]["returns"] == run["returns"]


def test_its_format_is_written_and_a_guard_that_it_cannot_give_is_noted(
    told: dict[str, Any],
) -> None:
    (first, no_notes), (second, notes) = told["pages"]
    head = "<!doctype html><meta charset=utf-8>\n<table>\n<tr><th>a</th></tr>\n"
    assert first == f"{head}<tr><td>&lt;1&gt;</td></tr>\n<tr><td></td></tr>\n</table>\n"
    assert second == f"{head}<tr><td>2</td></tr>\n</table>\n"
    assert no_notes == []
    assert "is replaced without a look at how many rows it had" in str(notes)


def test_its_effect_is_applied_and_pruned_with_its_step(told: dict[str, Any]) -> None:
    assert told["notices"] == [["It leaves"], []]


def test_its_trigger_orders_a_run_for_each_whole_line_and_none_twice(told: dict[str, Any]) -> None:
    assert told["line faults"] == []
    tasks = ["first", "second", "half"]
    assert told["orders"] == [["lines todo.txt", {"task": task}] for task in tasks]
