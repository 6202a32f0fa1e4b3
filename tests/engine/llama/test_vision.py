import asyncio
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from paddock.engine.backends.local import LocalPool
from paddock.engine.chat.image_checks import check_image
from paddock.engine.llama.image_cache import ImageDisk, ImagePiece, KeptImages, PromptPiece
from paddock.engine.llama.library import LoadFailed
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.vision import Projector
from paddock.engine.request import ChatRequest, Message, ModelSpec, Reply
from paddock.engine.system.records import replace
from tests.engine.pools import SETTINGS
from tests.fakes import tiny
from tests.fakes.crashing import preloadable
from tests.fakes.eyes import FAMILIES, llava, noise, square, write_family
from tests.fakes.odd_images import written

N_MODEL, SIDE, PATCH = 576, 28, 14  # SmolLM2-135M, and the pixels of LLaVA's images


@pytest.fixture(scope="module")
def projector(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Projector]:
    path = tmp_path_factory.mktemp("eyes") / "mmproj-tiny.gguf"
    llava(path, N_MODEL)
    loaded = Projector(model, path, n_threads=1, n_pass_tokens=64, uses_gpu=False)
    loaded.on_part = SIGNS_OF_LIFE.append
    yield loaded
    loaded.close()


@pytest.fixture
def eyes(tmp_path: Path) -> Iterator[Callable[..., Projector]]:
    """Yield what returns the projector of a family, with its model; both are closed at the end."""
    opened: list[Projector | Model] = []

    def open_eyes(family: str, mmproj: Path | None = None, **options: Any) -> Projector:
        path, own = write_family(family, tmp_path)
        opened.append(model := Model(path))
        given = {"n_threads": 1, "n_pass_tokens": 64, "uses_gpu": False, **options}
        opened.append(projector := Projector(model, mmproj or own, **given))
        return projector

    yield open_eyes
    for loaded in reversed(opened):
        loaded.close()


SIGNS_OF_LIFE: list[int] = []
"""The number of rows of each part, noted before it is computed."""


def images(pieces: list[object]) -> list[ImagePiece]:
    return [piece for piece in pieces if isinstance(piece, ImagePiece)]


def test_an_image_becomes_a_piece_of_known_size(projector: Projector) -> None:
    SIGNS_OF_LIFE.clear()
    (piece,) = images([*projector.embed_image(square(200))])
    assert SIGNS_OF_LIFE == [(SIDE // PATCH) ** 2]
    assert piece.rows.shape == ((SIDE // PATCH) ** 2, N_MODEL)
    (again,) = images([*projector.embed_image(square(200))])
    (other,) = images([*projector.embed_image(square(10))])
    assert piece.digest == again.digest != other.digest
    assert np.array_equal(piece.rows, again.rows)


def test_a_file_that_is_no_projector_is_refused(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "mmproj.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(LoadFailed, match="libmtmd cannot load the projector"):
        Projector(model, path, n_threads=1, n_pass_tokens=64)


def rows_of(projector: Projector, data: bytes) -> np.ndarray:
    check_image(data, 1)
    (piece,) = images([*projector.embed_image(data)])
    return piece.rows


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_seen_upright(projector: Projector, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = written(Image.open(io.BytesIO(noise(1, 28, 28))), "JPEG", exif=exif, quality=100)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(lying)))
    seen = rows_of(projector, written(upright, "PNG"))
    # The two decoders of JPEG differ a little; another orientation does by several units.
    assert np.abs(rows_of(projector, lying) - seen).max() < 0.3


def test_pictures_of_every_kind_are_seen_as_their_first_picture_in_eight_bits(
    projector: Projector,
) -> None:
    plain = Image.new("RGB", (28, 28), (200, 100, 50))
    seen = rows_of(projector, written(plain, "PNG"))
    others = [Image.new("RGB", (28, 28), (0, 0, 0))]
    indexed = written(plain, "GIF", save_all=True, append_images=others)
    assert np.allclose(rows_of(projector, indexed), seen, atol=0.05)
    cmyk = written(plain.convert("CMYK"), "JPEG", quality=100)
    assert np.allclose(rows_of(projector, cmyk), seen, atol=0.05)
    grey = rows_of(projector, written(Image.new("L", (28, 28), 128), "PNG"))
    deep = Image.fromarray(np.full((28, 28), 0x8080, np.uint16))
    assert np.allclose(rows_of(projector, written(deep, "PNG")), grey, atol=0.05)


def transparent(kind: str) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (28, 28, 4)).astype(np.uint8)
    drawn = Image.fromarray(pixels, "RGBA")
    match kind:
        case "palette of 2 bits":
            few = drawn.convert("RGB").quantize(4)
            return written(few, "PNG", bits=2, transparency=bytes([0, 80, 160, 255]))
        case "palette":
            return written(drawn.convert("P"), "PNG", transparency=0)
        case "GIF":
            return written(drawn, "GIF")
        case "WEBP":
            return written(drawn, "WEBP", lossless=True)
        case "one colour":
            pixels[:14] = 200
            return written(Image.fromarray(pixels).convert("RGB"), "PNG", transparency=(200,) * 3)
    return written(drawn.convert(kind), "PNG")


@pytest.mark.parametrize(
    "kind", ["RGBA", "LA", "palette", "palette of 2 bits", "one colour", "GIF", "WEBP"]
)
def test_a_transparent_picture_is_seen_on_white(projector: Projector, kind: str) -> None:
    data = transparent(kind)
    shown = Image.open(io.BytesIO(data)).convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    assert np.abs(rows_of(projector, data) - rows_of(projector, written(flat, "PNG"))).max() < 0.3
    assert np.abs(rows_of(projector, data) - rows_of(projector, square(255))).max() > 0.3


@pytest.mark.parametrize(
    ("data", "n_most_rows", "why"),
    [
        (b"\x89PNG\r\n\x1a\nnothing more", None,
         "its picture cannot be decoded; the file is damaged or cut off"),
        (square(7), 4,
         "it takes 4 tokens, and the context has room for 4: make it smaller, or the context "
         "longer"),
    ],
    ids=["damaged", "exceeds the context"],
)  # fmt: skip
def test_an_image_that_cannot_be_seen_is_refused_before_it_is_computed(
    projector: Projector, data: bytes, n_most_rows: int | None, why: str
) -> None:
    SIGNS_OF_LIFE.clear()
    with pytest.raises(ValueError) as caught:
        projector.embed_image(data, *([] if n_most_rows is None else [n_most_rows]))
    assert str(caught.value) == why
    assert not SIGNS_OF_LIFE


def test_a_kept_picture_has_no_more_room_than_a_new_one(projector: Projector) -> None:
    data = square(10)
    for _ in range(2):
        with pytest.raises(ValueError, match="the context has room for 0: make it smaller"):
            projector.embed_image(data, -5)
        projector.embed_image(data)


def test_no_other_program_is_asked_what_a_picture_is(
    projector: Projector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ffprobe", "ffmpeg"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ValueError, match="the file is damaged or cut off"):
        projector.embed_image(noise(1)[:200])
    assert not (tmp_path / "was-run").exists()


def test_images_that_were_seen_are_kept_within_a_bound(model: Model, tmp_path: Path) -> None:
    n_image_bytes = 4 * N_MODEL * 4
    path = llava(tmp_path / "mmproj.gguf", N_MODEL)
    keeping = Projector(
        model,
        path,
        n_threads=1,
        n_pass_tokens=64,
        uses_gpu=False,
        kept=KeptImages(2 * n_image_bytes),
    )
    computed: list[int] = []
    keeping.on_part = computed.append
    for shade in (0, 1, 0, 1, 2, 1, 0):
        keeping.embed_image(square(shade))
    assert len(computed) == 4, "three images, and the first again, which made room for the third"
    keeping.close()


@pytest.mark.parametrize("family", ["llava", "smolvlm", "qwen3vl", "gemma3"])
def test_an_image_of_a_document_is_read_from_the_disk_by_the_next_worker(
    tmp_path: Path, eyes: Callable[..., Projector], family: str
) -> None:
    computed: list[int] = []

    def look(computed_by: str, *, on_disk: bool) -> tuple[PromptPiece, ...]:
        eye = eyes(family, kept=KeptImages(0, ImageDisk(tmp_path, (computed_by, "build"))))
        eye.on_part = computed.append
        return eye.embed_image(noise(1, 60, 90), on_disk=on_disk)

    look("one", on_disk=False)
    assert not (tmp_path / "images").exists(), "what comes by HTTP stays in memory"
    first, n_parts = look("one", on_disk=True), len(computed) // 2
    again = look("one", on_disk=True)
    assert len(computed) == 2 * n_parts > 0
    for part, other in zip(map(parts, first), map(parts, again), strict=True):
        assert part[0] == other[0]
        assert np.array_equal(part[1], other[1])
        assert np.array_equal(part[2], other[2])
    look("another", on_disk=True)
    assert len(computed) == 3 * n_parts, "another projector computes for itself"
    for file in (tmp_path / "images").glob("*/*"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    look("one", on_disk=True)
    assert len(computed) == 4 * n_parts, "a damaged file counts as none"


def parts(piece: PromptPiece) -> tuple[object, np.ndarray, np.ndarray]:
    if not isinstance(piece, ImagePiece):
        return None, piece, piece
    return (piece.digest, piece.n_positions, piece.is_causal), piece.rows, piece.positions


def test_a_pool_keeps_images_of_documents_alone_on_the_disk(tmp_path: Path) -> None:
    path, _ = write_family("llava", tmp_path)
    settings = replace(SETTINGS, models_dir=tmp_path, cache_dir=tmp_path / "cache")

    async def answer(*, keeps_images: bool) -> Reply:
        spec = ModelSpec(str(path), n_ctx_tokens=512)
        turns = (Message("user", "What is it?", images=(noise(3),)),)
        request = ChatRequest(spec, turns, {"max_tokens": 4}, keeps_images=keeps_images)
        async with LocalPool(settings) as pool:
            return await pool.chat(request).reply()

    plain = asyncio.run(answer(keeps_images=False))
    assert not [*tmp_path.glob("cache/images/*")]
    kept = asyncio.run(answer(keeps_images=True))
    (file,) = tmp_path.glob("cache/images/*/*")
    os.utime(file, (0, 0))
    again = asyncio.run(answer(keeps_images=True))
    assert plain.text == kept.text == again.text
    assert file.stat().st_mtime > 0, "it was used"


def test_an_image_that_exceeds_a_pass_is_refused_only_where_it_needs_one_pass(
    eyes: Callable[..., Projector],
) -> None:
    with pytest.raises(ValueError) as caught:
        eyes("gemma3", n_pass_tokens=8).embed_image(square(0))
    assert str(caught.value) == (
        "this model reads an image in one pass, and its 16 rows exceed the 8 of `n_batch_tokens`"
    )
    eyes("qwen2vl", n_pass_tokens=8).embed_image(square(0))


Rows = dict[str, NDArray[np.float32]]
"""By family."""

SEES = """
import sys, numpy
from pathlib import Path
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.image_cache import ImagePiece
from paddock.engine.llama.vision import Projector
image, out, *files = map(Path, sys.argv[1:])
found = {}
for model, mmproj in zip(files[::2], files[1::2]):
    eye = Projector(Model(model), mmproj, n_threads=1, n_pass_tokens=64, uses_gpu=False)
    rows = [one.rows for one in eye.embed_image(image.read_bytes()) if isinstance(one, ImagePiece)]
    found[model.parent.name] = numpy.concatenate(rows)
numpy.savez(out, **found)
"""


@pytest.fixture(scope="module")
def rows_of_families(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rows, Rows]:
    """Return what each family makes of an image, plain and where new memory is filled."""
    folder = tmp_path_factory.mktemp("families")
    image = folder / "image.png"
    image.write_bytes(noise(3, 80, 48))
    files = list[Path]()
    for family in FAMILIES:
        (folder / family).mkdir()
        files += write_family(family, folder / family)
    found = list[Rows]()
    for library in ("", preloadable(folder, "unwritten")):
        out = folder / "rows.npz"
        command = [sys.executable, "-c", SEES, *map(str, (image, out, *files))]
        subprocess.run(command, env={**os.environ, "LD_PRELOAD": library}, check=True)
        found.append(dict(np.load(out)))
    return found[0], found[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_do_not_depend_on_memory_that_was_never_written(
    family: str, rows_of_families: tuple[Rows, Rows]
) -> None:
    plain, filled = (rows[family] for rows in rows_of_families)
    assert np.isfinite(plain).all()
    assert np.array_equal(plain, filled)


def test_an_image_for_which_a_projector_computes_no_numbers_is_refused(
    eyes: Callable[..., Projector], tmp_path: Path
) -> None:
    (tmp_path / "broken").mkdir()
    _, mmproj = write_family("pixtral", tmp_path / "broken")
    tiny.fill(mmproj, {"v.blk.0.ffn_up.bias": np.full(64, np.nan)})
    with pytest.raises(ValueError, match="its projector computes what is no number for it"):
        eyes("pixtral", mmproj).embed_image(noise(1))


def test_a_projector_whose_tags_the_model_lacks_is_refused(
    eyes: Callable[..., Projector], tmp_path: Path
) -> None:
    _, mmproj = write_family("smolvlm", tmp_path)
    with pytest.raises(ValueError, match="they do not belong together"):
        eyes("llava", mmproj).embed_image(square(0))


async def test_one_file_with_a_projector_and_without_is_two_models(tmp_path: Path) -> None:
    refs = {}
    for name in ("blind", "seeing"):
        (tmp_path / name).mkdir()
        refs[name] = tmp_path / name / "llava.gguf"
    weights, _ = write_family("llava", tmp_path / "seeing")
    refs["blind"].symlink_to(weights)
    settings = replace(SETTINGS, models_dir=tmp_path, cache_dir=tmp_path)
    async with LocalPool(settings) as pool:
        for name, images in (("blind", ()), ("seeing", (square(0),))):
            message = Message("user", "What is it?", images=images)
            spec = ModelSpec(str(refs[name]), n_ctx_tokens=512)
            reply = await pool.chat(ChatRequest(spec, (message,), {"max_tokens": 2})).reply()
            assert reply.usage.completion_tokens, name
