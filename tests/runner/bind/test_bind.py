"""Typed steps, inputs and models: the last place where the YAML's author can be wrong."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import Role
from paddock.pipelines import model, yaml_source
from paddock.pipelines import plan as plans
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.keys import RetryKeys
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind
from paddock.runner.bind.bound import BoundBlock, BoundPlan, BoundStep
from paddock.runner.bind.parameters import RenderError
from paddock.runner.bind.scope import Scope
from tests.runner.bind.pipeline_faults import faults_of, sentences

DEFAULTS: Mapping[Role, str] = {"chat": "smollm2:135m", "embed": "all-minilm"}


def bound(folder: Path, text: str, cwd: Path | None = None, **inputs: Any) -> BoundPlan:
    file = folder / "news.yaml"
    file.write_text(text, encoding="utf-8")
    return bind(read_plan(file), inputs, cwd=cwd or folder, default_models=DEFAULTS)


def refusal(text: str, **inputs: Any) -> PipelineError:
    made = plans.plan_with_faults(model.parse_pipeline(yaml_source.parse_yaml(text, "news.yaml")))
    with pytest.raises(PipelineError) as caught:
        bind(made, inputs, cwd=Path.cwd(), default_models=DEFAULTS)
    return caught.value


def messages(text: str, **inputs: Any) -> list[str]:
    return [fault.message for fault in refusal(text, **inputs).faults]


def step(node: object) -> BoundStep:
    assert isinstance(node, BoundStep)
    return node


def block(node: object) -> BoundBlock:
    assert isinstance(node, BoundBlock)
    return node


# --- what is bound


def test_a_block_knows_what_it_reads_of_its_item_and_from_outside(tmp_path: Path) -> None:
    text = """
inputs: {tone: plain}
steps:
  - {id: docs, uses: files.scan, with: {root: .}}
  - for_each: doc in steps.docs.files
    key: doc.stem
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {uses: prompt, with: {template: "{{ steps.text.text }} {{ inputs.tone }}"}}
    returns: {file: doc.relpath}
  - {for_each: doc in steps.docs.files, do: [{uses: prompt, with: {template: "{{ doc }}"}}]}
"""
    each, whole = map(block, bound(tmp_path, text).nodes[1:])
    assert each.reads.item_attributes == frozenset({"stem", "path", "relpath"})
    assert whole.reads.item_attributes is None
    assert each.reads.all == {("steps", "docs", "files"), ("inputs", "tone")}


def test_defaults_hold_where_a_step_says_nothing(tmp_path: Path) -> None:
    text = """
defaults: {retry: {times: 2, on: [io]}, timeout: {idle: 60s}, cache: off}
steps:
  - {uses: prompt, with: {template: x}}
  - uses: prompt
    with: {template: x}
    retry: {times: 1, backoff: 2s}
    timeout: {total: 5m}
    cache: auto
  - {for_each: "x in [1]", timeout: {idle: 1s}, do: [{uses: prompt, with: {template: x}}]}
"""
    first, second, third = bound(tmp_path, text).nodes
    assert step(first).retry == RetryKeys.model_validate({"times": 2, "on": ["io"]})
    assert (limits(step(first)), step(first).cache) == ((None, 60), False)
    assert step(second).retry == RetryKeys.model_validate({"times": 1, "backoff": "2s"})
    assert (limits(step(second)), step(second).cache) == ((300, 60), True)
    assert limits(step(block(third).body[0])) == (None, 1)


def limits(of: BoundStep) -> tuple[float | None, float | None]:
    return of.timeout.total, of.timeout.idle


def test_models_are_named_by_alias_else_the_only_one_of_the_role(tmp_path: Path) -> None:
    text = """
models:
  writer: {ref: smollm2:135m, ctx: 4k, keep_alive: 15m, params: {num_predict: 9}}
  local: {ref: models/x.gguf, role: embed}
steps:
  - {uses: chat, with: {prompt: x, model: writer}}
  - {uses: chat, with: {prompt: x}}
  - {uses: embed, with: {texts: [x]}}
  - {uses: prompt, with: {template: x}}
"""
    made = bound(tmp_path, text)
    specs = [step(node).model for node in made.nodes]
    assert specs[0] == specs[1] == made.models["writer"]
    assert specs[0] is not None
    assert (specs[0].n_ctx_tokens, specs[0].keep_alive_s) == (4096, 900)
    assert specs[0].params == {"max_tokens": 9}
    assert specs[2] is not None
    assert specs[2].ref == str(tmp_path / "models/x.gguf")
    assert specs[3] is None


def test_paths_given_are_relative_to_the_caller_and_defaults_to_the_yaml(tmp_path: Path) -> None:
    folder, cwd = tmp_path / "pipe", tmp_path / "me"
    folder.mkdir()
    cwd.mkdir()
    text = """
inputs: {a: {type: dir, default: ./inbox}, b: {type: path}, key: {type: str, secret: true}}
steps: [{uses: prompt, with: {template: x}}]
"""
    made = bound(folder, text, cwd, b="../x/y.md", key="s")
    assert made.inputs == {"a": str(folder / "inbox"), "b": str(tmp_path / "x/y.md"), "key": "s"}
    assert made.roots.base == folder
    assert made.roots.allowed == (folder, tmp_path / "x/y.md")
    assert made.secret_inputs == {"key"}
    assert made.input_types == {"a": "dir", "b": "path", "key": "str"}


# --- what is a fault


def test_a_model_that_is_not_listed_reads_as_the_language_page_shows_it() -> None:
    text = """
models: {writer: smollm2:135m, vec: {ref: all-minilm, role: embed}}
steps:
  - id: summary
    uses: summarise
    with:
        text: x
        model: qwen3-8b
"""
    assert str(refusal(text)) == (
        "news.yaml:8:16: step 'summary' asks for model 'qwen3-8b', which is not under `models`.\n"
        "       8 |         model: qwen3-8b\n"
        "         |                ^^^^^^^^\n"
        "  Known: 'writer', 'vec'. Add it under `models` or correct the name."
    )


def test_every_fault_of_a_file_comes_at_once() -> None:
    assert messages(
        """
inputs: {n: {type: int, min: 3}, out: {type: dir, default: ../..}, must: {type: str}}
models:
  writer: {ref: x, params: {temprature: 1}}
  vec: {ref: b, role: embed, pool: {url: x}}
  far: {ref: "hf:a"}
steps:
  - {id: docs, uses: files.scan, with: {rot: x, include: 5}}
  - {id: s, uses: summarise, with: {text: "{{ steps.docs.filez }}", words: "80", model: 5}}
  - {id: s2, uses: summarise, with: {model: vec, text: x, file: y, map: "{{ chunk }} {{ chnk }}"}}
  - {id: r, uses: summarise, with: {text: x, instructions: "{{ foo }}", params: {temperature: 9}}}
  - {id: p, uses: split, with: {text: "{{ inputs.n }}", tokens: 10, overlap: 20}}
  - {id: w, uses: files.write, with: {path: 5, text: "{{ steps.p.chunk }}"}}
  - {id: w2, uses: files.write, with: {path: "{{ dok.x }}", rows: 5}}
  - {id: c, uses: chat, with: {prompt: 5, system: {file: zz.md}}}
  - {id: d, uses: chat, with: {prompt: "{{ a }} {{ b }}", vars: {a: 1}, model: "{{ inputs.n }}"}}
  - {uses: chat, nam: x}
returns: {x: steps.w.file}
""",
        n="2",
        zz="1",
    ) == [
        "the default of input 'out' leads outside the pipeline's folder.",
        "input 'must' has no value.",
        "unknown key 'temprature'.",
        "'x' is no address of a server.",
        "'hf:a' names no model of a hub.",
        "step 'files.scan' needs the parameter 'root'.",
        "step 'files.scan' has no parameter 'rot'.",
        "'include' must be a list; '5' is a whole number.",
        "step 'docs' has no output 'filez'.",
        "'words' must be a whole number; '80' is text.",
        "'model' must be text; '5' is a whole number.",
        "step 'summarise': give exactly one of `text`, `chunks`, `file`, not `text` and `file`.",
        "step 's2' writes text, but model 'vec' has the role 'embed'.",
        "'chnk' is not known here.",
        "'foo' is not known here.",
        "'temperature' must be at most 5.0; it is '9'.",
        "in 'with': `overlap` (20) must be below `tokens` (10).",
        "'path' must be text; '5' is a whole number.",
        "step 'p' has no output 'chunk'.",
        "'dok' is not known here.",
        "'rows' must be a list; '5' is a whole number.",
        "'prompt' must be text, or {file: PATH}; it is '5'.",
        "there is no file 'zz.md'.",
        "'b' is not known here.",
        "the model of step 'd' must be named as it is.",
        "step 'chat': give exactly one of `prompt`, `messages`.",
        "unknown key 'nam'.",
        "step 'w' has no output 'file'.",
        "the pipeline has no input 'zz'.",
        "input 'n' must be at least 3, not '2'.",
    ]


def test_outputs_are_those_that_returns_names_and_blocks_have_their_own() -> None:
    assert messages(
        """
steps:
  - {id: a, uses: prompt, with: {template: x}, returns: {t: steps.a.text}}
  - {id: b, for_each: "x in [1]", do: [{uses: prompt, with: {template: x}}]}
  - {uses: prompt, if: steps.a.t and steps.a.skipped and steps.b.results, with: {template: x}}
  - {uses: prompt, if: steps.a.text, with: {template: x}}
  - {uses: prompt, if: steps.b.text, with: {template: x}}
"""
    ) == ["step 'a' has no output 'text'.", "step 'b' has no output 'text'."]


# --- while running


def test_a_value_that_turns_out_wrong_is_told_with_its_place(tmp_path: Path) -> None:
    text = 'steps:\n  - {for_each: "d in [1]", do: [{uses: split, with: {text: "{{ d.x }}"}}]}\n'
    params = step(block(bound(tmp_path, text).nodes[0]).body[0]).params
    with pytest.raises(RenderError) as caught:
        params.render(Scope.of({}).child("d", {"x": [5]}))
    fault = caught.value.fault
    assert fault.message == "'text' must be text; this is a list."
    assert fault.remedy == 'Make text of it: `| tojson`, or `| join(", ")`.'
    assert fault.mark is not None
    assert fault.mark.line == 2
    with pytest.raises(RenderError, match=r"`text`: there is no 'x' here .* Known: 'y'\."):
        params.render(Scope.of({}).child("d", {"y": 5}))
    assert params.render(Scope.of({}).child("d", {"x": 5})).text == "5", "as in a longer text"


RESULTS = """\
steps:
  - id: each
    for_each: n in [1, 2]
    do: [{id: said, uses: prompt, with: {template: "{{ n }}"}}]
    RETURNS
  - id: more
    for_each: one in steps.each.results
    do: [{uses: prompt, with: {template: "{{ one.FIELD }}"}}]
  - id: page
    uses: prompt
    with:
      template: |
        {% for r in steps.each.results %}{{ r.FIELD }}{{ loop.index }}
        {%- for s in r.FIELD %}{{ s.more }}{% endfor %}{% endfor %}
        {{ steps.each.results[0].FIELD }} {{ (steps.each.results | last)['FIELD'] }}
returns: {all: "steps.each.results | map(attribute='FIELD') | list", n: steps.each.results | length}
"""


@pytest.mark.parametrize(
    ("returns", "field", "n_faults"),
    [
        ("returns: {kind: n, text: steps.said.text}", "kind", 0),
        ("returns: {kind: n, text: steps.said.text}", "kinnd", 3),
        ("", "text", 0),
        ("", "texts", 3),
        ("returns: n", "real", 0),
    ],
)
def test_what_is_read_of_a_blocks_results_is_checked(
    returns: str, field: str, n_faults: int
) -> None:
    text = RESULTS.replace("RETURNS", returns or "on_error: fail").replace("FIELD", field)
    known = "Known: 'kind', 'text'." if returns else "Known: 'text'."
    near = " Did you mean 'kind'?" if returns else " Did you mean 'text'?"
    sentence = f"the results of 'each' have no field '{field}'. {known}{near}"
    assert sentences(faults_of(text)) == [sentence] * n_faults


def test_a_rule_of_several_parameters_is_checked_unless_it_looks_at_what_only_a_run_knows() -> None:
    def found(given: str) -> list[str]:
        return sentences(
            faults_of(
                "models: {default: m}\ninputs: {it: {type: str}}\n"
                f"steps: [{{id: s, uses: summarise, with: {{text: x, {given}}}}}]"
            )
        )

    later = '"{{ inputs.it }}"'
    what = (
        "in 'with': nothing is written with `how: extract`, so that `style`, `instructions` would"
    )
    assert found(f"how: extract, style: {later}, instructions: a") == [
        f"{what} do nothing: remove it."
    ]
    assert found(f"how: {later}, style: {later}, instructions: a") == []


def test_what_stands_beside_an_expression_in_a_mapping_is_checked() -> None:
    scans = [
        "mailbox: {host: a, port: 70000, user: b, password: '{{ inputs.p }}', tsl: off}",
        "mailbox: {host: '{{ inputs.p }}', user: b, password: c, flag: d, move: E}",
        "listing: {url: '{{ inputs.p }}', hosts: [], contents: x}",
        "bucket: {url: 's3://b', options: {key: '{{ inputs.p }}'}, keeps: many}",
        "bucket: {url: '{{ inputs.p }}', options: 5}",
        "mailbox: '{{ inputs.p }}'",
    ]
    steps = "\n".join(f"  - {{uses: files.scan, with: {{root: r, {scan}}}}}" for scan in scans)
    assert messages(f"inputs: {{p: {{type: str, default: x}}}}\nsteps:\n{steps}\n") == [
        "'port' must be at most 65,535; it is '70000'.",
        "unknown key 'tsl'.",
        "in 'mailbox': give one of `flag` and `move`.",
        "'hosts' must not be empty.",
        "'keeps' must be a size such as 512MiB or 2GiB; it is 'many'.",
        "'options' must be a mapping; '5' is a whole number.",
    ]
