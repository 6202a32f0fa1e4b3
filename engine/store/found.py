"""What a name led to: a model's file, where it was found, and what its manifest says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from .contents import Contents
from .files import ModelFiles
from .layout import Store
from .manifests import Manifest
from .names import ModelName

Origin = Literal["store", "package", "bundled", "path"]


@dataclass(frozen=True, slots=True)
class Found:
    """A model's file and where it was found."""

    name: str
    path: Path
    origin: Origin
    projector: Path | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    """Its own parameters, by a Modelfile's names."""
    manifest: Manifest | None = None
    contents: Contents | None = None
    """Of a stored model: what its manifest names."""
    stored_as: ModelName | None = None
    parts: tuple[Path, ...] = ()
    """Of a split model: the files after the first one, in order."""

    @property
    def split(self) -> tuple[Path, tuple[Path, ...]]:
        """Return the first file of its weights, and the others."""
        return self.path, self.parts

    @property
    def weights(self) -> tuple[Path, ...]:
        """Return the files of its weights, in order."""
        return (self.path, *self.parts)


class Finder(Protocol):
    """Who finds models: `paddock.engine.models.ModelFinder`."""

    store: Store
    files: ModelFiles

    def locate(self, ref: str) -> Found:
        """Find a model.

        Raises:
            ModelNotFound: with the known names.
            ModelBroken: its manifest or a blob cannot be used.
        """
        ...

    def named(self, name: ModelName) -> Found:
        """Find a model by its name, never by a path.

        Raises:
            ModelNotFound, ModelBroken: as `locate`.
        """
        ...

    def everything(self) -> Iterator[Found]:
        """Give every model that can be found; of equal names, the first is meant."""
        ...

    def kept(self) -> set[str]:
        """Tell the digests of blobs that no manifest names and that are needed all the same."""
        ...
