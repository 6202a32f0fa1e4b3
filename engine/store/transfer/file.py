"""Take a GGUF file of this machine into the store. Knows no network."""

from __future__ import annotations

from pathlib import Path

from paddock.engine.gguf import check_file, part_names, read_header
from paddock.engine.store.layout import Store
from paddock.engine.store.progress import Progress, Report

from .disk import beside, check_room
from .errors import NotPublished
from .packing import Parcel, check_model
from .quants import is_projector

_PIECE_BYTES = 4 * 1024 * 1024


async def take_file(store: Store, path: Path, report: Report) -> Parcel:
    """Copy a model's file, and the projector beside it; gives what they became.

    Raises:
        NotPublished: there is no such file.
        ModelBroken: it is no whole GGUF file; nothing was copied.
        NotEnoughRoom, StoreFull, StoreReadOnly: the disk refuses.
    """
    files = await beside(_belonging, path)
    n_bytes = await beside(lambda: sum(file.stat().st_size for file in files))
    await beside(check_room, store.root, n_bytes)
    digests = [await _copied(store, file, report) for file in files]
    n = len(part_names(path.name))
    return Parcel(digests[0], tuple(digests[n:]), tuple(digests[1:n]))


def _belonging(path: Path) -> list[Path]:
    """Return the model's files and its projector, each looked into.

    The only projector beside the only model belongs to it; among several nobody can tell.
    """
    if not path.is_file():
        raise NotPublished(str(path))
    check_file(path, str(path))
    parts = [path.with_name(name) for name in part_names(path.name)]
    check_model(parts)
    names = {part.name for part in parts}
    beside_it = [one for one in path.parent.glob("*.gguf") if one.name not in names]
    projectors = [one for one in beside_it if is_projector(one.name)]
    if len(projectors) != 1 or len(beside_it) != 1 or is_projector(path.name):
        return parts
    read_header(projectors[0])
    return [*parts, projectors[0]]


async def _copied(store: Store, path: Path, report: Report) -> str:
    """Copy a file into a blob; a cancelled copy leaves nothing."""
    total = await beside(lambda: path.stat().st_size)
    with await beside(store.new_blob) as blob, await beside(lambda: path.open("rb")) as file:
        while piece := await beside(file.read, _PIECE_BYTES):
            await beside(blob.write, piece)
            report(Progress(f"pulling {path.name}", "", total, blob.size_bytes))
        return await beside(blob.commit)
