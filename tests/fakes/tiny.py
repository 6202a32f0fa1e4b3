"""Models of some kilobytes with random weights, one for each kind of memory and of output.

They know every byte as a token of its own, so any text can be asked for; what they say is noise.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from paddock.engine.gguf import read_header
from tests.fakes.gguf import Value, write_gguf

N_EMBD, N_FF = 64, 96
Axes = dict[str, tuple[int, ...]]
Matrices = dict[str, NDArray[np.float64]]

_NORMED: Axes = {"attn_q_norm.weight": (32,), "attn_k_norm.weight": (32,)}

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def mamba(path: Path) -> Path:
    """Write a recurrent model: its memory of a sequence is one state, which cannot be cut."""
    inner, state, rank, kernel = 2 * N_EMBD, 8, 4, 4
    own: Axes = {
        "attn_norm.weight": (N_EMBD,),
        "ssm_in.weight": (N_EMBD, 2 * inner),
        "ssm_conv1d.weight": (kernel, inner),
        "ssm_conv1d.bias": (inner,),
        "ssm_x.weight": (inner, rank + 2 * state),
        "ssm_dt.weight": (rank, inner),
        "ssm_dt.bias": (inner,),
        "ssm_a": (state, inner),
        "ssm_d": (inner,),
        "ssm_out.weight": (inner, N_EMBD),
    }
    sizes = {"conv_kernel": kernel, "inner_size": inner, "state_size": state}
    sizes["time_step_rank"] = rank
    values: dict[str, Value] = {f"ssm.{name}": size for name, size in sizes.items()}
    values |= {"feed_forward_length": 0, **_heads(0)}
    return _write(path, "mamba", values, _outer() | _layers(2, own))


def hybrid(path: Path) -> Path:
    """Write a model with layers of both kinds: attention, and a state that cannot be cut."""
    axes = _outer()
    del axes["output_norm.weight"]
    axes["token_embd_norm.weight"] = (N_EMBD,)
    convolution: Axes = {
        "shortconv.conv.weight": (3, N_EMBD),
        "shortconv.in_proj.weight": (N_EMBD, 3 * N_EMBD),
        "shortconv.out_proj.weight": (N_EMBD, N_EMBD),
    }
    for layer, own in enumerate((convolution, _attention() | _NORMED)):
        axes |= _named(layer, {"attn_norm.weight": (N_EMBD,), **own, **_feed_forward()})
    values: Mapping[str, Value] = {"shortconv.l_cache": 3, "attention.head_count_kv": [0, 2]}
    return _write(path, "lfm2", values, axes)


def sliding(path: Path, n_window: int = 32) -> Path:
    """Write a model of which one layer of two sees the last tokens alone."""
    own = _norms("attn_norm", "post_attention_norm", "post_ffw_norm")
    axes = _outer() | _layers(2, {**own, **_attention(), **_feed_forward()})
    values = {"attention.sliding_window": n_window, **_head_sizes(32)}
    return _write(path, "gemma2", values, axes)


def llama(path: Path, seed: int = 1, more: Mapping[str, Value] | None = None) -> Path:
    """Write an ordinary model; `more` are values of its header."""
    own = {"attn_norm.weight": (N_EMBD,), **_attention(), **_feed_forward()}
    return _write(path, "llama", more or {}, _outer() | _layers(2, own), seed)


def write_llm(
    path: Path,
    architecture: str,
    values: Mapping[str, Value],
    *,
    n_embd: int = N_EMBD,
    extra_norms: Sequence[str] = (),
    has_biases: bool = False,
    is_gate_fused: bool = False,
    control: Sequence[str] = (),
) -> Path:
    """Write an ordinary model of an architecture, which never ends its answer.

    `control` are tokens besides those of a turn.
    """
    n_vocab = len(_tokens()) + len(control)
    axes: Axes = {name: (n_embd, n_vocab) for name in ("token_embd.weight", "output.weight")}
    axes["output_norm.weight"] = (n_embd,)
    own = {"attn_norm.weight": (n_embd,), **_attention(n_embd), **_feed_forward(n_embd)}
    for name in extra_norms:
        own[f"{name}.weight"] = (32 if name.endswith(("q_norm", "k_norm")) else n_embd,)
    if has_biases:
        own |= {f"attn_{part}.bias": (n_embd,) for part in ("q", "k", "v")}
    if is_gate_fused:
        del own["ffn_gate.weight"]
        own["ffn_up.weight"] = (n_embd, 2 * N_FF)
    axes |= _layers(2, own)
    _write(path, architecture, {"embedding_length": n_embd, **values}, axes, control=control)
    output = np.random.default_rng(2).normal(0, n_embd**-0.5, (n_vocab, n_embd))
    output[_tokens().index("<|im_end|>")] = 0
    return fill(path, {"output.weight": output})


def copying(path: Path) -> Path:
    """Write a model that goes on as its text went on before, after the same byte.

    Two layers of attention, written by hand: the first brings each byte's predecessor to it, the
    second looks for the last place whose predecessor is the present byte, and that place's byte is
    the next token. A cell that is lost, or is another sequence's, changes the answer. In a text
    without ambiguous bytes the likeliest token is ahead by several logits, so that every
    processor, kernel and size of a batch chooses the same.
    """
    n_id, n_embd, tokens = 64, 256, _tokens()
    identity, before, predicted, one = slice(0, 64), slice(64, 128), slice(128, 192), 192
    names = np.random.default_rng(1).choice([-1.0, 1.0], (len(tokens), n_id)) / 8
    embedding, output = np.zeros((len(tokens), n_embd)), np.zeros((len(tokens), n_embd))
    embedding[:, identity], embedding[:, one], output[:, predicted] = names, 1, 2 * names
    angles = 1e12 ** (-np.arange(n_id // 2) / (n_id // 2))  # of RoPE's pairs, by which each turns

    def square() -> NDArray[np.float64]:
        return np.zeros((n_id, n_embd))

    # What a layer reads is scaled to a mean square of 1: by 11.3 in the first, 9.2 in the second.
    query, key, value, result = square(), square(), square(), np.zeros((n_embd, n_id))
    for pair in range(8):  # the highest at a distance of one token
        key[2 * pair, one] = 1.6
        query[2 * pair, one] = 1.6 * np.cos(angles[pair])
        query[2 * pair + 1, one] = -1.6 * np.sin(angles[pair])
    value[:, identity] = np.eye(n_id) / 11.3
    result[before] = np.eye(n_id)
    first = {"q": query, "k": key, "v": value, "output": result}
    query, key, value, result = square(), square(), square(), np.zeros((n_embd, n_id))
    key[16, one], query[17, one] = 2.4, 2.4  # the nearer, the higher
    query[24:, identity][:, 24:] = key[24:, before][:, 24:] = 3.6 * np.eye(n_id - 24)  # hardly turn
    value[:, identity] = np.eye(n_id) / 9.2
    result[predicted] = np.eye(n_id)
    second = {"q": query, "k": key, "v": value, "output": result}
    filled: Matrices = {"token_embd.weight": embedding, "output.weight": output}
    axes: Axes = dict.fromkeys(filled, (n_embd, len(tokens)))
    norms, n_ff = {"output_norm.weight": (n_embd,)}, 64  # not narrower than a tile of AMX
    for layer, parts in enumerate((first, second)):
        for name, rows in parts.items():
            filled[f"blk.{layer}.attn_{name}.weight"] = rows
            axes[f"blk.{layer}.attn_{name}.weight"] = (rows.shape[1], rows.shape[0])
        norms |= {f"blk.{layer}.{name}_norm.weight": (n_embd,) for name in ("attn", "ffn")}
    ahead: Axes = {f"ffn_{part}.weight": (n_embd, n_ff) for part in ("gate", "up")}
    axes |= _layers(2, ahead | {"ffn_down.weight": (n_ff, n_embd)})
    values: Mapping[str, Value] = {
        "embedding_length": n_embd,
        "feed_forward_length": n_ff,
        "rope.dimension_count": n_id,
        "rope.freq_base": 1e12,
        **_heads(1),
        **_head_sizes(n_id),
    }
    _write(path, "llama", values, {**axes, **norms}, seed=None)
    return fill(path, filled | {name: np.ones(n_embd) for name in norms})


def hy_v3(path: Path, seed: int | None = 1) -> Path:
    """Write a model whose last layer guesses tokens ahead (multi-token prediction)."""
    own = {"attn_norm.weight": (N_EMBD,), **_attention(), **_NORMED, **_feed_forward()}
    return _write(path, "hy_v3", _MTP_VALUES, _outer() | _layers(3, own) | _mtp(), seed)


def glm4moe(path: Path) -> Path:
    """Write a mixture of experts whose last layer guesses tokens ahead."""
    axes = _outer()
    norms = _norms("attn_norm", "post_attention_norm")
    dense = _feed_forward()
    del dense["ffn_norm.weight"]
    for layer in range(3):
        axes |= _named(layer, {**norms, **_attention(), **(_experts() if layer else dense)})
    return _write(path, "glm4moe", {**_MTP_VALUES, **_EXPERTS}, axes | _mtp())


def deepseek2(path: Path) -> Path:
    """Write a mixture of experts with latent attention, whose last layer guesses tokens ahead."""
    rank, nope, rope, n_heads = 32, 16, 16, 2
    axes = _outer()
    attention: Axes = {
        "attn_q_a.weight": (N_EMBD, rank),
        "attn_q_b.weight": (rank, n_heads * (nope + rope)),
        "attn_kv_a_mqa.weight": (N_EMBD, rank + rope),
        "attn_k_b.weight": (nope, rank, n_heads),
        "attn_v_b.weight": (rank, 32, n_heads),
        "attn_output.weight": (n_heads * 32, N_EMBD),
        "attn_q_a_norm.weight": (rank,),
        "attn_kv_a_norm.weight": (rank,),
    }
    norms = _norms("attn_norm", "ffn_norm")
    for layer in range(3):
        ahead = _experts() if layer else _feed_forward()
        axes |= _named(layer, {**norms, **attention, **ahead})
    values: dict[str, Value] = {
        "attention.head_count": n_heads,
        "attention.head_count_kv": 1,
        "attention.q_lora_rank": rank,
        "attention.kv_lora_rank": rank,
        "attention.key_length": rank + rope,
        "attention.value_length": rank,
        "attention.key_length_mla": nope + rope,
        "attention.value_length_mla": 32,
        "rope.dimension_count": rope,
    }
    return _write(path, "deepseek2", {**_MTP_VALUES, **_EXPERTS, **values}, axes | _mtp())


def qwen35(path: Path) -> Path:
    """Write a hybrid model (gated delta net, then attention) whose last layer guesses ahead."""
    ahead = _feed_forward()
    del ahead["ffn_norm.weight"]
    return _write_qwen35(path, "qwen35", ahead, {})


def qwen35moe(path: Path) -> Path:
    """Write the same as a mixture of experts."""
    ahead = _experts() | {"ffn_gate_inp_shexp.weight": (N_EMBD,)}
    del ahead["exp_probs_b.bias"]
    values: dict[str, Value] = {
        "expert_count": 4,
        "expert_used_count": 2,
        "expert_shared_feed_forward_length": 32,
    }
    return _write_qwen35(path, "qwen35moe", ahead, values)


def _write_qwen35(path: Path, architecture: str, ahead: Axes, more: Mapping[str, Value]) -> Path:
    n_heads, n_id = 2, 32
    inner = n_heads * n_id
    norms = _norms("attn_norm", "post_attention_norm")
    attention = _attention() | {"attn_q.weight": (N_EMBD, 2 * inner)}  # with a gate
    attention |= {"attn_q_norm.weight": (n_id,), "attn_k_norm.weight": (n_id,)}
    state: Axes = {
        "attn_qkv.weight": (N_EMBD, 3 * inner),
        "attn_gate.weight": (N_EMBD, inner),
        "ssm_conv1d.weight": (4, 3 * inner),
        "ssm_dt.bias": (n_heads,),
        "ssm_a": (n_heads,),
        "ssm_beta.weight": (N_EMBD, n_heads),
        "ssm_alpha.weight": (N_EMBD, n_heads),
        "ssm_norm.weight": (n_id,),
        "ssm_out.weight": (inner, N_EMBD),
    }
    axes = _outer()
    for layer, own in enumerate((state, attention, attention)):
        axes |= _named(layer, norms | own | ahead)
    values: dict[str, Value] = {
        "full_attention_interval": 2,
        "rope.dimension_sections": [4, 6, 6, 0],
        "rope.dimension_count": n_id,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": inner,
        "ssm.state_size": n_id,
        "ssm.time_step_rank": n_heads,
        "ssm.group_count": n_heads,
        **_heads(n_heads),
        **_head_sizes(n_id),
    }
    return _write(path, architecture, {**_MTP_VALUES, **values, **more}, axes | _mtp())


def alphabet(path: Path) -> Path:
    """Write a model that says the alphabet, and whose last layer always guesses right.

    Each token is an axis of its own. Attention and feed-forward add nothing, so the output is the
    letter after the last one. The guess comes from the hidden state of the token before: it must be
    two letters ahead of it, and so is wrong if it gets the state of another token.
    """
    n_embd, tokens = 512, _tokens()
    letters = list(range(ord("a"), ord("z") + 1))
    following = {token: letters[0] for token in range(len(tokens))}
    following |= dict(zip(letters, [*letters[1:], letters[0]], strict=True))
    embedding, output = np.zeros((len(tokens), n_embd)), np.zeros((len(tokens), n_embd))
    projection = np.zeros((n_embd, 2 * n_embd))  # of the token, and of the state before it
    for token, after in following.items():
        embedding[token, token] = output[after, token] = 1
        projection[token, token], projection[after, n_embd + token] = 0.5, 1
    filled: Matrices = {
        "token_embd.weight": embedding,
        "output.weight": output,
        "blk.2.nextn.eh_proj.weight": projection,
    }
    axes: Axes = {name: (rows.shape[1], rows.shape[0]) for name, rows in filled.items()}
    norms: Axes = {"output_norm.weight": (n_embd,)}
    norms |= {f"blk.2.nextn.{name}.weight": (n_embd,) for name in ("enorm", "hnorm")}
    for layer in range(3):
        own: Axes = {f"attn_{part}.weight": (n_embd, 32) for part in ("q", "k", "v")}
        own |= {"attn_output.weight": (32, n_embd)}
        own |= {f"ffn_{part}.weight": (n_embd, 32) for part in ("gate", "up")}
        axes |= _named(layer, own | {"ffn_down.weight": (32, n_embd)})
        sizes = {"attn_norm": n_embd, "ffn_norm": n_embd, "attn_q_norm": 32, "attn_k_norm": 32}
        norms |= _named(layer, {f"{name}.weight": (n,) for name, n in sizes.items()})
    values: dict[str, Value] = {
        "embedding_length": n_embd,
        "feed_forward_length": 32,
        "rope.dimension_count": 32,
        **_heads(1),
        **_head_sizes(32),
    }
    _write(path, "hy_v3", _MTP_VALUES | values, axes | norms, seed=None)
    return fill(path, filled | {name: np.ones(shape) for name, shape in norms.items()})


_EXPERTS: dict[str, Value] = {
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_shared_count": 1,
    "leading_dense_block_count": 1,
}


def _experts() -> Axes:
    return {
        "ffn_gate_inp.weight": (N_EMBD, 4),
        "exp_probs_b.bias": (4,),
        "ffn_gate_exps.weight": (N_EMBD, 32, 4),
        "ffn_down_exps.weight": (32, N_EMBD, 4),
        "ffn_up_exps.weight": (N_EMBD, 32, 4),
        "ffn_gate_shexp.weight": (N_EMBD, 32),
        "ffn_down_shexp.weight": (32, N_EMBD),
        "ffn_up_shexp.weight": (N_EMBD, 32),
    }


_MTP_VALUES: dict[str, Value] = {
    "block_count": 3,
    "nextn_predict_layers": 1,
    "expert_feed_forward_length": 32,
}


def _mtp() -> Axes:
    return _named(
        2, {**_norms("nextn.enorm", "nextn.hnorm"), "nextn.eh_proj.weight": (2 * N_EMBD, N_EMBD)}
    )


def fill(path: Path, filled: Mapping[str, NDArray[np.float64]]) -> Path:
    """Overwrite tensors of a file."""
    header = read_header(path)
    with path.open("r+b") as file:
        for tensor in header.tensors:
            if tensor.name in filled:
                file.seek(header.data_at + tensor.offset)
                file.write(filled[tensor.name].astype("<f4").tobytes())
    return path


def reranker(path: Path, *, pooling: int | None = 4, n_ctx: int = 512, template: str = "") -> Path:
    """Write a BERT with a head that scores a pair of texts; as an embedder with pooling 1.

    `pooling` may be absent from the file (None); `template` is the form of a pair, if it has one.
    """
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?!"
    tokens += [begin + letter for begin in ("\u2581", "") for letter in letters]
    axes: Axes = {
        "token_embd.weight": (N_EMBD, len(tokens)),
        "token_types.weight": (N_EMBD, 2),
        "position_embd.weight": (N_EMBD, n_ctx),
        "token_embd_norm.weight": (N_EMBD,),
        "token_embd_norm.bias": (N_EMBD,),
        "cls.weight": (N_EMBD, N_EMBD),
        "cls.bias": (N_EMBD,),
        "cls.output.weight": (N_EMBD, 1),
        "cls.output.bias": (1,),
    }
    own = {**_attention(), "ffn_up.weight": (N_EMBD, N_FF), "ffn_down.weight": (N_FF, N_EMBD)}
    for norm in ("attn_output_norm", "layer_output_norm"):
        own |= {f"{norm}.weight": (N_EMBD,), f"{norm}.bias": (N_EMBD,)}
    axes |= _layers(2, own)
    header: dict[str, Value] = {
        "general.architecture": "bert",
        "bert.block_count": 2,
        "bert.context_length": n_ctx,
        "bert.embedding_length": N_EMBD,
        "bert.feed_forward_length": N_FF,
        "bert.attention.head_count": 2,
        "bert.attention.layer_norm_epsilon": 1e-12,
        "bert.attention.causal": False,
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * 5 + [1] * (len(tokens) - 5),
    }
    for number, name in enumerate(("padding", "unknown", "cls", "seperator", "mask")):
        header[f"tokenizer.ggml.{name}_token_id"] = number
    header |= {"tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.eos_token_id": 3}
    if pooling is not None:
        header["bert.pooling_type"] = pooling
    if template:
        header["tokenizer.chat_template.rerank"] = template
    return write_gguf(path, header, axes, seed=1)


def _outer() -> Axes:
    return {"token_embd.weight": (N_EMBD, len(_tokens())), "output_norm.weight": (N_EMBD,)}


def _attention(n_embd: int = N_EMBD) -> Axes:
    return {f"attn_{part}.weight": (n_embd, n_embd) for part in ("q", "k", "v", "output")}


def _feed_forward(n_embd: int = N_EMBD) -> Axes:
    return {
        "ffn_norm.weight": (n_embd,),
        "ffn_gate.weight": (n_embd, N_FF),
        "ffn_up.weight": (n_embd, N_FF),
        "ffn_down.weight": (N_FF, n_embd),
    }


def _norms(*names: str) -> Axes:
    return {f"{name}.weight": (N_EMBD,) for name in names}


def _layers(n_layers: int, own: Axes) -> Axes:
    """Return the tensors of layers that are alike."""
    named = (_named(layer, own) for layer in range(n_layers))
    return {name: axes for tensors in named for name, axes in tensors.items()}


def _heads(n_heads: int) -> dict[str, Value]:
    return dict.fromkeys(("attention.head_count", "attention.head_count_kv"), n_heads)


def _head_sizes(n_embd: int) -> dict[str, Value]:
    return dict.fromkeys(("attention.key_length", "attention.value_length"), n_embd)


def _named(layer: int, own: Axes) -> Axes:
    return {f"blk.{layer}.{name}": axes for name, axes in own.items()}


def _write(
    path: Path,
    architecture: str,
    values: Mapping[str, Value],
    axes: Axes,
    seed: int | None = 1,
    control: Sequence[str] = (),
) -> Path:
    every: dict[str, Value] = {
        "block_count": 2,
        "context_length": 4096,
        "embedding_length": N_EMBD,
        "feed_forward_length": N_FF,
        "attention.layer_norm_rms_epsilon": 1e-5,
        **_heads(2),
        **values,
    }
    tokens = [*_tokens(), *control]
    header: dict[str, Value] = {
        "general.architecture": architecture,
        **{
            key if key.startswith(("general.", "tokenizer.")) else f"{architecture}.{key}": value
            for key, value in every.items()
        },
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 256 + [3] * (len(tokens) - 256),
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT,
    }
    return write_gguf(path, header, axes, seed=seed)


def _tokens() -> list[str]:
    """Return every byte as the letter that byte-level vocabularies write for it, and the tags."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain}
    letters |= {byte: chr(256 + number) for number, byte in enumerate(others)}
    return [*(letters[byte] for byte in range(256)), "<|im_start|>", "<|im_end|>"]
