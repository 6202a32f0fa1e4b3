"""What `reply` asks for and cannot be had is refused before anything runs, at its place."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from paddock.engine import trial_process
from paddock.engine.sampling import constraint_trials
from paddock.pipelines import yaml_source
from paddock.pipelines.errors import Fault
from paddock.pipelines.model import StepNode, parse_pipeline
from paddock.pipelines.reply_schema import read_reply_schema
from paddock.pipelines.validation import FaultCollector
from paddock.runner.api import validate
from paddock.runner.bind.checks import reply_faults
from tests.runner.bind import pipeline_faults


def faults(schema: str, base: Path = Path()) -> list[Fault]:
    """Return what is wrong with the schema of a step's reply."""
    return schema_faults(f"{{uses: chat, reply: {{schema: {schema}}}}}", base)


def schema_faults(step: str, base: Path) -> list[Fault]:
    document = yaml_source.parse_yaml(f"steps: [{step}]", str(base / "news.yaml"))
    (node,) = parse_pipeline(document).steps
    assert isinstance(node, StepNode)
    checks = FaultCollector(document)
    reply_faults.check_answer_keys(node, None, checks)
    return list(checks.faults)


def test_a_keyword_that_cannot_be_kept_is_told_by_its_pointer_and_place() -> None:
    schema = "{type: object, properties: {tags: {type: array, uniqueItems: true}}}"
    assert [fault.render() for fault in faults(schema)] == [
        "news.yaml:1:86: `reply.schema`, at /properties/tags/uniqueItems: `uniqueItems` "
        "cannot be enforced while the answer is generated.\n"
        "       1 | steps: [{uses: chat, reply: {schema: {type: object, properties: {tags: "
        "{type: array, uniqueItems: true}}}}}]\n"
        f"         | {' ' * 85}^^^^^^^^^^^\n"
        "  Remove it, and check the answer afterwards."
    ]


def test_what_the_decoder_cannot_compile_is_told_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trial_process, "BRIEF_S", math.inf)
    monkeypatch.setattr(trial_process, "TRIAL_WALL_S", 600)
    (fault,) = faults("{type: integer, multipleOf: 999983, minimum: 1}")
    assert (fault.message, fault.remedy) == (
        "`reply.schema`: the JSON Schema cannot be used: it is too large or too complex.",
        "Ask for less in one answer, or look at it afterwards with `check`.",
    )


def test_a_sound_form_has_no_fault_and_a_step_without_one_neither() -> None:
    assert faults('{title: str, points: "list[str]"}') == []
    for step in ("{uses: chat}", "{uses: chat, reply: 3}"):
        assert schema_faults(step, Path()) == []


def faults_of(
    reply: str, uses: str = "chat", after: str = "", given: str = "prompt: x"
) -> list[str]:
    """Return what is wrong with a file whose step has this `reply`."""
    text = f"steps:\n  - {{id: a, uses: {uses}, with: {{{given}}}, reply: {reply}}}\n{after}"
    return pipeline_faults.sentences(pipeline_faults.faults_of(text))


FUNCTIONS = (
    "Known: 'cites', 'contains', 'differs', 'is_date', 'is_email', 'is_url', 'lacks', 'language', "
    "'located', 'matches', 'numbers_found', 'one_of', 'quotes', 'sentences', 'unique', 'words'."
)


def test_a_check_that_cannot_work_is_told_before_anything_runs() -> None:
    assert faults_of('{check: "wrods(text) < 3"}') == [
        f"`check`: there is no check function 'wrods'. {FUNCTIONS} Did you mean 'words'?"
    ]
    assert faults_of('{check: "words(text, mots=3)"}') == [
        "`check`: `words`: got an unexpected keyword argument 'mots'. "
        "It takes `value`, `least`, `most`."
    ]
    assert faults_of("{check: text == tone}") == [
        "'tone' is not known here. Known: 'evidence', 'inputs', 'now', "
        "'output', 'steps', 'text', 'today'."
    ]
    assert faults_of('{check: "numbers_found(text, source=steps.b.text)"}') == [
        "there is no step 'b'. Known: 'a'."
    ]


def test_a_field_that_an_answer_never_has_is_told_with_those_that_it_has() -> None:
    assert faults_of('{schema: {title: str}, check: output.titel != ""}') == [
        "`check`: the answer has no field 'titel'. Known: 'title'. Did you mean 'title'?"
    ]
    assert faults_of('{check: output.title != ""}') == [
        "`check` reads `output`, which is null without a `schema`. Add `schema`, or look at `text`."
    ]
    after = '  - {uses: chat, with: {prompt: "{{ steps.a.output.titel }}"}}'
    assert faults_of("{schema: {title: str}}", after=after) == [
        "the answer of step 'a' has no field 'titel'. Known: 'title'. Did you mean 'title'?"
    ]


def test_a_schema_that_never_ends_is_told_at_its_place_and_one_that_may_end_is_sound() -> None:
    chain = '{type: object, properties: {next: {$ref: "#"}}, required: [next]}'
    assert faults_of(f"{{schema: {chain}}}") == [
        "`reply.schema`, at /properties/next/$ref: no answer can end: each one must contain "
        "another. Leave it out of `required`, or allow `null`."
    ]
    tree = (
        '{type: object, properties: {parts: {type: array, items: {$ref: "#"}}}, required: [parts]}'
    )
    assert faults_of(f"{{schema: {tree}}}") == []


TEXT = """\
models: {vec: {ref: all-minilm, role: embed}}
inputs: {tone: plain}
steps: [{id: a, uses: prompt, with: {template: hi}}]
returns: steps.a.text
tests:
  - name: one
    inputs: {tune: 1}
    expect:
      - {check: "wrods(text, 3)"}
      - {check: "words(text, least=1, mots=3)"}
      - {similar: x, model: vex}
      - {judge: x, model: vec}
      - {schema: {a: strr}}
      - {exists: "{{ inputs.q }}"}
      - {check: "return.n == 1"}
      - {of: "returns[", equals: 1}
"""


def test_every_fault_of_a_test_has_its_place(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(TEXT)
    faults = [(f.mark.line if f.mark else 0, f.message) for f in validate(file).faults]
    assert faults == [
        (7, "test 'one' gives the input 'tune', which the pipeline does not have."),
        (9, "`check`: there is no check function 'wrods'."),
        (10, "`check`: `words`: got an unexpected keyword argument 'mots'."),
        (11, "`similar`: there is no model 'vex' under `models`."),
        (12, "`judge` needs a model of the role 'chat', and 'vec' has 'embed'."),
        (13, "`schema`: 'strr' is not a type."),
        (14, "there is no input 'q'."),
        (15, "'return' is not known here."),
        (16, "cannot read the expression 'returns[': unexpected 'the end'."),
    ]


def test_a_schema_is_compiled_in_a_process_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    schema = "{type: string, pattern: (?=a)b}"
    file.write_text(
        f"steps: [{{uses: chat, with: {{prompt: x}}, reply: {{schema: {schema}}}}}]", "utf-8"
    )
    code = (
        "import sys; from paddock.runner.api import validate; "
        f"print(len(validate({str(file)!r}).faults), 'llguidance' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["1", "False"]


_SCALARS = ("str", "int", "float", "bool", "date", "enum[low, 'a, b']")
_TYPES = [*_SCALARS, *(f"list[{kind}]" for kind in _SCALARS), "list[list[str]]"]


@pytest.mark.parametrize(
    "written",
    [
        {f"f{number}": kind for number, kind in enumerate(_TYPES)},
        {f"f{number}": f"{kind}?" for number, kind in enumerate(_TYPES)},
        {f"f{number}": "date?" for number in range(40)},
        {"a": f"enum[{', '.join(f'v{number}' for number in range(400))}]"},
        {"a": "list[" * 40 + "str" + "]" * 40},
        json.loads('{"a": ' * 40 + '"str"' + "}" * 40),
        json.loads("[" * 40 + '"str"' + "]" * 40),
    ],
)
def test_a_small_short_form_starts_no_process_which_would_have_nothing_to_say(
    written: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_process, "TRIAL_WALL_S", 600)
    source = json.dumps(read_reply_schema(written, Path()).schema)
    assert len(source) <= reply_faults.SMALL_SHORT_FORM_CHARACTERS
    assert constraint_trials.schema_problems(source, compiles=True) == ()
    monkeypatch.setattr(constraint_trials, "ConstraintTrials", None)
    constraint_trials.schema_problems.cache_clear()
    assert faults(json.dumps(written)) == []


def test_a_short_form_that_is_nested_too_deep_is_a_fault() -> None:
    assert "deep" in faults(json.dumps({"a": "list[" * 130 + "str" + "]" * 130}))[0].message
