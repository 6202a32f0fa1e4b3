"""Models whose weights OpenVINO computes; their files give vocabulary, tokeniser and facts.

OpenVINO, which few machines have, is imported when one of them is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.gguf import read_header
from paddock.engine.llama.forward_context import ChatModel, EmbeddingModel, MemoryKind
from paddock.engine.llama.library import LoadFailed
from paddock.engine.llama.llama_context import ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.vocabulary import Vocabulary

from .encoder_context import EncoderContext
from .paged_context import PagedContext, SavedBlocks

if TYPE_CHECKING:
    from .encoder_model import EncoderModel
    from .paged_model import PagedModel


class IrModel(ChatModel[SavedBlocks]):
    is_paged = True

    def __init__(self, path: Path, ir: Path, n_threads: int) -> None:
        super().__init__(path)
        with _closed_if_it_fails(self):
            paged = importlib.import_module(f"{__package__}.paged_model")
            self._computer: PagedModel = paged.PagedModel(ir, n_threads)

    @property
    def memory(self) -> MemoryKind:
        return "cells"

    def open_context(self, options: ContextOptions) -> PagedContext:
        return PagedContext(self._computer, options)


class IrEncoder(EmbeddingModel):
    def __init__(self, path: Path, ir: Path, n_threads: int) -> None:
        super().__init__(path)
        with _closed_if_it_fails(self):
            encoder = importlib.import_module(f"{__package__}.encoder_model")
            is_first = encoder.pools_first(path)
            self._computer: EncoderModel = encoder.EncoderModel(ir, n_threads, pools_first=is_first)
        self.n_embedding = read_header(path).number("embedding_length")

    def open_context(self, options: ContextOptions) -> EncoderContext:
        return EncoderContext(self._computer, self.n_embedding, options)


WorkerModel = Model | IrModel | IrEncoder


@contextmanager
def _closed_if_it_fails(vocabulary: Vocabulary) -> Iterator[None]:
    """Raises `LoadFailed`: OpenVINO is not installed."""
    try:
        yield
    except ImportError as error:
        vocabulary.close()
        raise LoadFailed(f"OpenVINO is not installed: {error}") from error
    except BaseException:
        vocabulary.close()
        raise
