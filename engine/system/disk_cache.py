"""A folder of files that can be made again: bounded by size and by the time since the last use."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from paddock.engine.system.records import Struct

from .disk_space import free_disk_bytes
from .files import write_atomically
from .units import DAY_S

# Of the disk's free space: what is kept goes when others need the room.
_MOST_OF_FREE = 0.25


class KeptFiles(Struct, frozen=True):
    """Bounds of such a folder, whose files may lie in folders within it."""

    folder: Path
    most_bytes: int
    most_age_s: float

    def read(self, file: Path) -> bytes | None:
        """Return what a file holds, and count that as a use; None if it is not there."""
        with suppress(OSError):
            data = file.read_bytes()
            os.utime(file)
            return data
        return None

    def write(self, file: Path, data: bytes) -> None:
        """Write a file, for its owner alone, after room was made for it; or do nothing.

        A disk that is full or cannot be written costs only the time to make it again.
        """
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            n_most = min(self.most_bytes, int(free_disk_bytes(self.folder) * _MOST_OF_FREE)) - len(
                data
            )
            if n_most >= 0:
                self.remove(n_most_bytes=n_most)
                write_atomically(file, data)

    def remove(
        self,
        *,
        n_most_bytes: int | None = None,
        unused_s: float | None = None,
        is_dry: bool = False,
    ) -> tuple[int, int]:
        """Remove what was not used for so long, and the longest unused beyond so many bytes.

        Return how many files these are, and their bytes.
        """
        kept_bytes = n_removed = n_removed_bytes = 0
        used_after = time.time() - (self.most_age_s if unused_s is None else unused_s)
        for used_at, n_bytes, file in sorted(self._files(), reverse=True):
            kept_bytes += n_bytes
            is_too_much = n_most_bytes is not None and kept_bytes > n_most_bytes
            if used_at >= used_after and not is_too_much:
                continue
            kept_bytes -= n_bytes
            n_removed, n_removed_bytes = n_removed + 1, n_removed_bytes + n_bytes
            if not is_dry:
                with suppress(OSError):  # another process removed it
                    file.unlink()
        return n_removed, n_removed_bytes

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with suppress(OSError):
                    facts = (file := Path(folder, name)).stat()
                    yield facts.st_mtime, facts.st_size, file


# A photograph has 2 MB with SmolVLM-256M and 19 MB with Qwen2.5-VL 7B, and takes a processor
# seconds: 100 to 1,000 documents for a second prompt about them, or a second step.
MOST_IMAGE_BYTES, MOST_IMAGE_AGE_S = 2 * 1024**3, 7 * DAY_S


def kept_image_files(cache_dir: Path) -> KeptFiles:
    """Return the files of images as projectors computed them, see `engine.llama.image_cache`."""
    return KeptFiles(cache_dir / "images", MOST_IMAGE_BYTES, MOST_IMAGE_AGE_S)
