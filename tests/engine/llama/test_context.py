"""A context holds memory only while it can be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paddock.engine.llama.library import LoadFailed, lib
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import LoraAdapters, Model, ModelOptions
from tests.fakes import tiny


def test_a_context_that_takes_no_adapters_is_freed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(tiny.llama(tmp_path / "x.gguf"), ModelOptions(n_gpu_layers=0))
    given: list[Any] = []
    freed: list[Any] = []
    free = lib.llama_free

    def refuse(_: LoraAdapters, context: Any) -> None:
        given.append(context)
        raise LoadFailed("llama.cpp cannot use the adapters with this context")

    def noted(context: Any) -> None:
        freed.append(context)
        free(context)

    monkeypatch.setattr(LoraAdapters, "apply_to", refuse)
    monkeypatch.setattr(lib, "llama_free", noted)
    with pytest.raises(LoadFailed, match="cannot use the adapters"):
        Context(model, ContextOptions(256, 64, 1, 1))
    assert len(given) == 1 and freed == given
    model.close()
