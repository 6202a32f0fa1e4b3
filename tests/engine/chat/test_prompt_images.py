import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from paddock.engine.chat import prompt_images
from paddock.engine.chat.image_checks import check_image
from paddock.engine.chat.prompt_images import ImagePlaceholders, place_images
from paddock.engine.errors import BadRequest
from paddock.engine.llama.image_cache import ImagePiece
from paddock.engine.llama.vision import DAMAGED, upright_pixels
from tests.fakes.eyes import image_piece
from tests.fakes.odd_images import written

LARGE = "too large: it has more than {} million pixels: make it smaller"
KINDS = "PNG, JPEG, GIF, BMP or WebP"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"<svg/>", f"no whole {KINDS} (it begins with b'<svg'); convert it to PNG"),
        (b"\x89PNG", f"no whole {KINDS} (it begins with b'\\x89PNG'); convert it to PNG"),
        (written(Image.new("1", (9000, 9000)), "PNG"), LARGE.format(64)),
        (written(Image.new("L", (6200, 6200)), "WEBP", method=0), LARGE.format(37)),
    ],
)
def test_what_cannot_be_looked_at_is_refused_in_plain_words(data: bytes, why: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_image(data, 2)
    assert str(caught.value) == f"image 2 is {why}"


NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 410, 3)).astype(np.uint8))
JPEG = written(NOISE, "JPEG")


def scans(n: int) -> bytes:
    head, *rest = re.split(b"(?=\xff\xda)", written(NOISE, "JPEG", progressive=True))
    return head + rest[0] * n + b"".join(rest)


@pytest.mark.parametrize(
    ("kind", "oddly_ended"),
    [
        ("GIF", lambda data: data + b"made by a scanner"),
        ("GIF", lambda data: data[:-1]),
        ("JPEG", lambda data: data + b"made by a scanner"),
        ("JPEG", lambda data: data.replace(b"\xff\xda", b"\0\xff\xda", 1)),
        ("BMP", lambda data: data[:-1]),
        ("PNG", lambda data: data),
        ("WEBP", lambda data: data),
    ],
)
def test_a_whole_picture_with_an_odd_end_is_taken_and_half_a_picture_is_refused(
    kind: str, oddly_ended: Callable[[bytes], bytes]
) -> None:
    data = oddly_ended(written(NOISE, kind))
    check_image(data, 1)
    assert upright_pixels(data).shape == (300, 410, 3)
    with pytest.raises(ValueError, match=DAMAGED):
        upright_pixels(data[: len(data) // 2])


@pytest.mark.parametrize(
    "data",
    [
        JPEG[: len(JPEG) // 2] + JPEG,
        JPEG.removesuffix(b"\xff\xd9"),
        JPEG.replace(b"\xff\xda", b"\xff\x3a", 1),
        scans(200),
    ],
    ids=["begins in the middle of another", "no end", "unknown part", "200 scans"],
)
def test_a_picture_that_its_decoder_would_leave_out_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=DAMAGED):
        upright_pixels(data)


def test_images_stand_among_the_tokens_by_numbers_of_their_own() -> None:
    def look(image: bytes, n_most_rows: int) -> list[np.ndarray | ImagePiece]:
        return [np.array([7], np.int32), image_piece(image.hex().zfill(64), 3)]

    numbers = ImagePlaceholders()
    texts = [np.array([1, 2], np.int32), np.array([3], np.int32), np.array([4], np.int32)]
    tokens, placed = place_images(texts, [b"a", b"b"], look, numbers)
    assert [(placed_image.start, len(placed_image.piece.rows)) for placed_image in placed] == [
        (3, 3),
        (8, 3),
    ]
    assert tokens[:3].tolist() == [1, 2, 7]
    assert tokens[6:8].tolist() == [3, 7]
    assert (tokens[3:6] < 0).all()
    assert tokens[3:6].tolist() == place_images(texts[:2], [b"a"], look, numbers)[0][3:6].tolist()


def test_images_are_told_apart_by_all_of_their_digest_and_by_the_part_of_it() -> None:
    numbers, same = ImagePlaceholders(), "a" * 60
    pieces = [
        image_piece(digest, 5) for digest in (f"{same}0000/0", f"{same}0000/1", f"{same}0001/0")
    ]
    given = [numbers.of(piece).tolist() for piece in pieces]
    assert len({number for numbers_of_piece in given for number in numbers_of_piece}) == 15
    assert [numbers.of(piece).tolist() for piece in pieces] == given


def test_numbers_of_images_begin_again_before_they_leave_32_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prompt_images, "_LAST_NUMBER", 160)
    numbers = ImagePlaceholders()
    seen = [numbers.of(image_piece(f"{number}/0", 8)).tolist() for number in range(4)]
    assert all(-164 <= number < -1 for numbers_of_piece in seen for number in numbers_of_piece)
    assert not set(seen[0]) & set(seen[1])


@pytest.mark.parametrize(
    ("texts", "n_pieces", "why"),
    [
        (([1], []), 1, "the prompt ends with an image: add a text after it"),
        (([],), 0, "the model's chat template shows 0 of 1 images"),
    ],
)
def test_images_in_wrong_places_are_refused(
    texts: tuple[list[int], ...], n_pieces: int, why: str
) -> None:
    parts = [np.array(text, np.int32) for text in texts]
    with pytest.raises(BadRequest) as caught:
        place_images(
            parts, [b"a"], lambda *_: [image_piece("a", 3)] * n_pieces, ImagePlaceholders()
        )
    assert str(caught.value) == why
