import re
import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from paddock.engine.chat import prompt_images
from paddock.engine.chat.image_checks import check_image
from paddock.engine.chat.prompt_images import ImagePlaceholders, place_images
from paddock.engine.errors import BadRequest
from paddock.engine.llama.image_cache import ImagePiece
from paddock.engine.system.image_headers import image_size
from tests.fakes.eyes import image_piece
from tests.fakes.odd_images import written as written_as

PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR"
JPEG = b"\xff\xd8\xff\xe0\0\x04ab" + b"\xff\xff\xc2\0\x11\x08" + struct.pack(">HH", 30, 40)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (PNG + struct.pack(">II", 40, 30), (40, 30)),
        (JPEG, (40, 30)),
        (b"GIF89a" + struct.pack("<HH", 40, 30), (40, 30)),
        (b"BM" + b"\0" * 12 + struct.pack("<Iii", 40, 40, -30), (40, 30)),
        (b"BM" + b"\0" * 12 + struct.pack("<IHHHH", 12, 40, 30, 1, 24), (40, 30)),
    ],
)
def test_an_image_tells_its_size_in_its_first_bytes(data: bytes, size: tuple[int, int]) -> None:
    assert image_size(data) == size


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"<svg/>", "image 2 is no PNG, JPEG, GIF or BMP (it is an SVG; convert it to PNG)"),
        (b"RIFF\0\0\0\0WAVEfmt ", "image 2 is no PNG, JPEG, GIF or BMP (it begins with b'RIFF')"),
        (
            b"<?xml version='1.0'?><rss>",
            "image 2 is no PNG, JPEG, GIF or BMP (it begins with b'<?xm')",
        ),
        (
            b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a plan -->\n<svg xmlns='#'>",
            "image 2 is no PNG, JPEG, GIF or BMP (it is an SVG; convert it to PNG)",
        ),
        (
            PNG + struct.pack(">IIBB", 6000, 6000, 16, 6),
            "image 2 has 6000 by 6000 pixels, for which 617 MiB of memory are needed; at most 384 "
            "are used: make it smaller, or save it with 8 bits and without transparency",
        ),
        (
            PNG + struct.pack(">II", 100_000, 100_000),
            "image 2 has 100000 by 100000 pixels; at most 64 million are read: make it smaller",
        ),
        (
            PNG + b"\0" * 33 * 1024 * 1024,
            "image 2 has 33 MiB; at most 32 are read: make it smaller",
        ),
        (JPEG[:9], "image 2 is no PNG, JPEG, GIF or BMP (it begins with b'\\xff\\xd8\\xff\\xe0')"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_in_plain_words(data: bytes, why: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_image(data, 2)
    assert str(caught.value) == why


def written(kind: str) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (30, 41, 3)).astype(np.uint8)
    return written_as(Image.fromarray(noise), kind)


@pytest.mark.parametrize(
    ("kind", "oddly_ended"),
    [
        ("GIF", lambda data: data + b"made by a scanner"),
        ("GIF", lambda data: data[:-1]),
        ("JPEG", lambda data: data + b"made by a scanner"),
        ("JPEG", lambda data: data.replace(b"\xff\xda", b"\0\xff\xda", 1)),
        ("BMP", lambda data: data[:-1]),
    ],
)
def test_a_whole_picture_with_an_odd_end_is_taken_and_half_a_picture_is_refused(
    kind: str, oddly_ended: Callable[[bytes], bytes]
) -> None:
    data = oddly_ended(written(kind))
    check_image(data, 1)
    with pytest.raises(BadRequest, match="it is cut off" if kind == "JPEG" else "1 is cut off"):
        check_image(data[: len(data) // 2], 1)


WHOLE = written("JPEG")


def scans(n: int) -> bytes:
    drawn = Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    head, *rest = re.split(b"(?=\xff\xda)", written_as(drawn, "JPEG", progressive=True))
    return head + rest[0] * n + b"".join(rest)


UNREADABLE = "cannot be read: its picture cannot be decoded; the file is damaged or cut off"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (WHOLE[: len(WHOLE) // 2] + WHOLE,
         "is cut off: another picture begins before its own ends; copy it again"),
        (WHOLE.removesuffix(b"\xff\xd9"),
         "has no mark at its end: it is cut off, or was saved without one; "
         "open it with a program that shows it, and save it again"),
        (JPEG + b"\0" * 10 + b"\xff\xd9", UNREADABLE),
        (WHOLE.replace(b"\xff\xda", b"\xff\x3a", 1), UNREADABLE),
        (WHOLE.replace(b"\xff\xda", JPEG[8:] + b"\0" * 10 + b"\xff\xda", 1), UNREADABLE),
        (scans(200), UNREADABLE),
        # An iPhone's file has another part before its header, and so could hide its size.
        (PNG[:8] + b"\0\0\0\x10CgBI" + struct.pack(">II", 10, 10) + b"\0" * 12,
         "is no PNG, JPEG, GIF or BMP (it begins with b'\\x89PNG')"),
    ],
)  # fmt: skip
def test_a_picture_that_its_decoder_would_leave_out_is_refused(data: bytes, why: str) -> None:
    for whole in (scans(10), WHOLE + WHOLE[: len(WHOLE) // 2]):
        check_image(whole, 1)
    with pytest.raises(BadRequest) as caught:
        check_image(data, 1)
    assert str(caught.value) == f"image 1 {why}"


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xe0\0\x02" * 1_100_000 + JPEG[2:],
        JPEG + b"\0" * 20 + b"\xff\xe0\0\x02" * 1_100_000 + b"\xff\xd9",
    ],
)
def test_a_jpeg_of_too_many_parts_is_not_walked_to_its_end(data: bytes) -> None:
    with pytest.raises(BadRequest):
        check_image(data, 1)


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
