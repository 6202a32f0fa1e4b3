"""LoRA adapters: small matrices laid over a model's weights while it computes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from .faults import LoadFailed
from .library import lib
from .log import Recording


class Adapters:
    """The adapters of one model, in their order. llama.cpp frees them with the model."""

    def __init__(self, model: Any, paths: Sequence[str], said: Recording) -> None:
        self._pointers = [_loaded(model, path, said) for path in paths]

    def lay_over(self, context: Any) -> None:
        """Let a context compute with all of them, each at its own strength."""
        n = len(self._pointers)
        if not n:
            return
        pointers = (lib.llama_adapter_lora_p_ctypes * n)(
            *(ctypes.cast(one, lib.llama_adapter_lora_p_ctypes) for one in self._pointers)
        )
        scales = (ctypes.c_float * n)(*[1.0] * n)
        if lib.llama_set_adapters_lora(context, pointers, n, scales) != 0:
            raise LoadFailed("llama.cpp cannot use the adapters with this context")


def _loaded(model: Any, path: str, said: Recording) -> Any:
    pointer = lib.llama_adapter_lora_init(model, path.encode())
    if not pointer:
        raise LoadFailed(said.explain(f"llama.cpp cannot lay the adapter {path} over this model"))
    return pointer
