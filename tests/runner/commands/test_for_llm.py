"""The template for a coding assistant: valid itself, and complete."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from paddock.runner.cli import application
from paddock.runner.verbs import validate
from paddock.steps import registry


def test_the_template_is_valid_and_tells_every_step(tmp_path: Path) -> None:
    told = CliRunner().invoke(application("schema"), ["schema", "--for", "llm"])
    assert told.exit_code == 0
    file = tmp_path / "template.yaml"
    file.write_text(told.stdout, encoding="utf-8")
    assert validate(file).faults == ()
    for name in registry.names():
        assert f"\n# {name}: " in told.stdout
    assert "#   words(value, least, most): " in told.stdout
    assert "#   calculator(expression): " in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 100
    assert len(told.stdout) < 24_000, "an assistant reads it with each task"
