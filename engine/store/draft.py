"""A model on its way: its layers so far, what is said of them, and which blobs were made for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .contents import Config
from .layout import Store
from .manifests import Layer, go_json


@dataclass(slots=True)
class Draft:
    """What a manifest and a config will be written of."""

    store: Store
    config: Config = field(default_factory=Config)
    layers: list[Layer] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    """What is said of each layer."""

    made: list[str] = field(default_factory=list)
    """Digests of blobs that were not there before: if nothing comes of it, they go."""

    def add(self, layer: Layer, *, is_new: bool) -> None:
        """Append a layer."""
        self.layers.append(layer)
        word = "creating new" if is_new else "using existing"
        self.statuses.append(f"{word} layer {layer.digest}")

    def add_text(self, media_type: str, text: str) -> None:
        """Append a layer of this text.

        Raises:
            StoreFull, StoreReadOnly: it cannot be written.
        """
        n_made = len(self.made)
        layer = self.written(media_type, text.encode("utf-8", errors="replace"))
        self.add(layer, is_new=len(self.made) > n_made)

    def add_json(self, media_type: str, value: object) -> None:
        """Append a layer of this value, written as Ollama does; raises as `add_text`."""
        self.add_text(media_type, go_json(value).decode())

    def written(self, media_type: str, raw: bytes) -> Layer:
        """Write a small blob, and note whether it was there before; raises as `add_text`."""
        with self.store.new_blob() as writer:
            writer.write(raw)
            digest = writer.commit()
        if writer.is_new:
            self.made.append(digest)
        return Layer(media_type, digest, len(raw))

    def drop(self, *media_types: str) -> None:
        """Remove the layers of these types."""
        kept = [
            (layer, status)
            for layer, status in zip(self.layers, self.statuses, strict=True)
            if layer.media_type not in media_types
        ]
        self.layers = [layer for layer, _ in kept]
        self.statuses = [status for _, status in kept]
