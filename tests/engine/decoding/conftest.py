"""The models of some kilobytes, loaded in the test's own process."""

from collections.abc import Callable, Iterator

import pytest

from paddock.engine.gguf import read_header
from paddock.engine.llama.library import route_llama_log
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.llama_weights import ModelOptions
from tests.fakes import tiny


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Model]]:
    """Yield what returns a model by the name of its writer, and loads it once."""
    route_llama_log()
    folder = tmp_path_factory.mktemp("tiny")
    models: dict[str, Model] = {}

    def loaded(kind: str) -> Model:
        if kind not in models:
            path = getattr(tiny, kind)(folder / f"{kind}.gguf")
            options = ModelOptions(n_gpu_layers=0, loads_mtp=read_header(path).has_mtp)
            models[kind] = Model(path, options)
        return models[kind]

    yield loaded
    for model in models.values():
        model.close()
