from pathlib import Path

from paddock.pipelines.prompt_file import ConversationTemplate, read_template_file

TEXT = """\
modelParameters: {temperature: 0.5}
messages: [{role: system, content: Be brief.}, {role: user, content: "Sum up {{input}}"}]
"""


def test_each_message_is_a_template_over_the_same_scope(tmp_path: Path) -> None:
    (tmp_path / "a.prompt.yml").write_text(TEXT)
    made = read_template_file(tmp_path, "a.prompt.yml").bound({"input": "this"})
    assert isinstance(made, ConversationTemplate)
    told = [(role, template.render()) for role, template in made.turns]
    assert told == [("system", "Be brief."), ("user", "Sum up this")]
    assert made.params == {"temperature": 0.5}
    assert made.references == {("input",)}


def test_what_decides_an_answer_is_in_its_source(tmp_path: Path) -> None:
    sources = []
    for text in (TEXT, TEXT + "testData: [{input: x}]\n", TEXT.replace("0.5", "0.6")):
        (tmp_path / "a.prompt.yml").write_text(text)
        sources.append(read_template_file(tmp_path, "a.prompt.yml").source)
    assert sources[0] == sources[1], "tests decide no answer"
    assert sources[0] != sources[2]
