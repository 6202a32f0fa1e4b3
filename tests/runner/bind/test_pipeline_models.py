"""The models that a pipeline names, and the pools that serve them elsewhere."""

from pathlib import Path
from typing import Any

from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind
from paddock.runner.bind.bound import BoundPlan

TEXT = """\
inputs: {gpu: {default: "http://gpu-1:8000"}}
secrets: {key: {env: KEY}}
models:
  here: a.gguf
  one: {ref: a.gguf, pool: {url: "{{ inputs.gpu }}/v1", key: "{{ secrets.key }}"}}
  two: {ref: b, pool: {url: ["http://gpu-1:8000"], key: "{{ secrets.key }}"}}
  other: {ref: b, pool: {url: ["http://gpu-1:8000", "http://GPU-1:8000/v1/", "http://gpu-2"]}}
  hub: "hf:team/Mini-GGUF/mini-Q8_0.gguf"
  chosen: "hf:team/Mini-GGUF"
  counted: {ref: b, pool: {url: "http://gpu-2", tokenizer: t.gguf}}
steps: [{uses: chat, with: {model: here, prompt: x}}]
"""


def bound(folder: Path, **inputs: Any) -> BoundPlan:
    (folder / "p.yaml").write_text(TEXT)
    return bind(read_plan(folder / "p.yaml"), inputs, cwd=folder, default_models={})


def test_models_with_the_same_servers_and_key_share_a_pool(tmp_path: Path) -> None:
    made = bound(tmp_path)
    assert {name: spec.pool for name, spec in made.models.items()} == {
        "here": "", "one": "one", "two": "one", "other": "other", "hub": "", "chosen": "",
        "counted": "counted",
    }  # fmt: skip
    assert {name: pool.urls for name, pool in made.pools.items()} == {
        "one": ("http://gpu-1:8000",),
        "other": ("http://gpu-1:8000", "http://gpu-2"),
        "counted": ("http://gpu-2",),
    }


def test_only_a_file_of_this_machine_is_looked_for_next_to_the_yaml(tmp_path: Path) -> None:
    made = bound(tmp_path)
    assert made.models["here"].ref == str(tmp_path / "a.gguf")
    assert made.models["one"].ref == "a.gguf"
    assert made.pools["counted"].tokenizer == str(tmp_path / "t.gguf")


def test_a_model_of_a_hub_has_the_name_that_it_gets_when_it_is_pulled(tmp_path: Path) -> None:
    made = bound(tmp_path)
    assert made.models["hub"].ref == "hf.co/team/Mini-GGUF:Q8_0"
    assert made.models["chosen"].ref == "hf.co/team/Mini-GGUF:latest"


def test_an_address_may_be_an_input(tmp_path: Path) -> None:
    made = bound(tmp_path, gpu="http://gpu-9:1")
    assert made.pools["one"].urls == ("http://gpu-9:1",)
    assert made.models["two"].pool == "two"
