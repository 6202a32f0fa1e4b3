"""The pipelines that a pipeline runs as steps, checked before anything runs."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind, bind_without_inputs
from paddock.runner.bind.bound import BoundPlan, BoundStep
from paddock.runner.bind.plan_walks import all_plans
from paddock.runner.bind.sub_pipelines import MAX_LEVELS, MAX_PIPELINES
from paddock.runner.bind.trust.permissions import permission_needs
from paddock.runner.config.pipeline_secrets import read_secrets
from paddock.steps.base import OutsideRoots
from tests.runner.bind.pipeline_faults import fault_of, faults_of

INNER = """\
inputs:
  folder: {type: dir, required: true}
  n: {type: int, default: 3}
steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.folder }}"}}
returns: {files: steps.docs.files, n: inputs.n}
"""


def written(folder: Path, outer: str, **inner: str) -> Path:
    for name, text in {"pipeline": outer, "inner": INNER, **inner}.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "pipeline.yaml"


def faults(folder: Path, outer: str, **inner: str) -> str:
    file = written(folder, outer, **inner)
    return str(PipelineError(list(faults_of(outer, file)))).replace(f"{folder}/", "")


def bound(file: Path, inputs: Mapping[str, Any] | None = None) -> BoundPlan:
    return bind(read_plan(file), inputs or {}, cwd=file.parent, default_models={})


def test_inputs_and_returns_are_checked_where_they_are_written(tmp_path: Path) -> None:
    outer = """\
steps:
  - {id: a, uses: pipeline, with: {file: inner.yaml, inputs: {folder: x, n: few, m: 1}}}
  - {id: b, uses: pipeline, with: {file: inner.yaml}}
  - {id: c, uses: pipeline, with: {file: inner.yaml, inputs: {folder: ../..}}}
  - {uses: prompt, with: {template: "{{ steps.a.fils }}"}}
"""
    assert faults(tmp_path, outer) == (
        """\
pipeline.yaml:2:77: input 'n' of 'inner.yaml' must be a whole number, not 'few'.
       2 |   - {id: a, uses: pipeline, with: {file: inner.yaml, inputs: {folder: x, n: few, m: 1}}}
         |                                                                             ^^^
pipeline.yaml:2:82: 'inner.yaml' has no input 'm'.
       2 |   - {id: a, uses: pipeline, with: {file: inner.yaml, inputs: {folder: x, n: few, m: 1}}}
         |                                                                                  ^
  Known: 'folder', 'n'.
pipeline.yaml:3:35: 'inner.yaml' needs the input 'folder'.
       3 |   - {id: b, uses: pipeline, with: {file: inner.yaml}}
         |                                   ^^^^^^^^^^^^^^^^^^
  Add `folder: …` under `inputs`.
pipeline.yaml:4:71: input 'folder' of 'inner.yaml' leads outside the pipeline's folders: '../..'.
       4 |   - {id: c, uses: pipeline, with: {file: inner.yaml, inputs: {folder: ../..}}}
         |                                                                       ^^^^^
  REMEDY
pipeline.yaml:5:37: step 'a' has no output 'fils'.
       5 |   - {uses: prompt, with: {template: "{{ steps.a.fils }}"}}
         |                                     ^^^^^^^^^^^^^^^^^^^^
  Known: 'files', 'n'. Did you mean 'files'?""".replace("REMEDY", OutsideRoots("", ()).remedy)
    )


def test_a_file_alone_is_no_step_and_how_it_is_one_is_told(tmp_path: Path) -> None:
    message = faults(tmp_path, "steps: [{uses: ./parts/a.yaml}, {uses: mine.py}]\n")
    assert [line.strip() for line in message.splitlines() if "|" not in line] == [
        "pipeline.yaml:1:16: there is no step called './parts/a.yaml'.",
        "Another pipeline is run so: `uses: pipeline`, `with: {file: ./parts/a.yaml}`.",
        "pipeline.yaml:1:40: there is no step called 'mine.py'.",
        "Name a function of that file: `uses: mine.py:name`.",
    ]


def test_a_flood_of_pipelines_is_refused_at_once(tmp_path: Path) -> None:
    names = [f"p{n}" for n in range(7)]
    step = "{{uses: pipeline, with: {{file: {0}.yaml}}}}"
    two = f"steps: [{step}, {step}]\n"
    texts = {name: two.format(after) for name, after in pairwise(names)}
    texts[names[-1]] = "steps: [{uses: prompt, with: {template: x}}]\n"
    message = faults(tmp_path, two.format("p0"), **texts)
    assert f"more than {MAX_PIPELINES} steps run other pipelines." in message
    assert message.count("\n") < 8
    texts = {
        f"q{n}": f"steps: [{{uses: pipeline, with: {{file: q{n + 1}.yaml}}}}]\n" for n in range(9)
    }
    message = faults(tmp_path, "steps: [{uses: pipeline, with: {file: q0.yaml}}]\n", **texts)
    assert f"pipelines run one another more than {MAX_LEVELS} levels deep." in message


def test_what_is_wrong_with_the_inner_file_is_told_there_and_once(tmp_path: Path) -> None:
    outer = """\
steps:
  - {id: a, uses: pipeline, with: {file: inner.yaml}}
  - {id: b, uses: pipeline, with: {file: inner.yaml}}
"""
    message = faults(tmp_path, outer, inner="steps: [{uses: promt, with: {template: x}}]\n")
    assert message.count("inner.yaml:1:16: there is no step called 'promt'.") == 1
    message = faults(tmp_path, outer, inner="steps: [\n")
    assert message.count("this is not valid YAML") == 1 and message.startswith("inner.yaml:2:1:")


def test_what_is_made_of_the_runs_inputs_is_checked_before_it_begins(tmp_path: Path) -> None:
    outer = """\
inputs: {k: {type: str, required: true}}
steps: [{uses: pipeline, with: {file: inner.yaml, inputs: {folder: ".", n: "{{ inputs.k }}"}}}]
"""
    file = written(tmp_path, outer)
    bind_without_inputs(read_plan(file))
    with pytest.raises(PipelineError, match=r"input 'n' of 'inner.yaml' must be a whole number"):
        bound(file, {"k": "many"})
    (step,) = bound(file, {"k": "4"}).nodes
    assert isinstance(step, BoundStep) and step.inner is not None
    assert step.inner.inputs == {"folder": str(tmp_path), "n": 4}


SERVED = """\
inputs: {url: {type: str, default: "http://gpu:1"}}
secrets: {word: {env: INNER_WORD}}
models: {writer: {ref: x, pool: {url: "{{ inputs.url }}", key: "{{ secrets.word }}"}}}
on: {notify: [{when: failed, webhook: "http://far/x"}]}
steps: [{uses: chat, with: {prompt: hello}}]
"""


def test_what_inner_pipelines_reach_for_needs_consent_as_well(tmp_path: Path) -> None:
    outer = "steps: [{id: a, uses: pipeline, with: {file: inner.yaml}}]\n"
    plan = bound(written(tmp_path, outer, inner=SERVED.replace("when: failed", "when: [failed]")))
    assert [
        (need.name, need.what) for need in permission_needs(plan, "http://127.0.0.1:11434")
    ] == [
        ("secrets", "read the environment variable INNER_WORD"),
        ("network", "ask http://gpu:1 for a model"),
    ]
    inner = [nested for nested in all_plans(plan) if nested is not plan]
    assert [list(nested.pools) for nested in inner] == [["a.writer"]]
    found = read_secrets(
        plan.pipeline, {"INNER_WORD": "hush-hush"}, {}, [i.pipeline for i in inner]
    )
    assert found.of(inner[0].file) == {"word": "hush-hush"} and found.of(plan.file) == {}
    assert found.redact("say hush-hush") == "say ***"


def test_the_address_of_a_server_must_be_known_before_the_run(tmp_path: Path) -> None:
    outer = """\
steps:
  - {id: p, uses: prompt, with: {template: "http://elsewhere:1"}}
  - {id: a, uses: pipeline, with: {file: inner.yaml, inputs: {url: "{{ steps.p.text }}"}}}
"""
    message = faults(tmp_path, outer, inner=SERVED.replace("on:", "x-on:"))
    assert "input 'url' is the address of a server, and must be known before a run." in message


WRITES = """\
inputs: {to: {type: dir, required: true}}
steps:
  - {id: note, uses: files.write, with: {path: "{{ inputs.to }}/note.txt", text: x}}
"""


def test_a_watch_that_would_see_what_is_written_within_is_a_fault(tmp_path: Path) -> None:
    outer = """\
inputs: {inbox: {type: dir, default: ./inbox}}
on: {watch: [{path: "{{ inputs.inbox }}"}]}
steps: [{id: a, uses: pipeline, with: {file: inner.yaml, inputs: {to: "{{ inputs.inbox }}/own"}}}]
"""
    file = written(tmp_path, outer, inner=WRITES)
    fault = fault_of(lambda: bound(file))
    assert fault.message == (
        "the watch on '{{ inputs.inbox }}' would see what step 'note' writes, "
        "'" + str(tmp_path) + "/inbox/own/note.txt', and start the pipeline again and again."
    )
    assert fault.remedy == ('Write into another folder, or set `exclude: ["/own/"]`.')


def test_null_is_as_if_an_input_were_not_given_before_a_run_and_in_it(tmp_path: Path) -> None:
    outer = """\
inputs: {x: {type: str, required: true}, flag: {type: bool, required: true}}
steps:
  - {id: a, uses: pipeline,
     with: {file: inner.yaml, inputs: {note: "{{ inputs.x if inputs.flag else none }}"}}}
"""
    inner = """\
inputs: {note: {type: str, required: false}}
steps: [{uses: prompt, with: {template: "{{ inputs.note }}"}}]
"""
    file = written(tmp_path, outer, inner=inner)
    notes = []
    for flag in (True, False):
        (_, called) = all_plans(bound(file, {"x": "y", "flag": flag}))
        notes.append(called.inputs["note"])
    assert notes == ["y", None]
