"""A model of one layer in any format of weights, all of which are the same ordinary number."""

from pathlib import Path

from paddock.engine.gguf import TYPE_NAMES, GgufTensor, padded, tensor_table
from tests.fakes.gguf import Value, gguf_head

_EMBEDDING, _INNER, _KV, _VOCAB = 1024, 2048, 256, 64
_AXES = {
    "token_embd": (_EMBEDDING, _VOCAB),
    "output_norm": (_EMBEDDING,),
    "blk.0.attn_norm": (_EMBEDDING,),
    "blk.0.ffn_norm": (_EMBEDDING,),
    "blk.0.attn_q": (_EMBEDDING, _EMBEDDING),
    "blk.0.attn_k": (_EMBEDDING, _KV),
    "blk.0.attn_v": (_EMBEDDING, _KV),
    "blk.0.attn_output": (_EMBEDDING, _EMBEDDING),
    "blk.0.ffn_gate": (_EMBEDDING, _INNER),
    "blk.0.ffn_up": (_EMBEDDING, _INNER),
    "blk.0.ffn_down": (_INNER, _EMBEDDING),
}
_VALUES: dict[str, Value] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.context_length": 1024,
    "llama.embedding_length": _EMBEDDING,
    "llama.feed_forward_length": _INNER,
    "llama.attention.head_count": 16,
    "llama.attention.head_count_kv": 4,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.vocab_size": _VOCAB,
    "tokenizer.ggml.model": "no_vocab",
}
_F32 = 0
_FILLERS = {
    "F32": b"\x3c",
    "BF16": b"\x3c",
}  # 0.01 as a float; else 0.07 as a half, a block's scale


def write_one_layer(path: Path, format_name: str) -> None:
    kind = next(kind for kind, name in TYPE_NAMES.items() if name == format_name)
    tensors = [
        GgufTensor(f"{name}.weight", kind if len(axes) > 1 else _F32, axes)
        for name, axes in _AXES.items()
    ]
    head = gguf_head(_VALUES, len(tensors)) + tensor_table(tensors)
    with path.open("wb") as file:
        file.write(head.ljust(padded(len(head)), b"\0"))
        for tensor in tensors:
            file.write(_FILLERS.get(TYPE_NAMES[tensor.kind], b"\x2c") * padded(tensor.n_bytes))
