"""A model whose weights OpenVINO computes; its file gives vocabulary, tokeniser and facts."""

from __future__ import annotations

import importlib
from pathlib import Path

from paddock.engine.llama.forward_context import ForwardContext
from paddock.engine.llama.library import LoadFailed
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model, ModelOptions

from .paged_context import PagedContext


class FormModel(Model):
    def __init__(self, path: Path, form: Path, n_threads: int) -> None:
        # Its weights are mapped, and never read
        super().__init__(path, ModelOptions(n_gpu_layers=0, uses_extra_buffers=False))
        try:
            self.paged = importlib.import_module(f"{__package__}.paged_model").PagedModel(
                form, n_threads
            )
        except ImportError as error:
            self.close()
            raise LoadFailed(f"OpenVINO is not installed: {error}") from error
        except BaseException:
            self.close()
            raise


def open_context(model: Model, options: ContextOptions) -> ForwardContext:
    """Raises `LoadFailed`: the context cannot be made."""
    if isinstance(model, FormModel):
        return PagedContext(model, model.paged, options)
    return Context(model, options)
