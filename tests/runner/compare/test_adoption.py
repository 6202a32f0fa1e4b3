"""A variant is written into the file as a person would: in place, with all comments."""

import json
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.plan import read_plan
from paddock.pipelines.yaml_source import parse_yaml
from paddock.runner.bind.variations import changed, variants_of
from paddock.runner.compare.adoption import CannotAdopt, adopted_text
from tests.runner.compare.bills import BILLS, varied

TEXT = """\
# what it is for
models: {clerk: small}   # one line
steps:
  - id: bill   # the step
    uses: chat
    with:
      model: clerk
      prompt: {file: a.md}   # the best so far
      # below
"""


def adopted(text: str, folder: Path, **options: list[str]) -> str:
    file = folder / "pipeline.yaml"
    plan = read_plan(file, text)
    (variant,) = variants_of(varied(**options), plan.pipeline)
    return adopted_text(text, str(file), variant, plan.pipeline.document.data)


def lines_changed(before: str, after: str) -> list[str]:
    old = before.splitlines()
    return [line for line in after.splitlines() if line not in old]


def test_values_are_replaced_in_place_and_comments_stay(tmp_path: Path) -> None:
    new = adopted(
        BILLS,
        tmp_path,
        models=["clerk=qwen3:8b"],
        prompts=["bill=prompts/b.md"],
        settings=["bill.params.max_tokens=90", "bill.reply.repair=2"],
    )
    assert lines_changed(BILLS, new) == [
        "  clerk: {ref: qwen3:8b, ctx: 2k}   # the clerk",
        "          prompt: {file: prompts/b.md}   # the best so far",
        "          params: {max_tokens: 90}",
        "          repair: 2",
    ]


def test_what_is_not_there_yet_is_added_where_it_belongs(tmp_path: Path) -> None:
    options = {
        "models": ["clerk=a:1b"],
        "settings": ["bill.params.temperature=0.7", "bill.cache=off"],
    }
    new = adopted(TEXT, tmp_path, **options)
    assert new == (
        "# what it is for\n"
        "models: {clerk: a:1b}   # one line\n"
        "steps:\n"
        "  - id: bill   # the step\n"
        "    uses: chat\n"
        "    with:\n"
        "      model: clerk\n"
        "      prompt: {file: a.md}   # the best so far\n"
        "      params: {temperature: 0.7}\n"
        "    cache: off\n"
        "      # below\n"
    )


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "step",
    [
        "{id: bill, uses: chat, with: {prompt: hi}}",
        "{id: bill, uses: chat, with: {prompt: hi, params: {}}}",
        "{id: bill, uses: chat, with: {prompt: hi, params: {temperature: 1, seed: 3}}}",
        "id: bill\n    uses: chat\n    with:\n      prompt: |\n        two\n        lines\n\n"
        "      # a comment",
        "id: bill\n    uses: chat\n    with:\n      params:\n        seed: 3   # why\n"
        "      prompt: >-\n        folded\n        text",
        "uses: chat\n    with: {prompt: 'it''s'}\n    id: bill",
    ],
)
def test_the_new_text_holds_the_variant_and_nothing_else(
    tmp_path: Path, step: str, end: str
) -> None:
    text = f"models:\n  clerk: small\nsteps:\n  - {step}\n# the end\n".replace("\n", end)
    (tmp_path / "b.md").write_text("b")
    options: dict[str, Any] = {
        "models": ["clerk=hf:a/b/c.gguf"],
        "prompts": ["bill=b.md"],
        "settings": ["bill.params.temperature=0.5", "bill.system=a: b # c"],
    }
    new = adopted(text, tmp_path, **options)
    (variant,) = variants_of(
        varied(**options), read_plan(tmp_path / "pipeline.yaml", text).pipeline
    )
    assert parse_yaml(new, "").data == changed(parse_yaml(text, "").data, variant.changes)
    assert new.count("#") - text.count("#") == 1
    assert new.endswith(f"# the end{end}")
    json.dumps(parse_yaml(new, "").data)


def test_a_file_that_was_changed_during_the_comparison_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    plan = read_plan(file, BILLS)
    (variant,) = variants_of(varied(prompts=["bill=prompts/b.md"]), plan.pipeline)
    other = "      - {id: lang, uses: chat, with: {model: clerk, prompt: {file: prompts/a.md}}}\n"
    moved = BILLS.replace("      - id: bill\n", f"{other}      - id: bill\n")
    for text in (moved, "steps: ["):
        with pytest.raises(CannotAdopt, match="was changed while its variants were compared"):
            adopted_text(text, str(file), variant, plan.pipeline.document.data)
