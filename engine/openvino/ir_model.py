"""A model whose weights OpenVINO computes; its file gives vocabulary, tokeniser and facts."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, cast

from paddock.engine.gguf import read_header
from paddock.engine.llama.forward_context import ForwardContext
from paddock.engine.llama.library import LoadFailed
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model, ModelOptions

from .encoder_context import EncoderContext
from .paged_context import PagedContext


class IrModel(Model):
    def __init__(self, path: Path, ir: Path, n_threads: int) -> None:
        super().__init__(path, ModelOptions(n_gpu_layers=0, is_vocabulary=True))
        header = read_header(path)
        self.is_embedder = header.role == "embed"
        self._n_embedding = header.number("embedding_length")
        try:
            self.computer: Any = _computer(path, ir, n_threads, self.is_embedder)
        except ImportError as error:
            self.close()
            raise LoadFailed(f"OpenVINO is not installed: {error}") from error
        except BaseException:
            self.close()
            raise

    @property
    def n_embedding(self) -> int:
        return self._n_embedding


def open_context(model: Model, options: ContextOptions) -> ForwardContext:
    """Raises `LoadFailed`: the context cannot be made."""
    if not isinstance(model, IrModel):
        return Context(model, options)
    if model.is_embedder:  # its users ask for nothing that has to do with cells
        return cast("ForwardContext", EncoderContext(model, model.computer, options))
    return PagedContext(model, model.computer, options)


def _computer(path: Path, ir: Path, n_threads: int, is_embedder: bool) -> Any:
    if is_embedder:
        encoder = importlib.import_module(f"{__package__}.encoder_model")
        return encoder.EncoderModel(ir, n_threads, pools_first=encoder.pools_first(path))
    return importlib.import_module(f"{__package__}.paged_model").PagedModel(ir, n_threads)
