"""Models made in a store, and what is then in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest

from paddock.engine.errors import RecipeRefused
from paddock.engine.models import ModelFinder
from paddock.engine.store.creation import create
from paddock.engine.store.names import parse_name
from paddock.engine.store.progress import Progress
from paddock.engine.store.recipe import Recipe


def made(finder: ModelFinder, recipe: Recipe) -> list[Progress]:
    lines: list[Progress] = []
    create(finder.store, finder, recipe, lines.append)
    return lines


def statuses(lines: Sequence[Progress]) -> list[str]:
    return [line.status for line in lines]


def refusal(finder: ModelFinder, recipe: Recipe) -> str:
    with pytest.raises(RecipeRefused) as caught:
        made(finder, recipe)
    assert finder.store.names() == []
    assert finder.store.blobs.digests() == ()
    return str(caught.value)


def config(finder: ModelFinder, name: str) -> dict[str, Any]:
    manifest = finder.store.manifest(parse_name(name))
    assert manifest is not None
    assert manifest.config is not None
    told: dict[str, Any] = json.loads(finder.store.blobs.read(manifest.config.digest))
    return told


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
