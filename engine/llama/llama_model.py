"""A model that llama.cpp computes: its weights, and the contexts over them."""

from __future__ import annotations

from .forward_context import ChatModel, EmbeddingModel, MemoryKind
from .library import lib
from .llama_context import Context, ContextOptions, SavedCells
from .llama_weights import LlamaWeights


class Model(LlamaWeights, ChatModel[SavedCells], EmbeddingModel):
    @property
    def memory(self) -> MemoryKind:
        """How the model remembers a sequence, see `MemoryKind`."""
        if lib.llama_model_is_recurrent(self.pointer) or lib.llama_model_is_hybrid(self.pointer):
            return "state"
        return "window" if lib.llama_model_n_swa(self.pointer) else "cells"

    def open_context(self, options: ContextOptions) -> Context:
        return Context(self, options)
