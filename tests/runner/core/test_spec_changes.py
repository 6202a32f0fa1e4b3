"""What a plan says of each kind of change, and whether the run then does that and costs that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest
from paddock.runner.api import run
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.progress.report import Report
from tests.fakes.pool import FakePool, echo
from tests.runner.world import World, reasons, settings, states

PIPELINE = """\
inputs:
  tone: {type: str, default: plain}
models:
  writer: {ref: one, ctx: 2k, params: {top_k: 5}}
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: note, uses: files.read, with: {path: note.txt}}
      - {id: stem, uses: prompt, with: {template: "{{ doc.stem }}"}}
      - id: sum
        uses: chat
        with:
          system: {file: system.md}
          prompt: "{{ doc.name }}, {{ inputs.tone }}: {{ steps.text.text }} {{ steps.note.text }}"
          params: {temperature: 0.5}
        reply: {schema: {said: str}, check: ["words(output.said) < 99"]}
      - id: page
        uses: files.write
        with:
          path: "out/{{ doc.relpath }}"
          template: {file: page.md}
          vars: {s: "{{ steps.sum.text }}"}
    returns: {file: doc.relpath, sum: steps.sum.text}
  - {id: digest, uses: reduce, with: {over: "{{ steps.each.results }}", prompt: "All:"}}
  - {uses: files.write, with: {path: out/DIGEST.md, text: "{{ steps.digest.text }}"}}
"""
FILES = {
    "system.md": "Be brief.",
    "page.md": "# {{ doc.stem }}\n{{ s }}\n",
    "note.txt": "The harbour is closed on Sundays.",
}


def answer(request: ChatRequest) -> str:
    said = echo(request)
    return said if request.constraint is None else json.dumps({"said": said})


def ran(world: World) -> Report:
    return world.run(pool=FakePool(answer=answer))


def edit(name: str, old: str, new: str) -> Callable[[World], object]:
    """Change a text: of the pipeline, or of a file next to it."""

    def change(world: World) -> None:
        if name == "":
            world.edit(old, new)
            return
        text = (world.folder / name).read_text()
        assert old in text
        world.write(name, text.replace(old, new))

    return change


def both(*changes: Callable[[World], object]) -> Callable[[World], object]:
    def change(world: World) -> None:
        for one in changes:
            one(world)

    return change


def rename(old: str, new: str) -> Callable[[World], object]:
    return lambda world: (world.folder / old).rename(world.folder / new)


def delete(name: str) -> Callable[[World], object]:
    return lambda world: (world.folder / name).unlink()


def touch(world: World) -> None:
    (world.folder / "inbox/0.txt").touch()


NOTHING: dict[str, str] = {}
CHANGES: dict[str, tuple[Callable[[World], object], str, dict[str, str]]] = {
    # what is done: the change, the state and reason of 0.txt ("" where it is fresh), other states
    "another prompt": (
        edit("", ", {{ inputs.tone }}:", " ({{ inputs.tone }}):"),
        "stale: prompt changed (step 'sum')",
        NOTHING,
    ),
    "another attribute in the prompt": (
        edit("", "{{ doc.name }}", "{{ doc.stem }}"),
        "stale: prompt changed (step 'sum')",
        NOTHING,
    ),
    "a key that is the same for each item": (
        edit("", "    do:\n", "    key: doc.relpath\n    do:\n"),
        "",
        NOTHING,
    ),
    "the whole item in the prompt": (
        edit("", "{{ doc.name }}", "{{ doc }}"),
        "stale: prompt changed (step 'sum')",
        NOTHING,
    ),
    "another path": (
        edit("", "out/{{ doc.relpath }}", "out/{{ doc.stem }}.md"),
        "stale: `path` changed (step 'page')",
        NOTHING,
    ),
    "another system file": (
        edit("system.md", "brief", "short"),
        "stale: prompt changed (step 'sum')",
        NOTHING,
    ),
    "another page": (
        edit("page.md", "# ", "## "),
        "stale: template changed (step 'page')",
        NOTHING,
    ),
    "another file that is read": (
        edit("note.txt", "Sundays", "Mondays"),
        "stale: file changed: note.txt",
        NOTHING,
    ),
    "another check": (
        edit("", "< 99", "< 98"),
        "stale: checks changed (step 'sum')",
        NOTHING,
    ),
    "another schema": (
        edit("", "schema: {said: str}", "schema: {said: 'str?'}"),
        "stale: schema changed (step 'sum')",
        NOTHING,
    ),
    "another model": (
        edit("", "ref: one", "ref: two"),
        "stale: model changed (step 'sum')",
        NOTHING,
    ),
    "a larger context": (edit("", "ctx: 2k", "ctx: 3k"), "", NOTHING),
    "a smaller context": (
        edit("", "ctx: 2k", "ctx: 1k"),
        "stale: `ctx` of its model changed (step 'sum')",
        NOTHING,
    ),
    "other parameters of the model": (
        edit("", "top_k: 5", "top_k: 6"),
        "stale: `params` of its model changed (step 'sum')",
        NOTHING,
    ),
    "other parameters of the step": (
        edit("", "temperature: 0.5", "temperature: 0.6"),
        "stale: `params` changed (step 'sum')",
        NOTHING,
    ),
    "another alias of the same model": (edit("", "  writer:", "  author:"), "", NOTHING),
    "another input": (
        edit("", "default: plain", "default: merry"),
        "stale: value changed: inputs.tone",
        NOTHING,
    ),
    "other results": (
        edit("", "returns: {file: doc.relpath, sum", "returns: {file: doc.stem, sum"),
        "stale: `returns` changed (step 'each')",
        NOTHING,
    ),
    "a condition": (
        edit("", "      - id: page\n", "      - id: page\n        if: doc.size > 0\n"),
        "stale: `if` changed (step 'page')",
        NOTHING,
    ),
    "another document": (
        edit("inbox/0.txt", "ferry", "boat"),
        "changed: content changed",
        {"1.txt": ""},
    ),
    "another document and another prompt": (
        both(edit("inbox/0.txt", "ferry", "boat"), edit("", "{{ doc.name }}", "{{ doc.stem }}")),
        "changed: content changed; prompt changed (step 'sum')",
        {"1.txt": "stale"},
    ),
    "another prompt and another path": (
        both(
            edit("", "{{ doc.name }}", "{{ doc.stem }}"),
            edit("", "out/{{ doc.relpath", "{{ doc.name"),
        ),
        "stale: prompt changed (step 'sum'); `path` changed (step 'page')",
        NOTHING,
    ),
    "a document that was touched": (touch, "", NOTHING),
    "one more document": (
        lambda world: world.write("inbox/2.txt", "New."),
        "",
        {"2.txt": "new"},
    ),
    # A copied folder is another one until a run has found all known documents in it.
    "one document less": (both(ran, delete("inbox/1.txt")), "", {"1.txt": "deleted"}),
    "a renamed document": (
        both(ran, rename("inbox/1.txt", "inbox/3.txt")),
        "",
        {"3.txt": "new"},
    ),
    "an output that is gone": (
        delete("out/0.txt"),
        "stale: output is missing: out/0.txt",
        {"1.txt": ""},
    ),
    "an output that was edited": (
        edit("out/0.txt", "#", "My own"),
        "held: edited, or not ours, and kept: out/0.txt",
        {"1.txt": ""},
    ),
    "one more step": (
        edit(
            "",
            "      - id: sum\n",
            "      - {id: more, uses: prompt, with: {template: Hi}}\n      - id: sum\n",
        ),
        "stale: step 'more' is new",
        NOTHING,
    ),
    "a step less": (
        both(
            edit("", '      - {id: stem, uses: prompt, with: {template: "{{ doc.stem }}"}}\n', ""),
        ),
        "stale: step 'stem' was removed",
        NOTHING,
    ),
    "a renamed step": (
        edit("", "id: page", "id: sheet"),
        "stale: step 'page' was removed; step 'sheet' is new",
        NOTHING,
    ),
    "how it is run": (edit("", "    do:\n", "    max_parallel: 2\n    do:\n"), "", NOTHING),
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which everything is done."""
    world = World(tmp_path_factory.mktemp("done"), PIPELINE)
    for name, text in FILES.items():
        world.write(name, text)
    world.documents(2)
    assert ran(world).counts == {"new": 3}
    return world.folder


@pytest.mark.parametrize("change", CHANGES)
def test_a_plan_names_what_changed_and_bounds_what_the_run_costs(
    done: Path, tmp_path: Path, change: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(done, folder)
    world = World(folder, PIPELINE)
    make, wanted, others = CHANGES[change]
    make(world)

    plan = world.plan()
    told = states(plan)
    state, _, why = wanted.partition(": ")
    assert (told.pop("0.txt", ""), reasons(plan).get("0.txt") or "") == (state, why)
    expected = others or ({"1.txt": state} if state else {})
    assert told == {key: one for key, one in expected.items() if one}

    report = ran(world)
    assert report.status == "completed"
    for name in ("new", "changed", "stale", "deleted"):
        n_planned = sum(item.state == name for item in plan.items if item.step == "each")
        assert sum(i.state == name for i in report.items if i.step == "each") == n_planned
    assert plan.calls is not None
    assert (report.calls == plan.calls) if plan.calls_are == "exact" else report.calls <= plan.calls
    assert not world.plan().has_work


def test_changed_code_of_a_function_is_named_by_its_file(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        "steps:\n"
        "  - id: each\n"
        "    for_each: n in [1, 2]\n"
        "    do: [{id: up, uses: 'own.py:up', with: {n: '{{ n }}'}}]\n",
    )
    world.write("own.py", "def up(n: int) -> int:\n    return n + 1\n")
    own = replace(settings(tmp_path), allow=frozenset(["tool"]))
    run(
        world.file,
        options=RunOptions(local=True),
        environment=RunEnvironment(pool=FakePool(), settings=own),
    )
    edit("own.py", "+ 1", "+ 2")(world)
    why = "code of own.py, or of what it imports, changed (step 'up')"
    assert set(reasons(world.plan()).values()) == {why}


def test_a_key_that_reads_more_of_the_item_is_named_as_the_reason(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.documents(2)
    world.run()
    world.edit("    do:\n", "    key: doc.name\n    do:\n")
    assert reasons(world.plan()) == dict.fromkeys(("0.txt", "1.txt"), "`key` changed")
    assert world.run().calls == 0
