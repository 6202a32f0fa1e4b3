"""Effects: what a step does to the world, each said by the type of a parameter.

`path: Annotated[str, OutputFile]` says that the step writes the file which that parameter names.
`effects_of` makes an instance of each that a step has, as its author wrote it. An output has a
place that is one item's alone: a file, or what a package brings (`paddock.effects`), such as a page
of a wiki. Runs, plans and `--prune` ask its class what is there, and remove it by that.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias
from urllib.parse import quote, unquote

from paddock.engine.system import no_links
from paddock.engine.system.files import TemporaryFile, sha256_of
from paddock.engine.system.tasks import in_left_thread
from paddock.pipelines.expressions import Value

from .base import OutputFiles, StepError, Tools
from .param_types import DoorParam, ParamType, ParamTypes, PathParam
from .paths import file_sha256, os_errors_refused, printable
from .plugins import EFFECT_GROUP, PluginImportError, load_plugin, plugins


class Effect(ParamType):
    makes_output: ClassVar[bool] = False
    """The parameter says where an output is then. A step that does nothing else runs outside of
    blocks, too, only where that or what it reads is not as it was."""
    is_foreseen: ClassVar[bool] = False
    """Its place is looked at before the first item begins."""
    is_claimed: ClassVar[bool] = False
    """Its place is one item's alone."""
    keeps_rows: ClassVar[bool] = False
    takes_document: ClassVar[bool] = False
    """The document leaves its folder once its item is done."""

    def __init__(self, param: str, written: Any) -> None:
        self.param = param
        self.written = written
        """The parameter's value as it is written."""

    @cached_property
    def value(self) -> Value:
        return Value.of(self.written)


class Destination(Effect):
    """Where something of the item is then."""

    @classmethod
    def forecast(cls, text: str, base: str) -> str:
        """Return the place that a parameter's value means, as an absolute path of the ledger.

        `base`: the pipeline's folder.
        """
        return os.path.normpath(os.path.join(base, text))  # noqa: PTH118 - the hot path


OnEdited: TypeAlias = Literal["keep", "overwrite", "fail"]
Intend: TypeAlias = Callable[[], Awaitable[None]]
_SMALL_BYTES = 256 * 1024  # into the system's cache in 0.1 ms, less than a thread takes


class PlaceStamp(NamedTuple):
    """Facts of a place: as long as they are equal, so is its content."""

    size: int = 0
    mtime_ns: int = 0
    changed_at: float = 0.0
    """When any of them changed, in seconds since 1970."""


class OutputEffect(Destination):
    """An output whose place is one item's alone. Its methods block and may raise `StepError`.

    One of a package is the entry point of its `name` in `paddock.effects`; `put_output` applies it.
    """

    makes_output = is_foreseen = is_claimed = True
    name: ClassVar[str]

    @classmethod
    def forecast(cls, text: str, base: str) -> str:
        if cls.is_path:
            return super().forecast(text, base)
        # As a path it would lose empty parts, such as those of `https://`
        is_plain = {"", ".", ".."}.isdisjoint(text.split("/"))
        return f"/{cls.name}:/{quote(text, safe='/ ' if is_plain else ' ')}"

    @classmethod
    def stamp(cls, place: str) -> PlaceStamp | None:
        """Return what saves a look at the content, which may be large; None: there is no such.

        Raises:
            OSError: nothing is there.
        """
        return None

    @classmethod
    def holds(cls, place: str) -> str | None:
        """Return the sha256 of what is at a place now; None: nothing.

        Another digest than was recorded is a person's edit, which stays unless a run takes it over.
        """
        raise NotImplementedError

    @classmethod
    def is_there(cls, place: str) -> bool:
        return cls.holds(place) is not None

    @classmethod
    def apply(cls, place: str, content: bytes) -> None:
        """Make what is there this content: at once, or not at all."""
        raise NotImplementedError

    @classmethod
    def undo(cls, place: str) -> None:
        """Remove what is at a place, if there is something."""
        raise NotImplementedError

    @classmethod
    async def there(cls, place: str) -> str | None:
        return await in_left_thread(cls.holds, place)

    @classmethod
    async def put(
        cls, place: str, content: bytes, outputs: OutputFiles, intend: Intend, *, is_new: bool
    ) -> None:
        """Apply it, once the ledger has what is about to be there."""
        await intend()
        await asyncio.to_thread(cls.apply, place, content)


class OutputFile(OutputEffect, PathParam):
    """The file that it writes, atomically.

    Order: temporary file in the same folder → fsync → the ledger records the intent → rename → the
    ledger records the result. A kill between any two leaves the old or the new file, and the ledger
    knows both.
    """

    name = ""

    @classmethod
    def stamp(cls, place: str) -> PlaceStamp:
        facts = os.stat(place)  # noqa: PTH116 - 10,000 times in a run
        if stat.S_ISDIR(facts.st_mode):  # which has the name of the file that was there
            raise IsADirectoryError(place)
        return PlaceStamp(facts.st_size, facts.st_mtime_ns, facts.st_ctime)

    @classmethod
    def holds(cls, place: str) -> str | None:
        with suppress(FileNotFoundError):
            return sha256_of(Path(place))
        return None

    @classmethod
    def undo(cls, place: str) -> None:
        with suppress(FileNotFoundError):
            no_links.remove(Path(place))

    @classmethod
    def is_there(cls, place: str) -> bool:
        return os.path.lexists(place)

    @classmethod
    async def there(cls, place: str) -> str | None:
        if not os.path.lexists(place):  # noqa: ASYNC240 - a thread takes longer
            return None
        path = Path(place)
        return await in_left_thread(file_sha256, path, "written", "`path` must name a file")

    @classmethod
    async def put(
        cls, place: str, content: bytes, outputs: OutputFiles, intend: Intend, *, is_new: bool
    ) -> None:
        path = Path(place)
        aside = await _to_temporary_file(path, content, is_new=is_new)
        try:
            with os_errors_refused(f"'{printable(path)}' cannot be written"):
                await outputs.sync(aside)
                await intend()
                # The folder is not synced: a rename that a power cut undoes shows as stale later.
                aside.replace(path)
        finally:
            aside.close()


class MovedDocument(Effect, PathParam):
    """The file that it moves or deletes, unless its `mode` is `copy`."""

    takes_document = True

    @classmethod
    def is_done(cls, written: Mapping[str, Any]) -> bool:
        return written.get("mode") != "copy"


class MoveTarget(Destination, PathParam):
    """The file or folder where that is found then."""

    makes_output = True


class StoreRows(Destination, PathParam):
    """The vector store to which it adds rows."""

    is_foreseen = keeps_rows = True


class DatabaseRows(Effect):
    """A database in whose table an item has rows."""

    keeps_rows = True


class DatabaseFile(DatabaseRows, PathParam):
    pass


class DatabaseServer(DatabaseRows, DoorParam):
    """The account of a server."""


class BucketTarget(Effect, DoorParam):
    """A bucket to which it sends outputs."""


class SentRequest(Effect):
    """The servers to which it sends what changes something there, at most once."""


def effects_of(types: ParamTypes, written: Mapping[str, Any]) -> Iterator[Effect]:
    for name, kind in types.each:
        if issubclass(kind, Effect) and written.get(name) is not None and kind.is_done(written):
            yield kind(name, written[name])


async def put_output(
    kind: type[OutputEffect],
    place: str,
    content: bytes,
    tools: Tools,
    on_edited: OnEdited = "keep",
    hold_back: Callable[[str], Awaitable[bool]] | None = None,
) -> bool:
    """Apply an output of an item; return whether it changed. In tests none of a package is applied.

    What is there with another content is left as it is where a person has edited it, or it is not
    ours, unless it may be overwritten; and where `hold_back` says so of the digest of what is to be
    there.

    Raises:
        StepError: the outside world failed, or the place is another item's.
    """
    path, outputs = Path(kind.forecast(place, "")), tools.files.outputs
    name, sha256 = f"'{printable(path)}'", hashlib.sha256(content).hexdigest()
    if tools.effects is None and not kind.is_path:
        tools.log.note(f"{name} is not made in a test.")
        return False
    there = await kind.there(place)
    if there == sha256:
        await outputs.intend(path, sha256, len(content))
        await outputs.wrote(path, sha256)
        return False
    may_overwrite = there is None or on_edited == "overwrite" or outputs.takes_over
    if not may_overwrite and there not in await outputs.known_sha256(path):
        await outputs.holds(path, sha256)
        what = f"{name} was edited, or is not ours"
        if on_edited == "fail":
            raise StepError(
                f"{what}, and `on_edited` is `fail`.",
                remedy="Move it away, set `on_edited` to `keep` or `overwrite`, or run with "
                "`--take`.",
            )
        tools.log.note(f"{what}: it is kept as it is.")
        return False
    if there is not None and hold_back is not None and await hold_back(sha256):
        return False
    intend = partial(outputs.intend, path, sha256, len(content))
    await kind.put(place, content, outputs, intend, is_new=there is None)
    await outputs.wrote(path, sha256)
    return True


def output_at(path: str) -> tuple[type[OutputEffect], str]:
    """Return the class of the output at an absolute path of the ledger, and its place.

    Raises:
        StepError: no package brings it any more, or it cannot be imported.
    """
    head, colon, place = path.partition(":/")
    is_file = not colon or head[:1] != "/" or "/" in head[1:]
    return (OutputFile, path) if is_file else (_effect_named(head[1:]), unquote(place))


def is_output_there(path: str) -> bool:
    """Return whether an output is at an absolute path of the ledger; what cannot be asked is."""
    try:
        kind, place = output_at(path)
        return kind.is_there(place)
    except StepError:
        return True


@cache
def _effect_named(name: str) -> type[OutputEffect]:
    try:
        if points := plugins(EFFECT_GROUP).get(name, ()):
            found: type[OutputEffect] = load_plugin(points[0])
            return found
    except PluginImportError as error:
        raise StepError(f"the effect '{name}' cannot be imported: {error}.") from error
    raise StepError(f"no installed package brings the effect '{name}'.", kind="missing")


async def _to_temporary_file(path: Path, data: bytes, *, is_new: bool) -> TemporaryFile:
    """Write a temporary file next to `path`; a large one in a thread."""

    def write() -> TemporaryFile:
        like = None
        if not is_new:
            with suppress(OSError):  # it is gone
                facts = no_links.facts_of(path)
                like = facts if stat.S_ISREG(facts.st_mode) else None
        with os_errors_refused(f"'{printable(path)}' cannot be written"):
            return TemporaryFile.written(
                path, data, like=like, follows_links=False, is_synced=False
            )

    def let_go(written: asyncio.Future[TemporaryFile]) -> None:
        if not written.cancelled() and written.exception() is None:
            written.result().close()

    if len(data) <= _SMALL_BYTES:
        return write()
    written = asyncio.get_running_loop().run_in_executor(None, write)
    try:
        return await asyncio.shield(written)
    except asyncio.CancelledError:
        written.add_done_callback(let_go)  # a thread cannot be cancelled; its file is removed later
        raise
