"""A context holds memory only while it can be used."""

from pathlib import Path
from typing import Any

import pytest

from paddock.engine.llama.library import LogRecording
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.llama_weights import ModelOptions
from tests.fakes import tiny


@pytest.mark.parametrize(("n_gpu_layers", "mode", "main"), [(0, 0, -1), (-1, 1, 0), (3, 1, 0)])
def test_a_model_of_the_processor_is_shown_no_graphics_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_gpu_layers: int, mode: int, main: int
) -> None:
    given: list[tuple[int, int]] = []
    load = Model._load

    def noted(self: Model, files: list[str], params: Any, recording: LogRecording) -> None:
        given.append((params.split_mode, params.main_gpu))
        load(self, files, params, recording)

    monkeypatch.setattr(Model, "_load", noted)
    Model(tiny.llama(tmp_path / "x.gguf"), ModelOptions(n_gpu_layers)).close()
    assert given == [(mode, main)]
