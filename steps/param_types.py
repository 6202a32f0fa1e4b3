"""What a parameter is for, said by its type: `path: Annotated[str, InputFile]`.

Effects, which change something, are in `effects`. The runner asks for a type and never for a name;
a type that it does not know has no meaning to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from inspect import isclass
from typing import Any, ClassVar


class ParamType:
    is_path: ClassVar[bool] = False
    """It is a file or a folder, which must be in the pipeline's folders."""

    @classmethod
    def is_done(cls, written: Mapping[str, Any]) -> bool:
        """Return whether a step does so with it, by all of its parameters."""
        return True


class PathParam(ParamType):
    is_path = True


class InputContent(ParamType):
    """Files whose content alone decides the result, whatever their names."""


class InputFile(InputContent, PathParam):
    pass


class InputFolder(PathParam):
    """The folder whose files are its output `files`."""


class SearchedStore(PathParam):
    """The vector store that it searches."""


class DecisionsParam(ParamType):
    """Which decisions of people its prompt has as examples."""


class RowsParam(ParamType):
    """Rows, or several tables by name, with typed columns."""


class PromptTemplate(ParamType):
    """The template that it sends as one prompt, once for each item."""


class GroupedList(ParamType):
    """The list whose items it groups."""


class GroupField(ParamType):
    """The field by which it does."""


class CommandParam(ParamType):
    """The program that it starts, with arguments."""


class PipelineFile(ParamType):
    """The pipeline file that it runs."""


class PipelineInputs(ParamType):
    """What it gives that pipeline."""


class DoorParam(ParamType):
    """Its secrets only open a door: another value makes nothing stale."""


class DocumentSource(DoorParam):
    """A source, such as a mailbox, whose documents it copies into its `InputFolder` first."""


class ParamTypes:
    """The types of a step's parameters, in order."""

    def __init__(self, types: Iterable[tuple[str, type[ParamType]]] = ()) -> None:
        """`types`: a parameter with each of its types, in order."""
        self._named: dict[type, tuple[str, ...]] = {}
        self.each = tuple(types)
        for name, kind in self.each:
            for base in kind.__mro__:
                known = self._named.get(base, ())
                self._named[base] = known if name in known else (*known, name)
        self.paths = tuple(dict.fromkeys(name for name, kind in self.each if kind.is_path))

    def names(self, kind: type[ParamType]) -> tuple[str, ...]:
        return self._named.get(kind, ())


@lru_cache(maxsize=1024)
def types_of(params: type[Any]) -> ParamTypes:
    """Return what a Pydantic model's fields are annotated with."""
    fields = params.model_fields.items()
    metadata = ((name, kind) for name, field in fields for kind in field.metadata)
    return ParamTypes(
        (name, kind) for name, kind in metadata if isclass(kind) and issubclass(kind, ParamType)
    )
