"""Find the images that a question names by their paths, and read them.

Only what exists as a file counts, so that a sentence which merely looks like a path stays text.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
MOST_BYTES = 100 * 1024 * 1024

_ENDING = r"\.(?:png|jpe?g|webp|gif|bmp)"
# In quotes; or without, where spaces have backslashes as shells and terminals write them.
_NAMED = re.compile(
    rf"'([^'\n]+{_ENDING})'|\"([^\"\n]+{_ENDING})\"|((?:[^\s\\'\"]|\\.)+{_ENDING})(?![\w/]|\.\w)",
    re.IGNORECASE,
)


class NotAnImage(Exception):
    """A file that cannot be shown to a model."""


def find(text: str) -> tuple[str, tuple[Path, ...]]:
    """Part a question from the images that it names; gives the text without them."""
    found: list[Path] = []

    def taken(match: re.Match[str]) -> str:
        quoted = match[1] or match[2]
        path = Path(quoted or re.sub(r"\\(.)", r"\1", match[3])).expanduser()
        if not _is_file(path):
            return match[0]
        found.append(path)
        return ""

    rest = _NAMED.sub(taken, text)
    return (re.sub(r"[ \t]{2,}", " ", rest).strip() if found else text), tuple(found)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def encoded(path: Path) -> str:
    """Read an image as base64.

    Raises:
        NotAnImage: it cannot be read, or is no image.
    """
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise NotAnImage(f"'{path}' cannot be read: {error.strerror}.") from None
    if size > MOST_BYTES:
        raise NotAnImage(f"'{path}' has more than {MOST_BYTES // 1024**2} MiB.")
    if not _is_image(raw):
        raise NotAnImage(f"'{path}' is no image: PNG, JPEG, WebP, GIF and BMP are known.")
    return base64.b64encode(raw).decode("ascii")


def _is_image(raw: bytes) -> bool:
    marks = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM")
    return raw.startswith(marks) or (raw[:4] == b"RIFF" and raw[8:12] == b"WEBP")
