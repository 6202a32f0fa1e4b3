"""A store with its finder, and weights to make models from."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile import trial_models
from tests.fakes.gguf import LLAMA, write_gguf


@pytest.fixture
def finder(tmp_path: Path) -> ModelFinder:
    return ModelFinder(tmp_path / "models", tmp_path / "cache")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "m.gguf", {**LLAMA, "general.file_type": 1}, kind=1)


@pytest.fixture
def loadable(tmp_path: Path) -> Path:
    """A model of one layer that llama.cpp can read, in F16."""
    path = tmp_path / "trial.gguf"
    trial_models.write_trial_model(path, "F16")
    return path
