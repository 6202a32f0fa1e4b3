"""Move, copy or delete one file: never half of it, never over another one unasked.

A move is noted in the ledger before it is made, so that a run that was killed in between knows its
own file again. What was moved is the user's own and is never pruned; a copy is an output. A file
that comes again to the place that one has left goes the same way, whatever it holds.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from .aside import Aside
from .places import numbered, place, refusal, shown
from .step import Output, Params, StepError, Tools

if TYPE_CHECKING:
    from paddock.engine.request import Role

_MOST_NAMES = 1000

Mode = Literal["move", "copy", "delete"]


class FilesMoveParams(Params):
    """Parameters of `files.move`."""

    path: str = Field(min_length=1, description="The file.")
    to: str | None = Field(
        default=None,
        min_length=1,
        description="Its new path; with a `/` at the end, or of a folder, the folder it goes to.",
        examples=["done/a.md"],
    )
    mode: Mode = Field(
        default="move", description="What happens to the file; `delete` needs no `to`."
    )
    on_exists: Literal["rename", "replace", "fail"] = Field(
        default="rename",
        description="What happens if another file is there; `rename` adds a number to the name.",
    )

    @classmethod
    def faults(cls, given: Collection[str]) -> tuple[str, ...]:
        """Say that `to` is missing; with `mode`, which may be `delete`, only a run knows."""
        lacks = "to" not in given and "mode" not in given
        return (*super().faults(given), *(("Give `to`, or `mode: delete`.",) if lacks else ()))


class FilesMoveOutput(Output):
    """Outputs of `files.move`: where the file is now, absolute; after `delete` where it was."""

    path: str


class FilesMove:
    """Move, copy or delete a file, across devices too."""

    params: ClassVar[type[FilesMoveParams]] = FilesMoveParams
    output: ClassVar[type[FilesMoveOutput]] = FilesMoveOutput
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = False
    roles: ClassVar[frozenset[Role]] = frozenset()

    def reads(self, params: FilesMoveParams) -> Sequence[str]:
        """Name the file where it stays; one that goes away was not changed by anybody else."""
        return (params.path,) if params.mode == "copy" else ()

    async def run(self, params: FilesMoveParams, tools: Tools) -> FilesMoveOutput:
        """Do it, or know that it is done.

        Raises:
            StepError: the file is not there, another one is in its place, or the system refused.
        """
        import asyncio

        source = place(tools.roots, params.path)
        if params.mode != "copy":
            tools.outputs.check_target(source, is_new=False)
        if params.mode == "delete":
            await asyncio.to_thread(_delete, source)
            await tools.outputs.brings_away(source)
            return FilesMoveOutput(path=str(source))
        if params.to is None:
            raise StepError("`to` is missing.", remedy=f"`mode: {params.mode}` needs it.")
        target = _target(source, params.to, tools)
        tools.outputs.check_target(target)
        digest = await asyncio.to_thread(_digest_of, source)
        if source == target and digest is not None:
            return FilesMoveOutput(path=str(source))
        if digest is None:
            target = await _moved_before(source, target, params, tools)
        else:
            target = await _free(target, digest, params, tools)
            await _brought(source, target, digest, params.mode, tools)
        if params.mode == "move":
            await tools.outputs.brings_away(source)
        return FilesMoveOutput(path=str(target))


def _target(source: Path, text: str, tools: Tools) -> Path:
    """Give the new path; a folder gets the file under its own name."""
    path = place(tools.roots, text)
    if text.endswith(("/", os.sep)) or path.is_dir():
        return place(tools.roots, str(path / source.name))
    return path


def _digest_of(path: Path) -> str | None:
    """Hash a file; None if nothing is there."""
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
            raise StepError(f"'{shown(path)}' is {what}; `files.move` takes files.")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refusal(f"'{shown(path)}' cannot be read", error) from error


async def _moved_before(source: Path, target: Path, params: FilesMoveParams, tools: Tools) -> Path:
    """Find the file where a run that was killed, or an earlier one, has brought it."""
    import asyncio

    if params.mode == "move":
        for path in _names(target):
            known = await tools.outputs.known_sha256(path)
            if not known and path != target:
                break
            if known and await asyncio.to_thread(_digest_of, path) in known:
                return path
    raise StepError(f"'{shown(source)}' is not there.", kind="io")


async def _free(target: Path, digest: str, params: FilesMoveParams, tools: Tools) -> Path:
    """Give the path that the file may have, by what is there, noted in the ledger."""
    for path in _names(target):
        if await _may_have(path, digest, params, tools):
            try:
                await tools.outputs.intend(path, digest)
            except StepError:  # another item of this run is about to take it
                if params.on_exists != "rename":
                    raise
            else:
                return path
        elif params.on_exists == "fail":
            raise StepError(
                f"'{shown(path)}' is there already, and `on_exists` is `fail`.",
                remedy="Move it away, or set `on_exists` to `rename` or `replace`.",
            )
    raise StepError(f"'{shown(target)}' and {_MOST_NAMES:,} names beside it are taken.")


async def _may_have(path: Path, digest: str, params: FilesMoveParams, tools: Tools) -> bool:
    """Tell whether the file may have a path: nothing is there, or what is there is ours."""
    import asyncio

    there = await asyncio.to_thread(_digest_of, path)
    if there is None or params.on_exists == "replace":
        return True
    known = await tools.outputs.known_sha256(path)
    is_ours = there in known or (bool(known) and tools.outputs.takes_over)
    # What was copied there before is an older state of the same file; what was moved is not.
    return is_ours and (there == digest or params.mode == "copy")


def _names(target: Path) -> Iterator[Path]:
    """Give a name and those that follow it: `a.txt`, `a-1.txt`, `a-2.txt`."""
    yield target
    for number in range(1, _MOST_NAMES):
        yield target.with_name(numbered(target.name, f"-{number}"))


async def _brought(source: Path, target: Path, digest: str, mode: Mode, tools: Tools) -> None:
    """Bring the file into place: renamed where that can be, else copied aside and then renamed."""
    import asyncio

    try:
        if mode == "move" and await asyncio.to_thread(_renamed, source, target):
            return
        aside, copied, n_bytes = await asyncio.to_thread(_copied, source, target)
        try:
            if copied != digest:
                raise StepError(f"'{shown(source)}' is being changed by somebody.", kind="io")
            aside.replace(target)
        finally:
            aside.close()
        if mode == "copy":
            await tools.outputs.wrote(target, digest, n_bytes)
        else:
            await asyncio.to_thread(_delete, source)
    except OSError as error:
        raise refusal(f"'{shown(source)}' cannot be brought to '{shown(target)}'", error) from error


def _renamed(source: Path, target: Path) -> bool:
    """Rename a file; tells whether it could be done on this device."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.replace(target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    return True


def _copied(source: Path, target: Path) -> tuple[Aside, str, int]:
    target.parent.mkdir(parents=True, exist_ok=True)
    return Aside.copied(target, source)


def _delete(path: Path) -> None:
    """Remove a file; one that is gone is as good as removed."""
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            raise StepError(f"'{shown(path)}' is a folder; `files.move` deletes files.")
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise refusal(f"'{shown(path)}' cannot be removed", error) from error
