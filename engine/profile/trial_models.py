"""Trial models of one layer in each format of weights, written in milliseconds.

Every byte of their weights is the same, which is an ordinary number in each format, so the kernels
take as long as with trained weights; the output is nonsense.

Run as a module, this decodes a few tokens with a trial model in each format; a broken build of
llama.cpp ends the process by a signal. The arguments are a fallback (`workers.fallbacks`) and a
number of threads.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from paddock.engine.gguf import TYPE_BLOCKS, TYPE_NAMES, GgufTensor, header_bytes, padded
from paddock.engine.llama import library
from paddock.engine.llama.llama_context import WARM_UP_CELLS, ContextOptions, warm_up
from paddock.engine.llama.llama_model import Model, ModelOptions

# Large enough that the time goes into the matrices rather than the barriers between them, small
# enough to write and load a file in some 0.02 s. Rows are a multiple of 256, for k-quants.
TRIAL_EMBEDDING, N_INNER, N_HEADS, N_HEADS_KV, TRIAL_VOCAB = 1024, 2048, 16, 4, 64
TRIAL_CTX_TOKENS = 1024
_N_KV = TRIAL_EMBEDDING // N_HEADS * N_HEADS_KV
_MATRICES = (
    ("attn_q", TRIAL_EMBEDDING, TRIAL_EMBEDDING),
    ("attn_k", TRIAL_EMBEDDING, _N_KV),
    ("attn_v", TRIAL_EMBEDDING, _N_KV),
    ("attn_output", TRIAL_EMBEDDING, TRIAL_EMBEDDING),
    ("ffn_gate", TRIAL_EMBEDDING, N_INNER),
    ("ffn_up", TRIAL_EMBEDDING, N_INNER),
    ("ffn_down", N_INNER, TRIAL_EMBEDDING),
)
TRIAL_WEIGHTS = sum(n_in * n_out for _, n_in, n_out in _MATRICES)
_METADATA: dict[str, str | int | float] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.context_length": TRIAL_CTX_TOKENS,
    "llama.embedding_length": TRIAL_EMBEDDING,
    "llama.feed_forward_length": N_INNER,
    "llama.attention.head_count": N_HEADS,
    "llama.attention.head_count_kv": N_HEADS_KV,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.vocab_size": TRIAL_VOCAB,
    "tokenizer.ggml.model": "no_vocab",
}
_KINDS = {name: kind for kind, name in TYPE_NAMES.items()}
_F32 = 0
# 0x2c2c is 0.07 as a half, the scale of most blocks; 0x3c3c3c3c is 0.01 as a float.
_FILLER, _FLOAT_FILLER = b"\x2c", b"\x3c"
# MXFP4's scale is an exponent alone: 0x7b is 0.06, where 0x2c would end in denormal numbers.
_FILLERS = {"F32": _FLOAT_FILLER, "BF16": _FLOAT_FILLER, "MXFP4": b"\x7b"}


def can_write_trial_model(format_name: str) -> bool:
    return format_name in _KINDS and _KINDS[format_name] in TYPE_BLOCKS


def write_trial_model(path: Path, format_name: str) -> None:
    kind = _KINDS[format_name]
    norms = ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")
    tensors = [
        GgufTensor("token_embd.weight", kind, (TRIAL_EMBEDDING, TRIAL_VOCAB)),
        *(GgufTensor(name, _F32, (TRIAL_EMBEDDING,)) for name in norms),
        *(
            GgufTensor(f"blk.0.{name}.weight", kind, (n_in, n_out))
            for name, n_in, n_out in _MATRICES
        ),
    ]
    with path.open("wb") as file:
        file.write(header_bytes(_METADATA, tensors))
        for tensor in tensors:
            filler = _FILLERS.get(TYPE_NAMES[tensor.kind], _FILLER)
            file.write(filler * padded(tensor.n_bytes))


# AMX has kernels of its own for these; repacking has some for the first ones.
CHECKED_FORMATS = ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "F16")


def main() -> None:
    """Decode a few tokens with a small model in each format."""
    fallback, n_threads = int(sys.argv[1]), int(sys.argv[2])
    library.quiet_logs()
    options = ContextOptions(
        n_ctx_tokens=WARM_UP_CELLS,
        n_batch_tokens=WARM_UP_CELLS,
        n_seq_max=1,
        n_threads=1 if fallback >= 3 else n_threads,
        flash_attention="off" if fallback >= 2 else "auto",
    )
    with tempfile.TemporaryDirectory(prefix="paddock-trial-") as folder:
        for name in CHECKED_FORMATS:
            path = Path(folder) / f"{name}.gguf"
            write_trial_model(path, name)
            model = Model(path, ModelOptions(n_gpu_layers=0, uses_extra_buffers=not fallback))
            warm_up(model, options)
            model.close()


if __name__ == "__main__":
    main()
