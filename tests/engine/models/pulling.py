"""What the tests of transfers share: a store, a far side, and a pull that is run to its end."""

import asyncio
from pathlib import Path

from paddock.engine.models.model_names import ModelName, parse_name
from paddock.engine.models.model_store import ModelStore
from paddock.engine.models.pull import pull
from paddock.engine.models.transfer import ProgressLine, TransferOptions
from paddock.engine.system.records import replace
from tests.fakes.far_side import FarSide, gguf
from tests.optional import present

BIG = gguf(100_000)
QUICK = TransferOptions(
    insecure=True,
    credentials={},
    min_part_bytes=20_000,
    connect_s=2.0,
    stall_s=3.0,
    n_retries=3,
    first_wait_s=0.01,
)


def pulled(
    store: ModelStore,
    source: str | ModelName,
    options: TransferOptions = QUICK,
    *,
    as_name: str | None = None,
    **changes: object,
) -> list[ProgressLine]:
    """Pull to the end; return every line."""

    async def main() -> list[ProgressLine]:
        pull_options = replace(options, **changes)
        return [line async for line in pull(store, source, options=pull_options, as_name=as_name)]

    return asyncio.run(main())


def statuses(lines: list[ProgressLine]) -> list[str]:
    """Return the lines' words, those that repeat once."""
    words: list[str] = []
    for line in lines:
        if not words or words[-1] != line.status:
            words.append(line.status)
    return words


def named(far: FarSide, model: str = "team/mini:v1") -> ModelName:
    return parse_name(f"{far.host}/{model}")


def model_of(store: ModelStore, name: ModelName) -> bytes:
    """Return the content of a model's file."""
    manifest = present(store.manifest(name))
    return store.blobs.path(manifest.layers[0].digest).read_bytes()


def leftovers(store: ModelStore) -> list[str]:
    """Return the files in the blobs folder that are no blobs."""
    return sorted(path.name for path in store.blobs.folder.glob("*") if len(path.name) != 71)


def a_store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")
