"""Ollama's `options`: their types, their ranges, and those that mean nothing here; its names."""

from typing import Any

import pytest

from paddock.engine.api.errors import ApiError
from paddock.engine.api.ollama.options import default_sampling, read_options
from paddock.engine.api.ollama.requests import parse_go_duration, possible_refs
from paddock.engine.errors import InvalidName
from paddock.engine.models.model_names import parse_name
from paddock.engine.request import resolve_sampling


@pytest.mark.parametrize(
    ("options", "params"),
    [
        ({}, {}),
        ({"temperature": 0, "top_k": 40.0}, {"temperature": 0.0, "top_k": 40}),
        ({"num_predict": 12}, {"max_tokens": 12}),
        ({"num_predict": -1}, {"max_tokens": -1}),
        ({"num_predict": -2}, {"max_tokens": -1}),
        ({"num_predict": 0}, {"max_tokens": -1}),
        ({"num_predict": 12.9}, {"max_tokens": 12}),
        ({"seed": -1}, {}),
        ({"seed": 7}, {"seed": 7}),
        ({"seed": 2**70}, {"seed": 2**64 - 1}),
        ({"stop": ["END", ""]}, {"stop": ("END",)}),
        ({"stop": None, "top_p": None}, {}),
        ({"temperature": -1, "top_p": 3, "min_p": -2}, {"temperature": 0, "top_p": 1, "min_p": 0}),
        ({"repeat_penalty": 0}, {"repeat_penalty": 1.0}),
        ({"mirostat": 2, "mirostat_tau": 5, "tfs_z": 1, "penalize_newline": True}, {}),
        ({"numa": False, "low_vram": True, "f16_kv": True, "use_mlock": False}, {}),
        ({"num_gpu": 99, "main_gpu": 0, "num_thread": 4, "num_batch": 512}, {}),
        ({"guards_repetition": False}, {"guards_repetition": False}),
        ({"what": "ever", "Temperature": 1}, {}),
    ],
)
def test_options_become_sampling_values_within_their_ranges(
    options: dict[str, Any], params: dict[str, Any]
) -> None:
    read = read_options(options)
    assert read.params == params
    resolve_sampling(read.params, default_sampling())


@pytest.mark.parametrize(
    ("n", "on_processor"), [(0, True), (0.0, True), (-1, False), (99, False), (None, None)]
)
def test_without_layers_on_the_device_a_model_moves_to_the_processor(
    n: Any, on_processor: bool | None
) -> None:
    assert read_options({"num_gpu": n}).on_processor is on_processor


def test_a_name_may_say_that_the_model_is_here() -> None:
    def read(model: str) -> str:
        return parse_name(model).short

    assert possible_refs(read, "a") == ["a:latest"]
    assert possible_refs(read, "a:local") == ["a:local", "a:latest"]
    assert possible_refs(read, "a:7b:local") == ["a:7b"]
    assert possible_refs(read, "") == []
    with pytest.raises(InvalidName):
        possible_refs(read, ":local")


def test_a_duration_has_not_a_million_parts() -> None:
    assert parse_go_duration("1s" * 500) == 500
    with pytest.raises(ApiError, match="time: invalid duration"):
        parse_go_duration("1s" * 2_000_000)
