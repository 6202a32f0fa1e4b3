"""What this machine lacks is found before a run; where it shows only later, no item is given up."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.system.records import replace
from paddock.pipelines.errors import PipelineError
from paddock.runner.api import plan, validate
from paddock.steps.readers import reader
from tests.fakes.pool import FakePool
from tests.runner.bind.pipeline_faults import sentences
from tests.runner.world import ALL, World, carried_out, settings


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what makes packages look as if they were not installed."""
    find_spec = importlib.util.find_spec

    def hide(*names: str) -> None:
        def find(name: str, package: str | None = None) -> Any:
            return None if name in names else find_spec(name, package)

        for module in (importlib.util, reader):
            monkeypatch.setattr(module, "find_spec", find)

    return hide


def refused(world: World) -> list[str]:
    """Return what all three verbs refuse with: they must agree, and nothing may be begun."""
    found = validate(world.file).faults
    for verb in (
        lambda: plan(
            world.file, pool=FakePool(), settings=replace(settings(world.folder), allow=ALL)
        ),
        lambda: carried_out(world),
    ):
        with pytest.raises(PipelineError) as caught:
            verb()
        assert sentences(caught.value.faults) == sentences(found)
    assert not (world.folder / ".paddock/ledger.sqlite").exists()
    return sentences(found)


def test_texts_are_not_compared_without_the_library_but_contents_are(
    tmp_path: Path, without: Callable[..., None]
) -> None:
    rows = "rows: [{f: a, c: x, t: y}], key: f"
    world = World(tmp_path, f"steps: [{{id: x, uses: duplicates, with: {{{rows}, text: t}}}}]")
    without("rensa")
    assert refused(world) == [
        "texts are compared by 'rensa', which is not installed. "
        "Install it: `pip install 'paddock-llm[duplicates]'`."
    ]
    world.edit("text: t", "content: c")
    assert world.run().status == "completed"


PROGRAM = """\
steps:
  - id: each
    for_each: word in ["ferry", "pier"]
    do:
      - {id: log, uses: run, with: {command: [no-such-program, "{{ word }}"]}}
"""


def test_a_program_that_is_not_there_is_refused_with_its_place(tmp_path: Path) -> None:
    world = World(tmp_path, PROGRAM)
    assert refused(world) == [
        "step 'log' runs 'no-such-program', and there is no such program here. "
        "Install it, or name its path."
    ]
    assert validate(world.file).faults[0].render().splitlines()[1:3] == [
        '       5 |       - {id: log, uses: run, with: {command: [no-such-program, "{{ word }}"]}}',
        "         |                                               ^^^^^^^^^^^^^^^",
    ]


def program(folder: Path, name: str) -> None:
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\necho $1\n")
    path.chmod(0o755)


def test_an_item_whose_program_is_missing_is_done_as_soon_as_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    text = PROGRAM.replace('no-such-program, "{{ word }}"', '"show-{{ word }}", "{{ word }}"')
    world = World(tmp_path, text)
    program(tmp_path, "show-ferry")
    for _ in range(4):  # more often than what fails in passing is tried
        report = carried_out(world)
        assert report.exit_status() == 3
        errors = [item.error for item in report.items if item.state == "quarantined"]
        assert errors == [
            "step 'log': there is no program 'show-pier' here. Install it, or name its path."
        ]
    program(tmp_path, "show-pier")
    assert carried_out(world).counts == {"fresh": 1, "stale": 1}


def test_a_step_that_an_if_may_leave_out_is_not_refused(tmp_path: Path) -> None:
    world = World(tmp_path, PROGRAM.replace("uses: run", "if: word == 'tram', uses: run"))
    assert validate(world.file).ok
    assert carried_out(world).status == "completed"
    inputs = "inputs: {logs: false}\n"
    world = World(tmp_path, inputs + PROGRAM.replace("uses: run", "if: inputs.logs, uses: run"))
    assert validate(world.file).ok
    with pytest.raises(PipelineError, match="no such program"):
        carried_out(world, inputs={"logs": "true"})


def test_a_kind_of_document_that_the_author_names_needs_its_extra(
    tmp_path: Path, without: Callable[..., None]
) -> None:
    without("docx", "rapidocr")
    text = "steps:\n" + "".join(
        f"  - {{id: {kind}, uses: files.read, with: {{path: a, type: {kind}}}}}\n"
        for kind in ("docx", "image", "pdf")
    )
    assert refused(World(tmp_path, text)) == [
        "documents of type 'docx' need the extra 'documents', which is not installed. "
        "Install it: `pip install 'paddock-llm[documents]'`.",
        "texts of pictures need the extra 'ocr', which is not installed. "
        "Install it: `pip install 'paddock-llm[ocr]'`.",
    ]


FUNCTION = """\
steps:
  - id: each
    for_each: word in ["ferry"]
    do:
      - {id: clean, USE}
"""
AS_STEP = 'uses: "./mine.py:clean", with: {text: "{{ word }}"}'
AS_TOOL = 'uses: tool, with: {name: "mine.py:clean", args: {text: "{{ word }}"}}'
CLEAN = "def clean(text: str) -> str:\n    return text.upper()\n"


@pytest.mark.parametrize(("use", "file"), [(AS_STEP, "./mine.py"), (AS_TOOL, "mine.py")])
def test_a_function_whose_file_imports_what_is_not_installed_is_refused(
    tmp_path: Path, use: str, file: str
) -> None:
    imports = "import json\nimport beside\nimport no_such_module.part\n"
    guarded = "try:\n    import another_missing_one\nexcept ImportError:\n    pass\n"
    files = {"beside.py": "", "mine.py": imports + guarded + CLEAN}
    assert refused(World(tmp_path, FUNCTION.replace("USE", use), files)) == [
        f"the file '{file}' imports 'no_such_module', which is not installed. "
        "Install it in the environment that runs Paddock."
    ]


@pytest.mark.parametrize("fast", ["{type: bool, required: true}", "{type: bool, default: false}"])
def test_an_input_that_is_known_later_makes_no_step_certain(tmp_path: Path, fast: str) -> None:
    inputs = '{fast: "{{ steps.p.text != 1 }}"}'
    step = f"{{id: a, uses: pipeline, with: {{file: inner.yaml, inputs: {inputs}}}}}"
    outer = f"steps: [{{id: p, uses: prompt, with: {{template: a}}}}, {step}]"
    run = "{id: r, uses: run, if: not inputs.fast, with: {command: [no-such-program]}}"
    (tmp_path / "inner.yaml").write_text(f"inputs: {{fast: {fast}}}\nsteps: [{run}]")
    assert validate(World(tmp_path, outer).file).faults == ()
