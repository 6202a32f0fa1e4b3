"""The bundled model, loaded in the test's own process, and one that says noise."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.engine.llama import library
from paddock.engine.llama.llama_model import Model
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ModelSpec
from tests.fakes import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    library.route_llama_log()
    home = tmp_path_factory.mktemp("models")
    loaded = Model(Path(ModelFinder(home, home).find("smollm2:135m").path))
    yield loaded
    loaded.close()


@pytest.fixture
def noise(tmp_path: Path) -> ModelSpec:
    """Return a model of some kilobytes: what it says is no part of the claims."""
    return ModelSpec(str(tiny.llama(tmp_path / "noise.gguf")), n_ctx_tokens=2048)
