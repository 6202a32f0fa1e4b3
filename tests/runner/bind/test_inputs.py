from pathlib import Path

import pytest

from paddock.runner.bind import inputs
from tests.pipelines.checked import checked_pipeline

PIPELINE = "inputs: {folder: {type: dir}}\nsteps: [{uses: prompt, with: {template: x}}]"


def folder_of(value: str, tmp_path: Path) -> str:
    pipeline = checked_pipeline(PIPELINE, "news.yaml")
    read = inputs.read_inputs(pipeline, {"folder": value}, base=tmp_path, cwd=tmp_path)
    assert read.faults == []
    assert read.opened == [Path(read.values["folder"])]
    return str(read.values["folder"])


def test_a_callers_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert folder_of("~/papers", tmp_path) == str(tmp_path / "home" / "papers")
    assert folder_of("papers/~", tmp_path) == str(tmp_path / "papers" / "~")


def test_thousands_of_unknown_inputs_are_twenty_names_and_a_count() -> None:
    pipeline = checked_pipeline(PIPELINE, "news.yaml")
    given = {"folder": ".", **{f"odd{number}": "x" for number in range(3_000)}}
    faults = inputs.read_inputs(pipeline, given, base=Path(), cwd=Path()).faults
    assert len(faults) == 21
    assert faults[0].message == "the pipeline has no input 'odd0'."
    assert faults[-1].message == "the pipeline has none of 2,980 more inputs either."
