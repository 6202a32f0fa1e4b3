"""Template files: a stranger's folder may hold anything, and nothing of it leaves the sandbox."""

from pathlib import Path

import pytest

from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.prompt_file import read_template_file

SCOPE = {"steps": {"text": {"text": "A letter.", "skipped": False}}, "inputs": {"tone": "dry"}}


def rendered(folder: Path, text: str) -> str:
    (folder / "prompt.j2").write_text(text, encoding="utf-8")
    return read_template_file(folder, "prompt.j2").bound(SCOPE).render()


def test_a_template_file_sees_the_scope_and_nothing_else(tmp_path: Path) -> None:
    assert rendered(tmp_path, "{{ steps.text.text }} ({{ inputs.tone }})") == "A letter. (dry)"


@pytest.mark.parametrize(
    "text",
    [
        "{{ steps.text.text.format.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{% extends 'pipeline.yaml' %}",
        "{{ secrets.key }}",
        "{{ 'a' * 10 ** 10 }}",
        "{% for a in range(10 ** 9) %}{% for b in range(10 ** 9) %}x{% endfor %}{% endfor %}",
    ],
)
def test_a_strangers_template_cannot_reach_further(tmp_path: Path, text: str) -> None:
    with pytest.raises(ExpressionError):
        rendered(tmp_path, text)
