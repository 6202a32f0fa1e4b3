"""What tests claim, checked before anything runs: each fault at its place."""

from pathlib import Path

from paddock.runner.api import validate

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


def test_a_conversation_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.prompt.yml").write_text("messages: [{role: user, content: hi}]\n")
    file = tmp_path / "pipeline.yaml"
    file.write_text("steps: [{uses: prompt, with: {template: {file: a.prompt.yml}}}]\n")
    (fault,) = validate(file).faults
    assert (fault.message, fault.remedy) == (
        "`template` of step 'prompt' takes a text, no whole conversation.",
        "`prompt` of 'chat' takes a .prompt.yml.",
    )
