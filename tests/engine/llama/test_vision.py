from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from paddock.engine.backends.local import LocalPool
from paddock.engine.errors import BadRequest
from paddock.engine.llama.library import LoadFailed
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.vision import ImagePiece, Projector
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ChatRequest, Message, ModelSpec
from paddock.engine.settings import PoolSettings

N_MODEL = 576  # SmolLM2-135M
N_EYE, N_FEED, SIDE, PATCH = 32, 64, 28, 14


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, form: str, *given: float) -> bytes:
    return struct.pack("<I", kind) + struct.pack(form, *given)


def floats(*given: float) -> bytes:
    return struct.pack("<IIQ", 9, 6, len(given)) + struct.pack(f"<{len(given)}f", *given)


def write_projector(path: Path) -> None:
    """Write a LLaVA projector of two layers with random weights, as GGUF's specification says."""
    random = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {
        "v.patch_embd.weight": (N_EYE, 3, PATCH, PATCH),
        "v.position_embd.weight": ((SIDE // PATCH) ** 2, N_EYE),
        "mm.0.weight": (N_MODEL, N_EYE),
        "mm.0.bias": (N_MODEL,),
        "mm.2.weight": (N_MODEL, N_MODEL),
        "mm.2.bias": (N_MODEL,),
    }
    for layer in range(2):
        block = f"v.blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            shapes |= {f"{block}{name}.weight": (N_EYE, N_EYE), f"{block}{name}.bias": (N_EYE,)}
        for name in ("ln1", "ln2"):
            shapes |= {f"{block}{name}.weight": (N_EYE,), f"{block}{name}.bias": (N_EYE,)}
        shapes |= {f"{block}ffn_up.weight": (N_FEED, N_EYE), f"{block}ffn_up.bias": (N_FEED,)}
        shapes |= {f"{block}ffn_down.weight": (N_EYE, N_FEED), f"{block}ffn_down.bias": (N_EYE,)}
    numbers = {
        "embedding_length": N_EYE, "feed_forward_length": N_FEED, "block_count": 2,
        "projection_dim": N_MODEL, "attention.head_count": 2, "image_size": SIDE,
        "patch_size": PATCH,
    }  # fmt: skip
    keys = {
        "general.architecture": struct.pack("<I", 8) + text("clip"),
        "clip.projector_type": struct.pack("<I", 8) + text("mlp"),
        "clip.has_vision_encoder": value(7, "<?", True),
        "clip.use_gelu": value(7, "<?", True),
        "clip.vision.attention.layer_norm_epsilon": value(6, "<f", 1e-5),
        "clip.vision.image_mean": floats(0.5, 0.5, 0.5),
        "clip.vision.image_std": floats(0.5, 0.5, 0.5),
        **{f"clip.vision.{name}": value(4, "<I", n) for name, n in numbers.items()},
    }
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(keys))
    head += b"".join(text(key) + raw for key, raw in keys.items())
    data = b""
    for name, shape in shapes.items():
        dims = struct.pack(f"<{len(shape)}Q", *reversed(shape))
        head += text(name) + struct.pack("<I", len(shape)) + dims + struct.pack("<IQ", 0, len(data))
        array = random.normal(0, 0.1, shape).astype(np.float32)
        data += array.tobytes() + b"\0" * (-array.nbytes % 32)
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)


def png(shade: int, side: int = 40) -> bytes:
    """Draw a square of one grey."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    rows = (b"\0" + bytes([shade] * 3 * side)) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.fixture(scope="module")
def projector(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Projector]:
    path = tmp_path_factory.mktemp("eyes") / "mmproj-tiny.gguf"
    write_projector(path)
    one = Projector(model, path, n_threads=1, uses_gpu=False)
    one.on_part = SIGNS_OF_LIFE.append
    yield one
    one.close()


SIGNS_OF_LIFE: list[int] = []
"""The number of rows of each part, noted before it is computed."""


def images(pieces: list[object]) -> list[ImagePiece]:
    return [one for one in pieces if isinstance(one, ImagePiece)]


def test_an_image_becomes_a_piece_of_known_size(projector: Projector) -> None:
    SIGNS_OF_LIFE.clear()
    (piece,) = images([*projector.look(png(200))])
    assert SIGNS_OF_LIFE == [(SIDE // PATCH) ** 2]
    assert piece.rows.shape == ((SIDE // PATCH) ** 2, N_MODEL)
    (again,) = images([*projector.look(png(200))])
    (other,) = images([*projector.look(png(10))])
    assert piece.digest == again.digest != other.digest
    assert np.array_equal(piece.rows, again.rows)


def logits_after(model: Model, projector: Projector, image: bytes | None) -> np.ndarray:
    """Compute `look:`, an image, and `it is`; gives the next token's logits."""
    options = ContextOptions(n_ctx_tokens=256, n_batch_tokens=64, n_seq_max=2, n_threads=1)
    position = 0
    with Context(model, options) as context:
        for text_piece in ("look:", " it is"):
            tokens = model.tokenise(text_piece, with_special=False, parse_special=False)
            wanted = np.zeros(len(tokens), np.int8)
            wanted[-1] = 1
            positions = np.arange(position, position + len(tokens), dtype=np.int32)
            context.decode(tokens, positions, np.ones(len(tokens), np.int32), wanted)
            position += len(tokens)
            if image is not None and text_piece == "look:":
                for piece in images([*projector.look(image)]):
                    context.decode_image(piece.rows, position, seq_id=1)
                    position += len(piece.rows)
        return np.array(context.logits(1)[0])


def test_what_follows_an_image_depends_on_it(model: Model, projector: Projector) -> None:
    dark, light = (logits_after(model, projector, png(shade)) for shade in (0, 255))
    blind = logits_after(model, projector, None)
    assert np.isfinite(dark).all()
    assert not np.allclose(dark, light, atol=1e-3)
    assert not np.allclose(dark, blind, atol=1e-3)
    assert np.allclose(dark, logits_after(model, projector, png(0)), atol=1e-3)


def test_what_is_no_image_is_refused(projector: Projector) -> None:
    with pytest.raises(ValueError, match="libmtmd cannot decode this image"):
        projector.look(b"\x89PNG\r\n\x1a\nnothing more")


def test_a_file_that_is_no_projector_is_refused(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "mmproj.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(LoadFailed, match="libmtmd cannot load the projector"):
        Projector(model, path, n_threads=1)


async def test_a_pool_shows_images_to_a_model_with_a_projector(tmp_path: Path) -> None:
    own = ModelFinder(tmp_path, tmp_path).find("smollm2:135m").path
    (tmp_path / "seeing.gguf").symlink_to(own)
    write_projector(tmp_path / "mmproj-seeing.gguf")
    spec = ModelSpec(str(tmp_path / "seeing.gguf"), n_ctx_tokens=1024)
    settings = PoolSettings(
        n_threads=1, models_dir=tmp_path, cache_dir=tmp_path / "cache", profile_s=0
    )

    def asked(*images: bytes) -> ChatRequest:
        message = Message("user", "What colour is this?", images=images)
        return ChatRequest(spec, (message,), {"max_tokens": 12, "temperature": 0})

    async with LocalPool(settings) as pool:
        wishes = (asked(png(0)), asked(png(255)), asked(), asked(png(0), png(255)))
        replies = await asyncio.gather(*(pool.chat(one).reply() for one in wishes))
        plain = replies[2].usage.prompt_tokens
        assert [one.usage.prompt_tokens - plain for one in replies] == [4, 4, 0, 8]
        again = await pool.chat(wishes[0]).reply()
        assert again.text == replies[0].text
        assert again.usage.prompt_reused_tokens >= 4  # what was seen once is kept
        with pytest.raises(BadRequest) as caught:
            await pool.chat(asked(b"RIFF\0\0\0\0WEBP")).reply()
        assert str(caught.value) == (
            "image 1 is no PNG, JPEG, GIF or BMP (it is a WebP; convert it to PNG)"
        )
