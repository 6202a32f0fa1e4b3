"""What a step is handed, without a runner: models by name, outputs and notes in memory."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import pytest

from paddock.engine.request import ModelSpec, Pool, Role
from paddock.engine.system.files import TemporaryFile
from paddock.engine.system.records import Struct, field
from paddock.runner.core.item_toolset import NoToolset
from paddock.steps.base import (
    CallCache,
    CallTools,
    FileTools,
    ItemName,
    ModelTools,
    Roots,
    Step,
    StepError,
    Tools,
    Toolset,
    VectorStore,
    VectorStores,
)
from tests.fakes.pool import FakePool
from tests.fakes.readers import HereReaders

T = TypeVar("T")
Call = Callable[..., Any]
"""A step that has its tools: called with its parameters it gives its output."""


class FakeModels(Struct):
    """Every alias is a model of that name."""

    specs: dict[str, ModelSpec] = field(default_factory=dict)

    def resolve(self, alias: str | None, role: Role) -> ModelSpec:
        return self.specs.get(alias or role, ModelSpec(ref=alias or f"default-{role}", role=role))


class FakeOutputs(Struct):
    """Remembers what was written; `known` may be filled beforehand."""

    known: dict[Path, set[str]] = field(default_factory=dict)
    events: list[tuple[str, Path]] = field(default_factory=list)
    intended: set[Path] = field(default_factory=set)

    def owned(self, root: Path) -> frozenset[str]:
        return frozenset(map(str, self.known))

    async def known_sha256(self, path: Path, *, moved: bool = False) -> frozenset[str]:
        return frozenset(self.known.get(path, ()))

    def check_target(self, path: Path, *, is_new: bool = True) -> None:
        return

    async def make_way(self, path: Path) -> None:
        return

    async def sync(self, file: TemporaryFile) -> None:
        file.sync()

    async def intend(self, path: Path, sha256: str, size_bytes: int | None = None) -> None:
        self.events.append(("intend", path))
        if path in self.intended:
            raise StepError(f"another item of this run writes '{path}'")
        self.intended.add(path)
        self.known.setdefault(path, set()).add(sha256)

    async def wrote(self, path: Path, sha256: str) -> None:
        self.events.append(("wrote", path))

    takes_over = False

    async def holds(self, path: Path, sha256: str) -> None:
        self.events.append(("holds", path))

    def may_lose_rows(self, path: Path, n_before: int, n_now: int) -> bool:
        return True

    def filed_at(self, path: Path) -> None:
        return None

    def will_move(self, path: Path, target: Path, sha256: str) -> None:
        return

    def delete_when_done(self, path: Path) -> bool:
        return False

    async def note_removed(self, path: Path) -> None:
        self.events.append(("brings_away", path))

    async def note_rows_kept(self, store: Path) -> None:
        self.events.append(("keeps_rows", store))

    async def note_file_read(self, path: Path) -> None:
        self.events.append(("reads_file", path))

    async def note_rows_read(self, store: Path) -> None:
        self.events.append(("reads_rows", store))

    def next_run(self) -> None:
        """Forget the paths of this run, keep the digests."""
        self.intended.clear()
        self.events.clear()


class FakeLog(Struct):
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def tally(self, noun: str, what: str) -> None:
        self.notes.append(f"{noun} {what}")

    def scanned(self, taken: Collection[str], not_taken: Collection[str]) -> None:
        return


class FakeTools(Tools, frozen=True):
    """`Tools` whose parts a test can look into."""

    @property
    def notes(self) -> list[str]:
        assert isinstance(self.log, FakeLog)
        return self.log.notes

    @property
    def chats(self) -> FakePool:
        assert isinstance(self.llm.pool, FakePool)
        return self.llm.pool


class NoCallCache:
    """Implements `paddock.steps.base.CallCache`: calls every time."""

    async def once(
        self, kind: str, asked: object, do: Callable[[], Awaitable[T]], *, keeps: bool = True
    ) -> T:
        return await do()


class NoStores:
    """Implements `paddock.steps.base.VectorStores`."""

    async def open(self, path: Path, *_: object, **__: object) -> VectorStore:
        raise StepError(f"the store '{path}' cannot be opened here.")


def tools(
    base: Path,
    *,
    pool: Pool | None = None,
    models: FakeModels | None = None,
    outputs: FakeOutputs | None = None,
    stores: VectorStores | None = None,
    item: ItemName | None = None,
    toolset: Toolset | None = None,
    memo: CallCache | None = None,
) -> FakeTools:
    root = base.resolve()
    return FakeTools(
        FakeLog(),
        ModelTools(pool or FakePool(), models or FakeModels()),
        FileTools(Roots(base=root, allowed=(root,)), outputs or FakeOutputs(), HereReaders()),
        CallTools(toolset or NoToolset(), memo or NoCallCache()),
        stores or NoStores(),
        item=item or ItemName(),
    )


def carried_out(step: Step[Any, Any], within: Tools, **given: Any) -> Any:
    """Return what a step makes of its parameters, as they stand in the YAML."""
    return asyncio.run(step.run(step.params(**given), within))


def refused(do: Callable[..., Any], *given: Any, **wishes: Any) -> str:
    """Return the sentence with which a step fails."""
    with pytest.raises(StepError) as caught:
        do(*given, **wishes)
    return str(caught.value)
