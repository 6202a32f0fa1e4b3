"""Stores, weights to make models from, and a server to pull from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.model_store import ModelStore
from tests.engine.models.pulling import a_store
from tests.fakes.far_side import FarSide, far_side
from tests.fakes.gguf import LLAMA, write_gguf
from tests.fakes.one_layer import write_one_layer


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
    write_one_layer(path, "F16")
    return path


@pytest.fixture
def far() -> Iterator[FarSide]:
    with far_side() as side:
        yield side


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return a_store(tmp_path)
