"""The template for a coding assistant: valid itself, and complete."""

import re
from pathlib import Path

from paddock.engine.request import ChatRequest
from paddock.pipelines.filters import FILTERS
from paddock.pipelines.keys import FileKeys, SamplingParams, StepKeys
from paddock.pipelines.pipeline_tests import EXPECTATION_KEYS
from paddock.runner.api import validate
from paddock.steps import registry
from tests.fakes.pool import FakePool
from tests.runner.cli.commands.shell import invoke
from tests.runner.world import World


def test_the_template_is_valid_and_tells_every_step(tmp_path: Path) -> None:
    result = invoke("schema", "--for", "llm")
    assert result.exit_code == 0
    file = tmp_path / "template.yaml"
    file.write_text(result.stdout, encoding="utf-8")
    assert validate(file).faults == ()
    for name in registry.step_names():
        assert f"\n# {name}: " in result.stdout
    steps = registry.load_all_steps()[0].items()
    assert not [name for name, step in steps if not vars(step)["__doc__"]]
    assert "#   words(value, least, most): " in result.stdout
    assert "#   calculator(expression): " in result.stdout
    assert "\n#   exactly one of text, chunks, file\n" in result.stdout
    assert "\n#   gives files (each path relpath name stem suffix size " in result.stdout
    words = set(re.findall(r"\w+", result.stdout.partition("\n\n")[0]))
    fields = (FileKeys, StepKeys, SamplingParams)
    keys = {info.alias or name for model in fields for name, info in model.model_fields.items()}
    assert {*keys, *EXPECTATION_KEYS, *FILTERS} - words == {"num_predict"}, (
        "an alias that need not be told"
    )
    assert max(map(len, result.stdout.splitlines())) <= 100
    template, title, page = result.stdout.partition("\n# # For a coding assistant\n")
    assert len(template) < 26_000, "an assistant reads it with each task"
    assert title and "paddock plan FILE --json" in page


def test_its_pipeline_runs_also_where_a_step_is_skipped(tmp_path: Path) -> None:
    result = invoke("schema", "--for", "llm")
    (tmp_path / "inbox").mkdir()
    for name in ("boats", "nothing"):
        (tmp_path / "inbox" / f"{name}.txt").write_text(f"About {name}.")

    def answer(request: ChatRequest) -> str:
        if request.constraint is None:
            return "A text."
        points = '["They float."]' if "boats" in request.messages[-1].content else "[]"
        return f'{{"title": "Boats", "points": {points}, "kind": "letter", "year": null}}'

    pool = FakePool(answer=answer)
    report = World(tmp_path, result.stdout, name="template.yaml").run(pool=pool)
    assert (report.status, report.exit_status()) == ("completed", 0), report.message
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "DIGEST.md", "boats.txt.md",
    ]  # fmt: skip
