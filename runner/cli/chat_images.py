"""Images named in a question of the terminal chat.

Only a path to an existing file is an image, so text that merely looks like a path stays text.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

MAX_IMAGE_BYTES = 100 * 1024 * 1024

_IMAGE_SUFFIX = r"\.(?:png|jpe?g|webp|gif|bmp)"
# In quotes, or without them and with spaces escaped as in shells.
_IMAGE_PATH = re.compile(
    rf"'([^'\n]+{_IMAGE_SUFFIX})'|\"([^\"\n]+{_IMAGE_SUFFIX})\"|((?:[^\s\\'\"]|\\.)+{_IMAGE_SUFFIX})(?![\w/]|\.\w)",
    re.IGNORECASE,
)


class NotAnImage(Exception):
    """File that is not a readable image."""


def find_images(text: str) -> tuple[str, tuple[Path, ...]]:
    """Return the question without the image paths in it, and those paths."""
    found: list[Path] = []

    def taken(match: re.Match[str]) -> str:
        quoted = match[1] or match[2]
        path = Path(quoted or re.sub(r"\\(.)", r"\1", match[3])).expanduser()
        if not _is_existing_file(path):
            return match[0]
        found.append(path)
        return ""

    rest = _IMAGE_PATH.sub(taken, text)
    return (re.sub(r"[ \t]{2,}", " ", rest).strip() if found else text), tuple(found)


def _is_existing_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def encode_image(path: Path) -> str:
    """Read an image as base64.

    Raises:
        NotAnImage: it cannot be read, or is not an image.
    """
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= MAX_IMAGE_BYTES else b""
    except OSError as error:
        raise NotAnImage(f"'{path}' cannot be read: {error.strerror}.") from None
    if size > MAX_IMAGE_BYTES:
        raise NotAnImage(f"'{path}' has more than {MAX_IMAGE_BYTES // 1024**2} MiB.")
    marks = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM")
    is_image = raw.startswith(marks) or (raw[:4] == b"RIFF" and raw[8:12] == b"WEBP")
    if not is_image:
        raise NotAnImage(f"'{path}' is not an image. Known formats: PNG, JPEG, WebP, GIF, BMP.")
    return base64.b64encode(raw).decode("ascii")
