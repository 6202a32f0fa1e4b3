"""Weights of one model file, and LoRA adapters on them, as llama.cpp loads them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paddock.engine.settings import SplitMode
from paddock.engine.system.records import Struct

from .library import LOG, LoadFailed, LogRecording, ggml_function, lib, supports_gpu
from .vocabulary import Vocabulary, model_params


class LoraAdapters:
    def __init__(self, model: Any, paths: Sequence[str], recording: LogRecording) -> None:
        self._pointers = [_load_adapter(model, path, recording) for path in paths]

    def apply_to(self, context: Any) -> None:
        n = len(self._pointers)
        if not n:
            return
        pointers = (lib.llama_adapter_lora_p_ctypes * n)(
            *(ctypes.cast(pointer, lib.llama_adapter_lora_p_ctypes) for pointer in self._pointers)
        )
        scales = (ctypes.c_float * n)(*[1.0] * n)
        if lib.llama_set_adapters_lora(context, pointers, n, scales) != 0:
            raise LoadFailed("llama.cpp cannot use the adapters with this context")


def _load_adapter(model: Any, path: str, recording: LogRecording) -> Any:
    pointer = lib.llama_adapter_lora_init(model, path.encode())
    if not pointer:
        raise LoadFailed(
            recording.explain(f"llama.cpp cannot apply the adapter {path} to this model")
        )
    if lib.llama_adapter_get_alora_n_invocation_tokens(pointer):
        what = "holds from certain words of a prompt on (aLoRA), which is not supported"
        raise LoadFailed(f"the adapter {path} {what}: use one for whole prompts")
    return pointer


_SPLIT_MODES: dict[SplitMode, int] = {
    "none": lib.LLAMA_SPLIT_MODE_NONE,
    "layer": lib.LLAMA_SPLIT_MODE_LAYER,
    "row": lib.LLAMA_SPLIT_MODE_ROW,
    "tensor": lib.LLAMA_SPLIT_MODE_TENSOR,
}


class _BufferOverride(ctypes.Structure):
    _fields_ = (("pattern", ctypes.c_char_p), ("buft", ctypes.c_void_p))


class ModelOptions(Struct, frozen=True):
    n_gpu_layers: int = -1
    """Layers on graphics devices; -1: all."""
    main_gpu: int = 0
    split_mode: SplitMode = "layer"
    """How weights are spread over several devices."""
    tensor_split: Sequence[float] = ()
    """Each device's share; empty: by free memory."""
    adapters: Sequence[str] = ()
    uses_extra_buffers: bool = True
    """Whether weights may be repacked for the processor (AMX and others)."""
    parts: Sequence[str] = ()
    """The other files of a split model."""
    n_cpu_experts: int = 0
    """Layers, from the first on, whose experts stay in main memory."""
    loads_mtp: bool = False
    """Whether to load the layer that guesses tokens ahead (multi-token prediction)."""


class LlamaWeights(Vocabulary):
    def __init__(self, path: Path, options: ModelOptions | None = None) -> None:
        options = options or ModelOptions()
        params = model_params(options.n_gpu_layers)
        if options.n_gpu_layers:
            params.main_gpu = options.main_gpu
            params.split_mode = _SPLIT_MODES[options.split_mode]
        params.use_extra_bufts = options.uses_extra_buffers
        params.load_mtp = options.loads_mtp
        if options.tensor_split:
            shares = (ctypes.c_float * lib.LLAMA_MAX_DEVICES)(*options.tensor_split)
            params.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
        if options.n_cpu_experts:
            # The experts of the first layers stay in main memory, by the pattern of llama.cpp's
            # `--n-cpu-moe`; an empty entry ends it. It must live until the weights are loaded.
            cpu = ggml_function("ggml_backend_cpu_buffer_type", ctypes.c_void_p)()
            pattern = r"blk\.%d\.ffn_(up|down|gate|gate_up)_(ch|)exps"
            layers = range(options.n_cpu_experts)
            rows = [_BufferOverride((pattern % layer).encode(), cpu) for layer in layers]
            overrides = (_BufferOverride * (len(rows) + 1))(*rows, _BufferOverride(None, None))
            params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
        with LOG.recording() as recording:
            self._load([str(path), *options.parts], params, recording)
            self.adapters = LoraAdapters(self.pointer, options.adapters, recording)
        self.buffers = recording.buffers()
        self.n_embedding = int(lib.llama_model_n_embd_out(self.pointer))
        self.is_gpu = supports_gpu() and options.n_gpu_layers != 0

    @property
    def n_scores(self) -> int:
        """Number of values that a classifier returns for a text; 1 for most rerankers."""
        return int(lib.llama_model_n_cls_out(self.pointer))

    @property
    def names_pooling(self) -> bool:
        """Whether the file says how the states of a text's tokens become one vector."""
        kind = self._metadata(f"{self._metadata('general.architecture')}.pooling_type")
        return kind not in ("", str(lib.LLAMA_POOLING_TYPE_NONE))

    def _metadata(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(64)
        lib.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace")
