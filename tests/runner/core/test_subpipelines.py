"""A pipeline as a step of another: same pool and ledger, scopes of its own, freshness within."""

from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest
from paddock.engine.system.records import replace
from paddock.pipelines.errors import PipelineError
from paddock.runner.bind.trust.permissions import NotPermitted
from tests.fakes.pool import FakePool, echo
from tests.runner.world import World, errors, reasons, settings, states

OUTER = """\
name: outer
inputs:
  folder: {type: dir, default: ./inbox}
  out: {type: dir, default: ./out}
steps:
  - id: clean
    uses: pipeline
    with:
      file: parts/clean.yaml
      inputs: {folder: "{{ inputs.folder }}", out: "{{ inputs.out }}", tone: dry}
  - {id: digest, uses: chat, with: {prompt: "All: {{ steps.clean.sums }}"}}
  - id: report
    uses: files.write
    with: {path: "{{ inputs.out }}/ALL", text: "{{ steps.digest.text }}"}
returns: {n: steps.clean.n, report: steps.report.path}
"""

CLEAN = """\
inputs:
  folder: {type: dir, required: true}
  out: {type: dir, required: true}
  tone: {type: enum, values: [dry, warm], default: warm}
steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.folder }}"}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ steps.text.text }} ({{ inputs.tone }})"}}
      - uses: files.write
        with: {path: "{{ inputs.out }}/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}
    returns: steps.sum.text
returns: {sums: steps.each.results, n: steps.docs.files | length}
"""

AREAS = """\
name: areas
inputs:
  areas: {type: list, default: [north, south]}
  out: {type: dir, default: ./out}
steps:
  - id: all
    for_each: area in inputs.areas
    key: area
    do:
      - id: clean
        uses: pipeline
        with:
          file: parts/clean.yaml
          inputs: {folder: "areas/{{ area }}", out: "{{ inputs.out }}/{{ area }}"}
      - {id: digest, uses: chat, with: {prompt: "All: {{ steps.clean.sums }}"}}
    returns: {n: steps.clean.n, text: steps.digest.text}
returns: steps.all.results
"""


def composed(folder: Path, n: int = 3) -> World:
    return World(folder, OUTER, {"parts/clean.yaml": CLEAN}, n_documents=n)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return composed(tmp_path)


def areas(folder: Path) -> World:
    documents = {
        f"areas/{area}/{number}.txt": f"Document {number} of the {area}."
        for area in ("north", "south")
        for number in range(2)
    }
    return World(folder, AREAS, {"parts/clean.yaml": CLEAN, **documents})


def test_a_pipeline_is_a_step_and_its_items_are_known_one_by_one(world: World) -> None:
    foreseen = world.plan()
    assert states(foreseen, "clean.each") == dict.fromkeys(("0.txt", "1.txt", "2.txt"), "new")
    assert foreseen.calls == 4
    report = world.run()
    assert (report.status, report.calls, report.returns["n"]) == ("completed", 4, 3)
    assert states(report, "clean.each") == dict.fromkeys(("0.txt", "1.txt", "2.txt"), "new")
    assert world.output("1.txt") and world.output("ALL")

    assert world.run().calls == 0
    assert world.plan().calls == 0
    world.write("inbox/1.txt", "Changed.")
    assert states(world.plan(), "clean.each") == {"1.txt": "changed"}
    assert world.run().calls == 2, "the document's, and that of the digest"


def test_a_change_of_the_outer_file_repeats_no_call_within(world: World) -> None:
    world.run()
    world.edit("All:", "Together:")
    report = world.run()
    assert report.calls == 1 and states(report, "clean.each") == {}
    world.edit("tone: dry", "tone: warm")
    assert world.run().calls == 4


def test_what_lies_within_an_item_makes_it_old(tmp_path: Path) -> None:
    world = areas(tmp_path)
    world.run()
    world.write("areas/north/2.txt", "A third one.")
    (tmp_path / "out/south/1.txt").unlink()
    assert reasons(world.plan(), "all") == {
        "north": "folder changed: areas/north",
        "south": "output is missing: out/south/1.txt",
    }
    report = world.run()
    assert report.calls == 2, "the third document, and the north's digest"
    assert world.output("south/1.txt") and world.output("north/2.txt")
    assert world.plan().calls == 0
    world.write("parts/clean.yaml", CLEAN.replace("Sum up:", "Shorten:"))
    why = "prompt changed (step 'clean.sum')"
    assert reasons(world.plan(), "all") == dict.fromkeys(("north", "south"), why)


def broken(request: ChatRequest) -> str:
    if "Document 1" in request.messages[-1].content:
        raise ValueError("a bug")
    return echo(request)


def test_what_fails_within_is_quarantined_within(world: World) -> None:
    report = world.run(pool=FakePool(answer=broken))
    assert (report.status, report.returns["n"]) == ("quarantined", 3)
    assert states(report, "clean.each")["1.txt"] == "quarantined"
    assert world.run(retry_failed=True).status == "completed"


STRICT = CLEAN.replace("    do:\n", "    on_error: fail\n    do:\n")


def test_a_pipeline_that_fails_for_one_item_leaves_the_others(tmp_path: Path) -> None:
    world = areas(tmp_path)
    world.write("parts/clean.yaml", STRICT)
    world.write("areas/south/1.txt", "Nothing of the kind.")
    report = world.run(pool=FakePool(answer=broken))
    assert report.status == "quarantined"
    assert states(report, "all") == {"north": "quarantined", "south": "new"}
    error = "step 'clean': 'north/1.txt': step 'sum': ValueError: a bug"
    assert errors(report)["north"] == error


def test_a_pipeline_that_is_wrong_for_the_data_of_one_item_fails_for_that_item(
    tmp_path: Path,
) -> None:
    world = areas(tmp_path)
    text = CLEAN.replace("doc in steps.docs.files", "doc in {}")
    names = "steps.docs.files if inputs.folder.endswith('north') else 5"
    world.write("parts/clean.yaml", text.replace("{}", names, 1))
    report = world.run()
    assert states(report, "all") == {"north": "new", "south": "quarantined"}
    assert errors(report)["south"] == (
        f"step 'clean': {tmp_path}/parts/clean.yaml:7:9: block 'each' goes over a number, which is "
        "no list. Name a list, such as `steps.docs.files`."
    )
    world.write("parts/clean.yaml", CLEAN.replace("n: steps", "n: inputs.tone.more + steps"))
    report = world.run()
    assert set(states(report, "all").values()) == {"quarantined"}


def test_steps_within_are_forced_by_their_whole_name_or_all_at_once(world: World) -> None:
    world.run()
    assert world.run(force=["clean.each"]).calls == 3
    assert world.run(force=["clean"]).calls == 3
    assert world.run(force=["digest"]).calls == 1
    with pytest.raises(PipelineError) as caught:
        world.run(force=["each"])
    assert str(caught.value) == (
        "there is no step 'each' to force.\n"
        "  Known: 'clean', 'clean.docs', 'clean.each', 'clean.text', 'clean.sum', "
        "'clean.(files.write)', 'digest', 'report'."
    )


FUNCTIONS = """\
steps:
  - id: all
    for_each: text in ["a b", "c", "no"]
    key: text
    do:
      - {id: one, uses: "./mine.py:shout", with: {text: "{{ text }}"}}
      - {id: two, uses: pipeline, with: {file: parts/other.yaml, inputs: {text: "{{ text }}"}}}
    returns: [steps.one.said, steps.two.result]
returns: steps.all.results
"""


def test_functions_of_ones_own_are_steps_with_consent(tmp_path: Path) -> None:
    own = (
        "def shout(text: str, by: str = '!') -> dict:\n"
        "    if text == 'no':\n        raise ValueError('not this one')\n"
        "    return {'said': text.upper() + by}\n"
    )
    other = (
        "inputs: {text: {type: str, required: true}}\n"
        "steps: [{id: f, uses: 'mine.py:shout', with: {text: '{{ inputs.text }}'}}]\n"
        "returns: steps.f.result\n"
    )
    inner = "def shout(text):\n    return len(text)\n"
    files = {"mine.py": own, "parts/other.yaml": other, "parts/mine.py": inner}
    world = World(tmp_path, FUNCTIONS, files)
    with pytest.raises(NotPermitted) as caught:
        world.run()
    assert [need.what for need in caught.value.needs] == [
        "call the Python function './mine.py:shout'",
        "call the Python function 'mine.py:shout'",
    ]
    assert not (tmp_path / "__pycache__").exists()

    allowed = replace(settings(tmp_path), allow=frozenset({"tool"}))
    report = world.run(settings=allowed)
    assert report.returns == [["A B!", 3], ["C!", 1]]
    (error,) = errors(report).values()
    assert error == "step 'one': ValueError: not this one (./mine.py, line 3)"
    assert world.run(settings=allowed).counts["fresh"] == 2
    world.write("parts/mine.py", inner.replace("len", "-len"))
    report = world.run(settings=allowed)
    assert report.returns == [["A B!", -3], ["C!", -1]]
    whys = {item.why for item in report.items if item.step == "all" and item.why}
    assert whys == {"code of mine.py, or of what it imports, changed (step 'two.f')"}


def test_what_a_pipeline_returns_without_names_is_its_result(tmp_path: Path) -> None:
    text = """\
steps:
  - {id: one, uses: pipeline, with: {file: one.yaml, inputs: {n: 20}}}
  - {id: none, uses: pipeline, with: {file: none.yaml}}
returns: {one: steps.one.result, none: steps.none.skipped}
"""
    prompt = "steps: [{id: p, uses: prompt, with: {template: x}}]\n"
    one = f"inputs: {{n: 1}}\n{prompt}returns: inputs.n + 1\n"
    world = World(tmp_path, text, {"one.yaml": one, "none.yaml": prompt})
    assert world.run().returns == {"one": 21, "none": False}
