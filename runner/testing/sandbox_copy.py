"""Sandbox of a test: a copy of the pipeline's folder, which starts without a ledger.

Without hidden folders, outputs of the folder's pipelines, and cassettes. Model files are linked.
Size and number of files are bounded.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from paddock.engine.system import no_links
from paddock.engine.system.records import Struct
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger, forgotten
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.steps.files.globs import BadPattern, Globs

MAX_COPY_BYTES = 256 * 1024 * 1024
MAX_COPY_FILES = 20_000
# Marks that no real text contains, so that a reply is never changed by chance.
FOLDER_MARK = "«folder»"
TMP_MARK = "«tmp»"
_LINKED_SUFFIXES = (".gguf", ".safetensors", ".onnx")
_NOT_COPIED = frozenset(("__pycache__", "node_modules"))


class SandboxError(Exception):
    """The copy cannot be made; the text is for the test's author."""


class SandboxCopy(Struct, frozen=True):
    file: Path
    tmp: Path
    original: Path

    @property
    def folder(self) -> Path:
        return self.file.parent

    def marked(self, text: str) -> str:
        return text.replace(str(self.folder), FOLDER_MARK).replace(str(self.tmp), TMP_MARK)

    def unmarked(self, text: str) -> str:
        return text.replace(FOLDER_MARK, str(self.folder)).replace(TMP_MARK, str(self.tmp))

    def for_person(self, text: str) -> str:
        return (
            text.replace(f"{self.folder}{os.sep}", "")
            .replace(str(self.folder), ".")
            .replace(str(self.tmp), "{{ tmp }}")
        )


@contextmanager
def sandbox_copy(
    file: Path, *, patterns: Sequence[str] = ("**/*",), without: Sequence[Path] = ()
) -> Iterator[SandboxCopy]:
    """Yield a copy of the folder of a pipeline's file; remove it afterwards.

    `patterns` are globs of files to copy, `without` files and folders to leave out.

    Raises:
        SandboxError: the folder is too large, or cannot be copied.
    """
    folder = file.absolute().parent.resolve()
    try:
        globs = Globs.of(patterns)
    except BadPattern as error:
        raise SandboxError(f"`files`: {error}.") from error
    left_out = frozenset(path.resolve() for path in without) | recorded_outputs(folder)
    with tempfile.TemporaryDirectory(prefix="paddock-test-", ignore_cleanup_errors=True) as name:
        root = Path(name).resolve()
        copy, tmp = root / "folder", root / "tmp"
        copy.mkdir()
        tmp.mkdir()
        try:
            _FolderCopier(folder, copy, globs, left_out).copy()
            if not (copy / file.name).exists():
                shutil.copy2(file, copy / file.name)
        except OSError as error:
            what = f"{error.filename}: {error.strerror}"
            raise SandboxError(f"a copy of '{folder}' cannot be made ({what}).") from error
        with forgotten(copy / ".paddock"):
            yield SandboxCopy(copy / file.name, tmp, folder)


def recorded_outputs(folder: Path) -> frozenset[Path]:
    state = folder / ".paddock"
    if not (state / "ledger.sqlite").is_file():
        return frozenset()
    try:
        with Ledger(state, is_readonly=True) as ledger:
            paths = {row.path for row in ledger.outputs()} | {*LineageStore(ledger).stores()}
            return frozenset(folder / path for path in paths)
    except LedgerError:
        return frozenset()  # a broken ledger must not fail a test


class _FolderCopier:
    def __init__(self, source: Path, target: Path, globs: Globs, left_out: frozenset[Path]) -> None:
        self._source = source
        self._target = target
        self._globs = globs
        self._left_out = left_out
        self._n_bytes = 0
        self._n_files = 0

    def copy(self) -> None:
        named = {self._source: self._globs.names_folder(".")}
        for at, folders, files in os.walk(self._source):
            here = Path(at)
            if not folders and not files and named[here]:  # copy empty folders, too
                (self._target / here.relative_to(self._source)).mkdir(parents=True, exist_ok=True)
            folders[:] = [name for name in folders if self._enters(here / name)]
            for name in folders:
                relative = (here / name).relative_to(self._source).as_posix()
                named[here / name] = named[here] or self._globs.names_folder(relative)
            for name in files:
                path = here / name
                relative = path.relative_to(self._source).as_posix()
                wants = self._globs.names_file(relative, in_named_folder=named[here])
                if wants and path not in self._left_out:
                    self._copy_path(path)

    def _enters(self, folder: Path) -> bool:
        hidden = folder.name.startswith(".") or folder.name in _NOT_COPIED
        return not hidden and folder not in self._left_out and not folder.is_symlink()

    def _copy_path(self, path: Path) -> None:
        target = self._target / path.relative_to(self._source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in _LINKED_SUFFIXES:
            target.symlink_to(path)
            return
        if path.is_symlink():
            target.symlink_to(path.readlink())
            return
        if not path.is_file():
            return  # a socket, a pipe
        with no_links.open_file(path) as file:
            facts = os.fstat(file.fileno())
            self._n_files += 1
            self._n_bytes += facts.st_size
            if self._n_files > MAX_COPY_FILES or self._n_bytes > MAX_COPY_BYTES:
                raise SandboxError(
                    f"a test runs on a copy of the pipeline's folder, and '{self._source}' holds "
                    f"more than {MAX_COPY_BYTES // 2**20} MiB or {MAX_COPY_FILES:,} files. Add "
                    f"`files:` with globs of the needed files, or move the pipeline to a folder of "
                    f"its own."
                )
            with target.open("xb") as copy:
                shutil.copyfileobj(file, copy)
                os.fchmod(copy.fileno(), stat.S_IMODE(facts.st_mode))
        os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
