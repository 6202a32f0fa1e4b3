"""Checks of a request's image before it is decoded, by its file's header."""

from __future__ import annotations

from paddock.engine.errors import BadRequest
from paddock.engine.system.images import ImageTooLarge, opened_image

MAX_IMAGE_BYTES = 32 * 1024 * 1024


def check_image(data: bytes, number: int) -> None:
    """Check an image's kind and size.

    `number`: its place among the request's images, counted from one.

    Raises:
        BadRequest: it cannot be read or is too large.
    """
    mib = 1024 * 1024
    if len(data) > MAX_IMAGE_BYTES:
        raise BadRequest(
            f"image {number} has {len(data) // mib} MiB; at most {MAX_IMAGE_BYTES // mib} are "
            "read: make it smaller"
        )
    if not data:
        raise BadRequest(f"image {number} is empty: its file has 0 bytes")
    try:
        opened_image(data).close()
    except ImageTooLarge as error:
        raise BadRequest(f"image {number} is too large: {error}") from error
    except ValueError as error:
        raise BadRequest(
            f"image {number} is no whole PNG, JPEG, GIF, BMP or WebP ({error}); convert it to PNG"
        ) from error
