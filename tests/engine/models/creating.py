"""Models made in a store, and what is then in it."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest

from paddock.engine.errors import RecipeRefused
from paddock.engine.models.model_creation import create_model
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.model_names import parse_name
from paddock.engine.models.model_recipe import ModelRecipe
from paddock.engine.models.transfer import ProgressLine
from tests.optional import present


def made(finder: ModelFinder, recipe: ModelRecipe) -> list[ProgressLine]:
    lines: list[ProgressLine] = []
    create_model(finder.store, finder, recipe, lines.append)
    return lines


def statuses(lines: Sequence[ProgressLine]) -> list[str]:
    return [line.status for line in lines]


def refusal(finder: ModelFinder, recipe: ModelRecipe) -> str:
    with pytest.raises(RecipeRefused) as caught:
        made(finder, recipe)
    assert finder.store.names() == []
    assert finder.store.blobs.digests() == ()
    return str(caught.value)


def config(finder: ModelFinder, name: str) -> dict[str, Any]:
    manifest = present(finder.store.manifest(parse_name(name)))
    assert manifest.config is not None
    config: dict[str, Any] = json.loads(finder.store.blobs.read(manifest.config.digest))
    return config


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
