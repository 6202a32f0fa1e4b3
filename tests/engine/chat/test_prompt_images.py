from __future__ import annotations

import struct

import numpy as np
import pytest

from paddock.engine.chat import prompt_images
from paddock.engine.chat.prompt_images import (
    ImagePlaceholders,
    check_image,
    image_size,
    place_images,
)
from paddock.engine.errors import BadRequest
from paddock.engine.llama.vision import ImagePiece

PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR"
JPEG = b"\xff\xd8\xff\xe0\0\x04ab" + b"\xff\xff\xc2\0\x11\x08" + struct.pack(">HH", 30, 40)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (PNG + struct.pack(">II", 40, 30), (40, 30)),
        (JPEG, (40, 30)),
        (b"GIF89a" + struct.pack("<HH", 40, 30), (40, 30)),
        (b"BM" + b"\0" * 16 + struct.pack("<ii", 40, -30), (40, 30)),
    ],
)
def test_an_image_tells_its_size_in_its_first_bytes(data: bytes, size: tuple[int, int]) -> None:
    check_image(data, 1)
    assert image_size(data) == size


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "image 2 is empty"),
        (b"<svg/>", "image 2 is no PNG, JPEG, GIF or BMP (it begins with b'<svg')"),
        (
            b"RIFF\0\0\0\0WEBPVP8 ",
            "image 2 is no PNG, JPEG, GIF or BMP (it is a WebP; convert it to PNG)",
        ),
        (
            PNG + struct.pack(">II", 100_000, 100_000),
            "image 2 has 100000 by 100000 pixels; at most 64 million are read",
        ),
        (PNG + b"\0" * 33 * 1024 * 1024, "image 2 has 33 MiB; at most 32 are read"),
        (JPEG[:9], "image 2 is no PNG, JPEG, GIF or BMP (it begins with b'\\xff\\xd8\\xff\\xe0')"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_in_plain_words(data: bytes, why: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_image(data, 2)
    assert str(caught.value) == why


def test_images_stand_among_the_tokens_by_numbers_of_their_own() -> None:
    def look(image: bytes) -> list[np.ndarray | ImagePiece]:
        return [
            np.array([7], np.int32),
            ImagePiece(image.hex().zfill(64), np.zeros((3, 4), np.float32)),
        ]

    numbers = ImagePlaceholders()
    texts = [np.array([1, 2], np.int32), np.array([3], np.int32), np.empty(0, np.int32)]
    tokens, placed = place_images(texts, [b"a", b"b"], look, numbers)
    assert [(one.start, len(one.piece.rows)) for one in placed] == [(3, 3), (8, 3)]
    assert tokens[:3].tolist() == [1, 2, 7]
    assert tokens[6:8].tolist() == [3, 7]
    assert (tokens[3:6] < 0).all()
    assert tokens[3:6].tolist() == place_images(texts[:2], [b"a"], look, numbers)[0][3:6].tolist()


def test_images_are_told_apart_by_all_of_their_digest_and_by_the_part_of_it() -> None:
    numbers, same = ImagePlaceholders(), "a" * 60
    pieces = [
        ImagePiece(digest, np.zeros((5, 4), np.float32))
        for digest in (f"{same}0000/0", f"{same}0000/1", f"{same}0001/0")
    ]
    given = [numbers.of(piece).tolist() for piece in pieces]
    assert len({number for one in given for number in one}) == 15
    assert [numbers.of(piece).tolist() for piece in pieces] == given


def test_numbers_of_images_begin_again_before_they_leave_32_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prompt_images, "_LAST_PLACEHOLDER", -20)
    numbers = ImagePlaceholders()
    seen = [
        numbers.of(ImagePiece(f"{number}/0", np.zeros((8, 4), np.float32))).tolist()
        for number in range(4)
    ]
    assert all(-20 <= number < -1 for one in seen for number in one)
    assert not set(seen[0]) & set(seen[1])


def test_a_template_that_leaves_an_image_out_is_told() -> None:
    with pytest.raises(BadRequest) as caught:
        place_images([np.empty(0, np.int32)], [b"a"], lambda _: [], ImagePlaceholders())
    assert str(caught.value) == "the model's chat template shows 0 of 1 images"
