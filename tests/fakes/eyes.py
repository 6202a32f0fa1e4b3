"""Families of models that see, as pairs of tiny files: a model, and the projector of its images.

Weights are random, so answers are noise, but they depend on every row of an image and on its
position: what differs from libmtmd's own reading of a prompt gives other probabilities.
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from paddock.engine.llama.image_cache import ImagePiece
from tests.fakes.gguf import Value, write_gguf
from tests.fakes.tiny import N_EMBD, Axes, write_llm

N_EYE, N_FEED, N_HEADS = 32, 64, 2


@dataclass(frozen=True, slots=True)
class Family:
    architecture: str
    model_values: Mapping[str, Value]
    write_projector: Callable[[Path], Path]
    control: tuple[str, ...] = ()
    """Control tokens that libmtmd puts around images."""
    layer: tuple[str, ...] = ()
    """Norms of a layer, besides those of an ordinary one."""
    n_embd: int = N_EMBD
    has_biases: bool = False
    is_gate_fused: bool = False


def write_family(name: str, folder: Path) -> tuple[Path, Path]:
    """Write `<name>.gguf` and `mmproj-<name>.gguf`, which belong together; return both paths."""
    family = FAMILIES[name]
    model = write_llm(
        folder / f"{name}.gguf",
        family.architecture,
        family.model_values,
        n_embd=family.n_embd,
        extra_norms=family.layer,
        has_biases=family.has_biases,
        is_gate_fused=family.is_gate_fused,
        control=family.control,
    )
    return model, family.write_projector(folder / f"mmproj-{name}.gguf")


def square(shade: int, side: int = 40) -> bytes:
    """Draw a square of one grey, as PNG."""
    return png(np.full((side, side, 3), shade, np.uint8))


def noise(seed: int, width: int = 40, height: int = 40) -> bytes:
    """Draw blocks of random colours, as PNG."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    pixels = blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    return png(pixels.astype(np.uint8))


def png(pixels: NDArray[np.uint8 | np.uint16]) -> bytes:
    """Write pixels of shape (height, width, 3), or 4 with an alpha channel."""
    height, width, n_channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    kind, n_bits = {3: 2, 4: 6}[n_channels], 8 * pixels.itemsize
    return png_of(struct.pack(">IIBBBBB", width, height, n_bits, kind, 0, 0, 0), rows)


def png_of(head: bytes, rows: bytes, *extra: bytes) -> bytes:
    """Write a file with this header and rows, packed here, and other parts before them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    others = b"".join(chunk(one[:4], one[4:]) for one in extra)
    picture = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + others + picture


def image_piece(digest: str, n_rows: int, n_embd: int = 4) -> ImagePiece:
    """Return an image that is read in order, as LLaVA's."""
    rows = np.zeros((n_rows, n_embd), np.float32)
    return ImagePiece(digest, rows, np.arange(n_rows, dtype=np.int32)[None], n_rows)


def llava(path: Path, n_embd: int = N_EMBD) -> Path:
    """Write a projector whose images of 28 by 28 pixels have four rows."""
    axes = _vision(14, n_patches=4) | _mlp(N_EYE, n_embd)
    values: dict[str, Value] = {"image_size": 28, "patch_size": 14, "projection_dim": n_embd}
    return _write(path, "mlp", values, axes)


def qwen2vl(path: Path) -> Path:
    """Write a projector with a row for each 8 by 8 pixels, in two dimensions."""
    axes = _vision(4) | {"v.patch_embd.weight.1": (4, 4, 3, N_EYE)} | _mlp(4 * N_EYE, N_EMBD)
    return _write(path, "qwen2vl_merger", {"image_size": 64, "patch_size": 4}, axes)


def qwen25vl(path: Path) -> Path:
    """Write a projector whose first layer sees windows of the image alone."""
    axes = _vision(4) | {"v.patch_embd.weight.1": (4, 4, 3, N_EYE)} | _mlp(4 * N_EYE, N_EMBD)
    axes |= {f"v.blk.{layer}.ffn_gate.weight": (N_EYE, N_FEED) for layer in range(2)}
    values: dict[str, Value] = {"image_size": 64, "patch_size": 4, "n_wa_pattern": 2}
    return _write(path, "qwen2.5vl_merger", values, axes)


def qwen3vl(path: Path) -> Path:
    """Write a projector with a second part of each row, which the model's first layer reads."""
    n_merged = 4 * N_EYE
    axes = _vision(4, n_patches=256, is_fused=True)
    axes |= {"v.patch_embd.weight.1": (4, 4, 3, N_EYE), "v.patch_embd.bias": (N_EYE,)}
    axes |= _mlp(n_merged, N_EMBD)
    deep = {"norm": (n_merged,), "fc1": (n_merged, n_merged), "fc2": (n_merged, N_EMBD)}
    axes |= _biased({f"v.deepstack.0.{name}": shape for name, shape in deep.items()})
    return _write(path, "qwen3vl_merger", {"image_size": 64, "patch_size": 4}, axes)


def gemma3(path: Path) -> Path:
    """Write a projector whose images of 64 by 64 pixels have 16 rows that see one another."""
    axes = _vision(4, n_patches=256)
    axes |= {"mm.input_projection.weight": (N_EMBD, N_EYE), "mm.soft_emb_norm.weight": (N_EYE,)}
    axes |= _biased({"v.post_ln": (N_EYE,)})
    return _write(path, "gemma3", {"image_size": 64, "patch_size": 4}, axes)


def pixtral(path: Path) -> Path:
    """Write a projector that ends each row of an image with a row of its own."""
    axes = _vision(4) | {"v.token_embd.img_break": (N_EMBD,), "mm.input_norm.weight": (N_EYE,)}
    axes |= {"mm.patch_merger.weight": (4 * N_EYE, N_EYE)}
    axes |= {"mm.1.weight": (N_EYE, N_EMBD), "mm.2.weight": (N_EMBD, N_EMBD)}
    values: dict[str, Value] = {"image_size": 256, "patch_size": 4, "spatial_merge_size": 2}
    return _write(path, "pixtral", values, axes)


def internvl(path: Path) -> Path:
    """Write a projector that cuts large images into slices of 32 by 32 pixels."""
    axes = _vision(4, n_patches=65) | {"v.class_embd": (N_EYE,)}
    layers = {0: (4 * N_EYE,), 1: (4 * N_EYE, N_EMBD), 3: (N_EMBD, N_EMBD)}
    axes |= _biased({f"mm.model.mlp.{number}": shape for number, shape in layers.items()})
    values: dict[str, Value] = {"image_size": 32, "patch_size": 4, "projector.scale_factor": 2}
    return _write(path, "internvl", values, axes)


def smolvlm(path: Path) -> Path:
    """Write a projector of slices with tags between them, and of the whole image after them."""
    axes = _vision(4, n_patches=64) | {"mm.model.fc.weight": (4 * N_EYE, N_EMBD)}
    axes |= _biased({"v.post_ln": (N_EYE,)})
    values: dict[str, Value] = {"image_size": 32, "patch_size": 4, "projector.scale_factor": 2}
    return _write(path, "idefics3", {**values, "preproc_image_size": 96}, axes)


def glm_ocr(path: Path) -> Path:
    """Write a projector that merges patches by a convolution."""
    axes = _vision(4) | {"v.patch_embd.weight.1": (4, 4, 3, N_EYE), "v.patch_embd.bias": (N_EYE,)}
    axes |= _biased({"mm.patch_merger": (2, 2, N_EYE, N_EMBD), "mm.post_norm": (N_EMBD,)})
    axes |= {f"mm.{part}.weight": (N_EMBD, N_EMBD) for part in ("model.fc", "up", "gate", "down")}
    return _write(path, "glm4v", {"image_size": 64, "patch_size": 4}, axes)


def minicpmv(path: Path) -> Path:
    """Write a projector that asks each slice of an image 16 questions, at a width of 128."""
    n_embd, n_places = 128, 70 * 70
    axes = _vision(4, n_patches=n_places)
    axes |= {"resampler.query": (n_embd, 16), "resampler.pos_embed_k": (n_embd, n_places)}
    axes |= {"resampler.kv.weight": (N_EYE, n_embd), "resampler.proj.weight": (n_embd, n_embd)}
    shapes: Axes = {f"attn.{part}": (n_embd, n_embd) for part in ("q", "k", "v", "out")}
    shapes |= {f"ln_{part}": (n_embd,) for part in ("q", "kv", "post")}
    axes |= _biased({f"resampler.{name}": shape for name, shape in shapes.items()})
    values: dict[str, Value] = {"image_size": 64, "patch_size": 4, "projection_dim": n_embd}
    extra: dict[str, Value] = {
        "clip.minicpmv_version": np.int32(3), "clip.minicpmv_query_num": 16
    }  # fmt: skip
    return _write(path, "resampler", values, axes, extra)


def deepseek_ocr(path: Path) -> Path:
    """Write a projector of two encoders, one after the other: any image has 16 lines of 17 rows."""
    n_sam, n_side, window = 16, 64, 14  # patches of 16 pixels of an image of 1,024
    axes = _vision(16, n_patches=n_side**2 // 16 + 1) | {"v.class_embd": (N_EYE,)}
    shapes: Axes = {f"v.{name}": (N_EMBD,) for name in ("image_newline", "view_seperator")}
    biased: Axes = {
        "mm.model.fc": (2 * N_EYE, N_EMBD), "v.pre_ln": (N_EYE,),
        "v.sam.patch_embd": (16, 16, 3, n_sam),
        "v.sam.neck.1": (n_sam,), "v.sam.neck.3": (n_sam,),
    }  # fmt: skip
    shapes |= {"v.sam.pos_embd.weight": (n_sam, n_side, n_side)}
    convolutions: Axes = {
        "neck.0": (1, 1, n_sam, n_sam), "neck.2": (3, 3, n_sam, n_sam),
        "net_2": (3, 3, n_sam, n_sam), "net_3": (3, 3, n_sam, N_EYE),
    }  # fmt: skip
    shapes |= {f"v.sam.{name}.weight": shape for name, shape in convolutions.items()}
    for layer in range(3):
        block, n_far = f"v.sam.blk.{layer}", 2 * (n_side if layer == 2 else window) - 1
        shapes |= {f"{block}.attn.pos_{axis}.weight": (n_sam, n_far) for axis in "hw"}
        biased |= {f"{block}.{name}": (n_sam,) for name in ("pre_ln", "post_ln")}
        biased |= {f"{block}.attn.qkv": (n_sam, 3 * n_sam), f"{block}.attn.out": (n_sam, n_sam)}
        biased |= {f"{block}.mlp.lin1": (n_sam, N_FEED), f"{block}.mlp.lin2": (N_FEED, n_sam)}
    shapes |= _biased(biased)
    values: dict[str, Value] = {"image_size": 1024, "patch_size": 16, "window_size": window}
    sam: dict[str, Value] = {"block_count": 3, "head_count": 1, "embedding_length": n_sam}
    values |= {f"sam.{name}": value for name, value in sam.items()}
    return _write(path, "deepseekocr", values, axes | shapes)


def paddleocr(path: Path) -> Path:
    """Write a projector with learned positions that are stretched to an image's size."""
    n_merged = 4 * N_EYE
    layers = {"input_norm": (N_EYE,), "1": (n_merged, n_merged), "2": (n_merged, N_EMBD)}
    axes = _vision(4, n_patches=256)
    axes |= _biased({f"mm.{name}": shape for name, shape in layers.items()})
    values: dict[str, Value] = {"image_min_pixels": 1024, "image_max_pixels": 65536}
    return _write(path, "paddleocr", {"image_size": 64, "patch_size": 4, **values}, axes)


_MROPE: Mapping[str, Value] = {"rope.dimension_sections": [4, 6, 6, 0], "rope.freq_base": 1e4}
_HEADS: Mapping[str, Value] = {"attention.key_length": 32, "attention.value_length": 32}
_VISION_TAGS = ("<|vision_start|>", "<|vision_end|>")
FAMILIES: Mapping[str, Family] = {
    "llava": Family("llama", {}, llava),
    "qwen2vl": Family("qwen2vl", _MROPE, qwen2vl, _VISION_TAGS, has_biases=True),
    "qwen25vl": Family("qwen2vl", _MROPE, qwen25vl, _VISION_TAGS, has_biases=True),
    "qwen3vl": Family(
        "qwen3vl",
        {**_MROPE, **_HEADS, "n_deepstack_layers": 1},
        qwen3vl,
        _VISION_TAGS,
        ("attn_q_norm", "attn_k_norm"),
    ),
    "pixtral": Family("llama", {}, pixtral, ("[IMG_END]",)),
    "internvl": Family("qwen2", {}, internvl, ("<img>", "</img>"), has_biases=True),
    "smolvlm": Family("llama", {}, smolvlm, ("\n\n", "<fake_token_around_image>", "<global-img>")),
    "minicpmv": Family(
        "llama", {}, minicpmv, ("<image>", "</image>", "<slice>", "</slice>"), n_embd=128
    ),
    "glm_ocr": Family(
        "glm4",
        _MROPE,
        glm_ocr,
        ("<|begin_of_image|>", "<|end_of_image|>"),
        ("post_attention_norm", "post_ffw_norm"),
        is_gate_fused=True,
    ),
    "deepseek_ocr": Family("llama", {}, deepseek_ocr),
    "paddleocr": Family("paddleocr", _MROPE, paddleocr, ("<|IMAGE_START|>", "<|IMAGE_END|>")),
    "gemma3": Family(
        "gemma3",
        {**_HEADS, "attention.sliding_window": 64, "attention.sliding_window_pattern": 2},
        gemma3,
        ("<start_of_image>", "<end_of_image>"),
        ("attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm"),
    ),
}


def _vision(patch: int, n_patches: int = 0, *, is_fused: bool = False) -> Axes:
    """Return the tensors of two layers; positions are learned where `n_patches` is given."""
    axes: Axes = {"v.patch_embd.weight": (patch, patch, 3, N_EYE)}
    if n_patches:
        axes["v.position_embd.weight"] = (N_EYE, n_patches)
    shapes: Axes = {"attn_out": (N_EYE, N_EYE), "ln1": (N_EYE,), "ln2": (N_EYE,)}
    shapes |= {"ffn_up": (N_EYE, N_FEED), "ffn_down": (N_FEED, N_EYE)}
    queries = {"attn_qkv": 3} if is_fused else {"attn_q": 1, "attn_k": 1, "attn_v": 1}
    shapes |= {name: (N_EYE, n * N_EYE) for name, n in queries.items()}
    for layer in range(2):
        axes |= _biased({f"v.blk.{layer}.{name}": shape for name, shape in shapes.items()})
    return axes


def _mlp(n_in: int, n_embd: int) -> Axes:
    n_inner = n_in if n_in > N_EYE else n_embd
    return _biased({"mm.0": (n_in, n_inner), "mm.2": (n_inner, n_embd)})


def _biased(shapes: Axes) -> Axes:
    """Return weights and biases of these shapes."""
    parts = ((f"{name}.weight", f"{name}.bias", shape) for name, shape in shapes.items())
    return {name: axes for one, other, shape in parts
            for name, axes in ((one, shape), (other, shape[-1:]))}  # fmt: skip


def _write(
    path: Path,
    kind: str,
    values: Mapping[str, Value],
    axes: Axes,
    extra: Mapping[str, Value] = MappingProxyType({}),
) -> Path:
    every: dict[str, Value] = {
        "embedding_length": N_EYE,
        "feed_forward_length": N_FEED,
        "block_count": 2,
        "projection_dim": N_EMBD,
        "attention.head_count": N_HEADS,
        "attention.layer_norm_epsilon": 1e-5,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        **values,
    }
    header: dict[str, Value] = {
        "general.architecture": "clip",
        "clip.projector_type": kind,
        "clip.has_vision_encoder": True,
        "clip.use_gelu": True,
        **{f"clip.vision.{key}": value for key, value in every.items()},
        **extra,
    }
    return write_gguf(path, header, axes, seed=7)
