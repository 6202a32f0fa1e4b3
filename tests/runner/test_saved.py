from pathlib import Path

import pytest

from paddock.pipelines import yaml_source
from paddock.runner.api import validate
from paddock.runner.cli.commands.summarise import SummaryRequest, needs_inputs, pipeline_text

HERE = Path("/home/me/work")


def test_folders_next_to_the_file_are_defaults_and_others_must_be_given() -> None:
    wish = SummaryRequest(
        HERE / "inbox", HERE / "out", words=40, model="qwen3:0.6b", include="*.md"
    )
    inputs = yaml_source.parse_yaml(pipeline_text(wish, HERE), "x.yaml").data["inputs"]
    assert (inputs["folder"]["default"], inputs["out"]["default"]) == ("./inbox", "./out")
    assert not needs_inputs(wish, HERE)
    inputs = yaml_source.parse_yaml(pipeline_text(wish, HERE / "out"), "x.yaml").data["inputs"]
    assert (inputs["folder"].get("default"), inputs["out"]["default"]) == (None, ".")
    assert inputs["folder"]["required"] is True
    assert needs_inputs(wish, HERE / "out")


@pytest.mark.parametrize(
    "name",
    ["in box", "it's", 'a "b"', "{{ 7*7 }}", "{% x %}", "a: b #c", "ü中", "-", "\udcff\n", "*"],
)
def test_whatever_a_folder_is_called_the_file_is_valid(tmp_path: Path, name: str) -> None:
    model = f"{name}:1b" if "\udcff" not in name else ""
    wish = SummaryRequest(tmp_path / name, tmp_path / "out" / name, model=model)
    file = tmp_path / "saved.yaml"
    file.write_text(pipeline_text(wish, tmp_path), encoding="utf-8")
    data = yaml_source.read_yaml(file).data
    assert validate(file).faults == ()
    if model:
        assert data["inputs"]["folder"]["default"] == f"./{name}"
        assert data["models"]["writer"]["ref"] == model
    else:
        assert data["inputs"]["folder"]["required"], "bytes that are no text stand in no YAML"
