"""Keep paths inside the folders that a pipeline may touch."""

from __future__ import annotations

import os
import stat
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
        path = self._without_links(text) or (self.base / text).resolve()
        if not any(path.is_relative_to(root) for root in self.allowed):
            raise OutsideRoots(text, self.allowed)
        return path

    def _without_links(self, text: str) -> Path | None:
        """Give the path where it is plain: no `..`, and no link below an allowed folder.

        The folders themselves are resolved, so only what lies below them is looked at: three
        system calls where `Path.resolve` makes seven, for each of ten thousand documents.
        """
        whole = os.path.normpath(os.path.join(self.base, text))  # noqa: PTH118 - the hot path
        root = next((str(root) for root in self.allowed if whole.startswith(f"{root}{os.sep}")), "")
        if not root or ".." in text:
            return None
        at = root
        for name in whole[len(root) + 1 :].split(os.sep):  # noqa: PTH206
            at = f"{at}{os.sep}{name}"
            try:
                mode = os.lstat(at).st_mode
            except FileNotFoundError:
                break  # what is not there cannot be a link
            except (OSError, ValueError):
                return None
            if stat.S_ISLNK(mode):
                return None
        return Path(whole)
