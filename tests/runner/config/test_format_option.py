from pathlib import Path

import pytest

from paddock.runner.config.format_option import BadAnswerFormat, answer_format


def test_json_a_schema_and_a_file_are_formats(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('\ufeff{"type": "object"}', encoding="utf-8")
    assert answer_format("json") == "json"
    assert answer_format(' {"type": "array"}') == {"type": "array"}
    assert answer_format(str(file)) == {"type": "object"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no file '{}'.\n  Give 'json', or a file with a JSON Schema."),
        ("{", "'{}' is not JSON: "),
        ("[]", "'{}' is not a JSON Schema: it is no object."),
    ],
)
def test_what_is_none_is_told(tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "schema.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(BadAnswerFormat) as caught:
        answer_format(str(file))
    assert str(caught.value).startswith(words.format(file))
