"""Tools in a run: found by name, within a time, each call in the ledger, all ended with the run."""

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.system.records import replace
from paddock.runner.api import plan
from tests.fakes.pool import FakePool
from tests.forked import ForkServer
from tests.runner.world import ALL, World, carried_out, settings
from tests.waiting import is_alive, until

SERVER = Path(__file__).parents[2] / "fakes" / "mcp_server.py"


def calls(world: World) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(world.folder / ".paddock/ledger.sqlite")) as ledger:
        query = "select kind, model, request, reply, step, key from calls order by at"
        return ledger.execute(query).fetchall()


HANDS = """\
secrets: {key: {env: FAKE_KEY}}
mcpServers:
  fake: {command: PYTHON, args: ["SERVER"], env: {FAKE_KEY: "{{ secrets.key }}"}}
steps:
  - {id: sum, uses: tool, with: {name: calculator, args: {expression: "6 * 7"}}}
  - id: each
    for_each: word in ["ferry", "pier"]
    do:
      - {id: known, uses: tool, with: {name: fake.facts, args: {name: "{{ word }}"}}}
      - {id: clean, uses: tool, with: {name: "tools.py:clean", args: {text: "{{ word }}"}}}
      - {id: said, uses: chat, with: {prompt: "{{ steps.known.text }} {{ steps.clean.result }}"}}
    returns: {known: steps.known.result, clean: steps.clean.result}
returns: {sum: steps.sum.result, each: steps.each.results}
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("FAKE_KEY", "k-123456789")
    (tmp_path / "tools.py").write_text("def clean(text: str) -> str: return text.upper()")
    text = HANDS.replace("PYTHON", sys.executable).replace("SERVER", str(SERVER))
    return World(tmp_path, text)


def test_tools_of_every_kind_work_in_one_run_and_no_secret_is_kept(world: World) -> None:
    report = carried_out(world)
    assert (report.status, report.message) == ("completed", None)
    assert report.returns["sum"] == 42
    assert [result["clean"] for result in report.returns["each"]] == ["FERRY", "PIER"]
    assert [result["known"]["name"] for result in report.returns["each"]] == ["ferry", "pier"]
    assert "k-123456789" not in json.dumps(report.returns), "what a tool repeats of a secret"
    kept = calls(world)
    assert sorted(row[:2] for row in kept if row[0] == "tool") == [
        ("tool", "calculator"), ("tool", "facts"), ("tool", "facts"),
        ("tool", "tools.py:clean"), ("tool", "tools.py:clean"),
    ]  # fmt: skip
    tool_call = next(json.loads(row[2]) for row in kept if row[1] == "facts" and "pier" in row[2])
    assert tool_call == {"args": {"name": "pier"}, "server": "fake", "tool": "facts"}
    folder = world.folder / ".paddock"
    assert not any(
        b"k-123456789" in path.read_bytes() for path in folder.rglob("*") if path.is_file()
    )
    again = carried_out(world)
    assert (again.calls, again.cached_calls) == (0, 0), "fresh items call no tool"
    assert len([row for row in calls(world) if row[1] == "facts"]) == 2
    (world.folder / "tools.py").write_text("def clean(text: str) -> str: return text.title()")
    changed = carried_out(world)
    assert {i.why for i in changed.items if i.step == "each"} == {
        "file changed: tools.py (step 'clean')"
    }
    assert [result["clean"] for result in changed.returns["each"]] == ["Ferry", "Pier"]
    world.edit("args: [", "args: [-B, ")
    stale = plan(world.file, pool=FakePool(), settings=replace(settings(world.folder), allow=ALL))
    assert {i.why for i in stale.items if i.step == "each"} == {"its tools changed (step 'known')"}


@pytest.mark.parametrize("way", ["to: done/", "mode: delete"])
def test_what_comes_again_to_the_place_that_it_has_left_goes_the_same_way(
    tmp_path: Path, way: str
) -> None:
    world = World(tmp_path, (
        "steps:\n"
        "  - {id: docs, uses: files.scan, with: {root: in}}\n"
        "  - for_each: doc in steps.docs.files\n"
        "    do:\n"
        '      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}\n'
        f'      - {{uses: files.move, with: {{path: "{{{{ doc.path }}}}", {way}}}}}\n'
    ))  # fmt: skip
    for text, why, n in (("1", "new", 1), ("1", "stale", 1), ("2", "new", 2), ("1", "stale", 2)):
        world.write("in/a.txt", text)
        assert carried_out(world).counts[why] == 1
        assert not (tmp_path / "in/a.txt").exists()
        assert dict(carried_out(world).counts) == {"filed": n}
    world.write("in/a.txt", "1")
    (item,) = plan(world.file, pool=FakePool(), settings=settings(tmp_path)).items
    assert (item.state, item.why) == ("stale", "there again: in/a.txt")


def test_a_plan_needs_no_consent_and_tells_what_a_run_wants(world: World) -> None:
    world.edit("secrets: {key: {env: FAKE_KEY}}\n", "")
    world.edit(', env: {FAKE_KEY: "{{ secrets.key }}"}', "")
    report = plan(world.file, pool=FakePool(), settings=settings(world.folder))
    assert report.advice == (
        f"A run wants to start the MCP server 'fake': `{sys.executable} {SERVER}`; "
        "call the function `tools.py:clean`. If you trust it: `--allow tool,mcp`.",
    )


HELD = """\
mcpServers:
  deaf: {command: "{{ python }}", args: [deaf.py], timeout: 10m}
steps:
  - for_each: kind in ["run", "tool", "mcp"]
    key: kind
    max_parallel: 3
    do:
      - {uses: run, if: kind == "run", with: {command: [sh, -c, "SCRIPT"]}}
      - {uses: tool, if: kind == "tool", with: {name: "deaf.py:holds", options: {timeout: 10m}}}
      - {uses: tool, if: kind == "mcp", with: {name: deaf.any}}
"""
DEAF = """\
import os, signal, subprocess, sys, time

def holds(name: str = "tool"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    below = subprocess.Popen(["sleep", "600"])
    with open(f"{name}.new", "w") as file:
        file.write(f"{os.getpid()} {below.pid}")
    os.rename(f"{name}.new", f"{name}.pids")
    time.sleep(600)

if __name__ == "__main__":
    holds("mcp")
"""
SCRIPT = "trap '' TERM; sleep 600 & echo $$ $! > run.new; mv run.new run.pids; wait; sleep 600"


def test_kill_9_of_a_run_ends_its_commands_functions_and_servers(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    (tmp_path / "pipeline.yaml").write_text(HELD.replace("SCRIPT", SCRIPT))
    (tmp_path / "deaf.py").write_text(DEAF)
    words = ("run", str(tmp_path), "--local", "--allow", "run,tool,mcp")
    process = fork_server.paddock(*words, cwd=tmp_path)
    files = [tmp_path / f"{kind}.pids" for kind in ("run", "tool", "mcp")]
    until(lambda: all(file.exists() for file in files) or process.poll() is not None)
    pids = [int(pid) for file in files for pid in file.read_text().split()]
    assert len(pids) == 6
    assert all(map(is_alive, pids))
    process.kill()
    until(lambda: not any(map(is_alive, pids)))
