"""The step `files.move`: move, copy or delete one file, atomically.

Never replaces another file unless the author asks for it.

The ledger notes a move before it is made, so that after a kill the run recognises its own file. A
moved file belongs to the user and is never pruned; a copy is an output. A new file under the name
of a moved one is moved too, whatever its content. A document that was moved before, and belongs to
another place by now, is moved on; one that a person edited or removed since is left. One that is to
be deleted goes when its item is recorded.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from paddock.engine.system import files, no_links
from paddock.engine.system.files import TemporaryFile
from paddock.engine.system.tasks import in_left_thread
from paddock.steps.base import Output, Params, Step, StepError, Tools
from paddock.steps.effects import MovedDocument, MoveTarget
from paddock.steps.facts import Facts
from paddock.steps.paths import (
    file_sha256,
    numbered_name,
    os_errors_refused,
    printable,
    resolve_path,
)

_MOST_NAMES = 1000


class FilesMoveParams(Params):
    path: Annotated[str, MovedDocument] = Field(min_length=1, description="The file.")
    to: Annotated[str | None, MoveTarget] = Field(
        default=None,
        min_length=1,
        description="Its new path; with a `/` at the end, or of a folder, the folder it goes to.",
        examples=["done/a.md"],
    )
    mode: Literal["move", "copy", "delete"] = Field(
        default="move", description="`delete` needs no `to`."
    )
    on_exists: Literal["rename", "replace", "fail"] = Field(
        default="rename",
        description="If another file is there; `rename` adds a number to the name.",
    )

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        """Return the fault that `to` is missing, unless `mode` is `delete` or only a run knows."""
        lacks = "to" not in given and given.get("mode", "move") in ("move", "copy")
        own = (("give `to`, or `mode: delete`.", ""),) if lacks else ()
        return (*super().faults(given), *own)


class FilesMoveOutput(Output):
    """Outputs of `files.move`: where the file is now, absolute; after `delete` where it was."""

    path: str


class FilesMove(Step[FilesMoveParams, FilesMoveOutput]):
    """Move, copy or delete a file, across devices too."""

    params = FilesMoveParams
    output = FilesMoveOutput
    facts = Facts(outputs_where_written=lambda path: {"path": path})

    def reads(self, params: FilesMoveParams) -> Sequence[str]:
        return (params.path,) if params.mode == "copy" else ()

    async def run(self, params: FilesMoveParams, tools: Tools) -> FilesMoveOutput:
        """Move, copy or delete a file.

        1. One that was filed before is moved on, unless a person edited or removed it since.
        2. One that is to be deleted goes now, or once its item is recorded.
        3. One that is where it belongs stays, under a numbered name, too, if it was filed.
        4. One that is gone was moved by this item before a run was killed, or is missing.
        5. Any other gets a free name.
        """
        outputs, source = tools.files.outputs, resolve_path(tools.files.roots, params.path)
        listed, filed = source, None
        if params.mode != "copy":
            outputs.check_target(source, is_new=False)
            filed = outputs.filed_at(source)
        if filed is not None:  # 1.
            source, listed = filed.path, filed.listed
            if params.to is None or await _digest_of(source) != filed.sha256:
                await outputs.note_removed(listed)
                return FilesMoveOutput(path=str(source))
        if params.mode == "delete":  # 2.
            is_later = outputs.delete_when_done(source)
            await asyncio.to_thread(_delete, source, is_later=is_later)
            await outputs.note_removed(source)
            return FilesMoveOutput(path=str(source))
        if params.to is None:
            raise StepError("`to` is missing.", remedy=f"`mode: {params.mode}` needs it.")
        target = resolve_path(tools.files.roots, params.to)
        if params.to.endswith(("/", os.sep)) or target.is_dir():
            target = resolve_path(tools.files.roots, str(target / listed.name))
        outputs.check_target(target)
        await outputs.make_way(target)
        digest = await _digest_of(source)
        is_beside = source.parent == target.parent
        if filed is not None and is_beside and source in _numbered_names(target):  # 3.
            await outputs.note_removed(listed)
            return FilesMoveOutput(path=str(source))
        if source == target and digest is not None:
            return FilesMoveOutput(path=str(source))
        if digest is None:  # 4.
            target = await _moved_before(source, target, params, tools)
        else:  # 5.
            target = await _free_target(listed, target, digest, params, tools)
            with os_errors_refused(
                f"'{printable(source)}' cannot be moved to '{printable(target)}'"
            ):
                is_move = params.mode == "move"
                if not (is_move and await asyncio.to_thread(_renamed, source, target)):
                    await asyncio.to_thread(_copied, source, target, digest, is_moved=is_move)
            if params.mode == "copy":
                await outputs.wrote(target, digest)
        if params.mode == "move":
            await outputs.note_removed(listed)
        return FilesMoveOutput(path=str(target))


async def _digest_of(path: Path) -> str | None:
    return await in_left_thread(file_sha256, path, "read", "`files.move` takes files")


async def _moved_before(source: Path, target: Path, params: FilesMoveParams, tools: Tools) -> Path:
    if params.mode == "move":
        for path in _numbered_names(target):
            known = await tools.files.outputs.known_sha256(path, moved=True)
            if not known and path != target:
                break
            if known and await _digest_of(path) in known:
                return path
    raise StepError(f"'{printable(source)}' does not exist.", kind="io")


async def _free_target(
    source: Path, target: Path, digest: str, params: FilesMoveParams, tools: Tools
) -> Path:
    """Return a path that the file may get, after recording it in the ledger."""
    size_bytes = None
    if params.mode == "copy":
        with os_errors_refused(f"'{printable(source)}' cannot be read"):
            size_bytes = (await asyncio.to_thread(no_links.facts_of, source)).st_size
    for path in _numbered_names(target):
        if await _is_free(path, digest, params, tools):
            if params.mode == "move":
                tools.files.outputs.will_move(source, path, digest)
            try:
                await tools.files.outputs.intend(path, digest, size_bytes)
            except StepError:  # another item of this run is about to take it
                if params.on_exists != "rename":
                    raise
            else:
                return path
        elif params.on_exists == "fail":
            raise StepError(
                f"'{printable(path)}' exists already, and `on_exists` is `fail`.",
                remedy="Move it away, or set `on_exists` to `rename` or `replace`.",
            )
    raise StepError(f"'{printable(target)}' and {_MOST_NAMES:,} similar names are taken.")


async def _is_free(path: Path, digest: str, params: FilesMoveParams, tools: Tools) -> bool:
    """Return whether the file may get a name.

    1. No file has it, or whatever has it may be replaced.
    2. Ours has it: what was moved there is the same file, what was copied an older state of it.
    """
    there = await _digest_of(path)
    if there is None or params.on_exists == "replace":  # 1
        return True
    known = await tools.files.outputs.known_sha256(path, moved=True)  # 2
    is_ours = there in known or (bool(known) and tools.files.outputs.takes_over)
    return is_ours and (there == digest or params.mode == "copy")


def _numbered_names(target: Path) -> Iterator[Path]:
    """Yield a name and those that follow it: `a.txt`, `a-1.txt`, `a-2.txt`."""
    yield target
    for number in range(1, _MOST_NAMES):
        yield target.with_name(numbered_name(target.name, f"-{number}"))


def _renamed(source: Path, target: Path) -> bool:
    """Rename a file; return False if the target is on another device."""
    with no_links.open_file(source) as file:
        try:
            files.rename_without_links(source, target)
        except OSError as error:
            if error.errno == errno.EXDEV:
                return False
            raise
        # The name may have been given to another file, or a link, just before the rename.
        moved = no_links.facts_of(target)
        if no_links.identity_of_stat(moved) != no_links.identity_of_stat(os.fstat(file.fileno())):
            files.rename_without_links(target, source)
            raise _is_being_changed(source)
    return True


def _copied(source: Path, target: Path, digest: str, *, is_moved: bool) -> None:
    """Copy a file with this content by way of a temporary one next to the target.

    Remove the source of a move.
    """
    with no_links.open_file(source) as file:
        own = no_links.identity_of_stat(os.fstat(file.fileno()))
        aside, copied = TemporaryFile.copied(target, file, follows_links=False)
    try:
        if copied != digest:
            raise _is_being_changed(source)
        aside.replace(target)
    finally:
        aside.close()
    if is_moved and not no_links.remove(source, only=own):
        raise _is_being_changed(source)


def _is_being_changed(source: Path) -> StepError:
    return StepError(f"'{printable(source)}' is being changed by another program.", kind="io")


def _delete(path: Path, *, is_later: bool) -> None:
    """Delete a file; `is_later`: only raise what prevents it, since later no item would fail."""
    with os_errors_refused(f"'{printable(path)}' cannot be removed"), suppress(FileNotFoundError):
        if stat.S_ISDIR(no_links.facts_of(path).st_mode):
            raise StepError(f"'{printable(path)}' is a folder; `files.move` deletes files.")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if not is_later:
            no_links.remove(path)
