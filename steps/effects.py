"""Effects: what a step does to the world, each said by the type of a parameter.

`path: Annotated[str, OutputFile]` says that the step writes the file which that parameter names.
`effects_of` makes an instance of each that a step has, as its author wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from .facts import Written
from .param_types import DoorParam, ParamType, ParamTypes, PathParam


class Effect(ParamType):
    makes_file: ClassVar[bool] = False
    """The parameter says where a file is then. A step that does nothing else runs outside of
    blocks, too, only where that or what it reads is not as it was."""
    is_foreseen: ClassVar[bool] = False
    """The place is looked at before the first item begins."""
    keeps_rows: ClassVar[bool] = False
    takes_document: ClassVar[bool] = False
    """The document leaves its folder once its item is done."""

    is_claimed: ClassVar[bool] = False
    """The place is one item's alone."""

    def __init__(self, param: str, written: Any) -> None:
        self.param = param
        self.written = written
        """The parameter's value as it is written."""

    @classmethod
    def is_done(cls, written: Written) -> bool:
        """Return whether a step has the effect, by all of its parameters."""
        return True


class Destination(Effect):
    """Where something of the item is then."""


class OutputFile(Destination, PathParam):
    """The file that it writes: the path is one item's alone."""

    makes_file = is_foreseen = is_claimed = True


class MovedDocument(Effect, PathParam):
    """The file that it moves or deletes, unless its `mode` is `copy`."""

    takes_document = True

    @classmethod
    def is_done(cls, written: Written) -> bool:
        return written.get("mode") != "copy"


class MoveTarget(Destination, PathParam):
    """The file or folder where that is found then."""

    makes_file = True


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


def effects_of(types: ParamTypes, written: Written) -> Iterator[Effect]:
    for name, kind in types.each:
        if issubclass(kind, Effect) and written.get(name) is not None and kind.is_done(written):
            yield kind(name, written[name])
