"""Keep paths inside the folders that a pipeline may touch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class OutsideRoots(Exception):
    """A path that leads out of every allowed folder."""

    def __init__(self, text: str, roots: tuple[Path, ...]) -> None:
        self.text = text
        self.roots = roots
        allowed = ", ".join(f"'{root}'" for root in roots)
        super().__init__(
            f"path '{text}' leads outside the pipeline's folders ({allowed}). "
            f"Give that folder as a `dir` or `path` input to allow it."
        )


@dataclass(frozen=True, slots=True)
class Roots:
    """The pipeline's own folder, against which relative paths are read, and what inputs add."""

    base: Path
    allowed: tuple[Path, ...]
    """Absolute, with symlinks resolved; `base` is among them."""

    def resolve(self, text: str) -> Path:
        """Give the absolute path, symlinks resolved, also of a file that is not there yet.

        Raises:
            OutsideRoots: it does not lie under one of `allowed`.
        """
        path = (self.base / text).resolve()
        if not any(path.is_relative_to(root) for root in self.allowed):
            raise OutsideRoots(text, self.allowed)
        return path
