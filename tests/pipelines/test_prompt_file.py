"""Conversations in files: each message a template, every fault at its line."""

from pathlib import Path

import pytest

from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.prompt_file import ConversationTemplate, read_template_file

TEXT = """\
# Two messages
- {role: system, content: Be brief.}
- role: user
  content: "Sum up {{ input | upper }}, as {% if 1 %}asked{% endif %}"
"""


def conversation(folder: Path, text: str, name: str = "a.messages.yaml") -> ConversationTemplate:
    (folder / name).write_text(text)
    found = read_template_file(folder, name)
    assert isinstance(found, ConversationTemplate)
    return found


def test_each_message_is_a_template_over_the_same_scope(tmp_path: Path) -> None:
    made = conversation(tmp_path, TEXT).bound({"input": "this"})
    turns = [(role, template.render()) for role, template in made.turns]
    assert turns == [("system", "Be brief."), ("user", "Sum up THIS, as asked")]
    assert made.references == {("input",)}


def test_roles_and_contents_decide_an_answer_and_layout_does_not(tmp_path: Path) -> None:
    same = TEXT.replace("# Two messages\n", "").replace("{role: system, ", "{'role': system,  ")
    others = TEXT.replace("brief", "short"), TEXT.replace("role: user", "role: assistant")
    sources = [conversation(tmp_path, text).source for text in (TEXT, same, *others)]
    assert sources[0] == sources[1]
    assert len(set(sources)) == 3


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "in the file 'a.messages.yaml'"),
        ("messages: []", ", line 1: a list of messages is missing"),
        ("[]", ", line 1: a list of messages is missing"),
        ("- {role: robot, content: x}", ", line 1: 'role' cannot be 'robot'"),
        ("- {role: user, content: x}\n- {role: user}", ", line 2: the key 'content' is missing"),
        ("- Sum up {{ x }}", ", line 1: "),
        ("- {role: user, content: x, text: y}", ", line 1: unknown key 'text'"),
        ("- {role: user, content: '{{ x'}", ", line 1: "),
        ("- {role: user, content: 7}", ", line 1: 'content' must be text"),
        ("- [", ", line"),
    ],
)
def test_a_fault_has_its_line(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        conversation(tmp_path, text)
    assert fault in caught.value.message


@pytest.mark.parametrize("name", ["a.prompt.yml", "deep/b.Prompt.yaml"])
def test_the_form_of_github_models_is_refused_with_the_form_to_write(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ExpressionError) as caught:
        read_template_file(tmp_path, name)
    assert f"'{name}' is in the form of GitHub Models" in caught.value.message
    own = "'a.messages.yaml'" if name.startswith("a") else "'deep/b.messages.yaml'"
    assert own in caught.value.remedy


def test_another_yaml_file_is_one_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TEXT)
    assert not isinstance(read_template_file(tmp_path, "a.yaml"), ConversationTemplate)
