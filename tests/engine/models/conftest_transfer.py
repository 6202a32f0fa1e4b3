"""A far side that serves models, and a store to bring them to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from paddock.engine.models.model_store import ModelStore
from tests.engine.models.pulling import a_store
from tests.fakes.far_side import FarSide, far_side


@pytest.fixture
def far() -> Iterator[FarSide]:
    with far_side() as side:
        yield side


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return a_store(tmp_path)
