"""A name stands for what is on disk now, whoever changed it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from paddock.engine.errors import ModelNotFound
from paddock.engine.models.model_facts import ModelFactsCache
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.settings import PoolSettings

MANIFEST = Path("manifests/registry.ollama.ai/library/mine/latest")


class World:
    """A store, and a catalogue that has been asked already."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "models"
        self.finder = ModelFinder(self.root, folder / "cache")
        settings = PoolSettings(models_dir=self.root, cache_dir=folder / "cache")
        self.catalogue = ModelFactsCache(self.finder, settings)

    def digest(self, ref: str) -> str:
        return asyncio.run(self.catalogue.facts(ref)).digest

    def blob(self, more: bytes = b"") -> str:
        """Put a model into the store; gives its digest. Bytes behind the tensors change nothing."""
        raw = self.finder.locate("all-minilm").path.read_bytes() + more
        digest = hashlib.sha256(raw).hexdigest()
        path = self.root / "blobs" / f"sha256-{digest}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        return digest

    def name(self, digest: str) -> None:
        """Let `mine` stand for a blob."""
        layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
        path = self.root / MANIFEST
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(".aside")
        aside.write_text(json.dumps({"schemaVersion": 2, "config": {}, "layers": [layer]}))
        aside.replace(path)


def test_a_name_that_is_made_changed_and_deleted_is_seen_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(ModelNotFound):
        world.digest("mine")
    first, second = world.blob(), world.blob(b"\0" * 64)
    world.name(first)
    assert world.digest("mine") == world.digest("Mine:latest") == first
    world.name(second)
    assert world.digest("mine") == second
    (world.root / MANIFEST).unlink()
    with pytest.raises(ModelNotFound):
        world.digest("mine")


def test_what_has_not_changed_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.name(world.blob())
    expected = world.digest("mine")
    asked: list[str] = []
    monkeypatch.setattr(world.finder, "find", lambda ref, n=None: asked.append(ref))
    assert [world.digest("mine") for _ in range(3)] == [expected] * 3
    assert asked == []


def test_a_file_that_is_another_one_now_is_read_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    path = tmp_path / "mine.gguf"
    shutil.copy(world.finder.locate("all-minilm").path, path)
    before = world.digest(str(path))
    with path.open("ab") as file:
        file.write(b"\0" * 64)
    assert world.digest(str(path)) != before
    os.replace(path, tmp_path / "gone.gguf")  # noqa: PTH105 - as another program would
    with pytest.raises(ModelNotFound):
        world.digest(str(path))


def test_a_model_that_writes_says_whether_its_template_knows_tools(tmp_path: Path) -> None:
    world = World(tmp_path)
    known = [asyncio.run(world.catalogue.facts(ref)) for ref in ("smollm2:135m", "all-minilm")]
    assert [facts.takes_tools for facts in known] == [False, None]
