"""Times come from stored profiles, and from nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddock.engine.backends.speed_estimates import SpeedBook, profile_place
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile.context_layout import Workload
from paddock.engine.profile.profile import (
    Agreement,
    DecodePoint,
    PrefillPoint,
    Profile,
    ProfileStore,
)
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.engine.workers.fallbacks import Fallback, FallbackStore

READING = Workload(16, 700, 20)


def settings(folder: Path) -> PoolSettings:
    return PoolSettings(models_dir=folder / "models", cache_dir=folder / "cache", n_threads=1)


def profile(pool: PoolSettings, ref: str = "smollm2:135m") -> Profile:
    """What two cores measured."""
    facts = ModelFinder(pool.models_dir, pool.cache_dir).find(ref)
    place = profile_place(pool)
    return Profile(
        facts.digest, place.device, place.build, 23_040.0,
        prefill=(PrefillPoint(64, 480.0), PrefillPoint(256, 512.0)),
        decode=(DecodePoint(1, 64, True, 190.0), DecodePoint(8, 64, True, 280.0)),
        agreement=Agreement(False, True),
    )  # fmt: skip


def test_time_follows_from_the_stored_profile(tmp_path: Path) -> None:
    pool = settings(tmp_path)
    ProfileStore(pool.cache_dir).keep(profile(pool))
    seconds = SpeedBook(pool).seconds("smollm2:135m", READING)
    assert seconds == pytest.approx(16 * 700 / 512 + 320 / 280, rel=0.1)
    assert SpeedBook(pool).seconds("nobody:1b", READING) is None


def test_a_model_with_a_fallback_is_as_fast_as_it_was_measured_with_it(tmp_path: Path) -> None:
    pool = settings(tmp_path)
    ProfileStore(pool.cache_dir).keep(profile(pool))
    digest = profile(pool).digest
    crash = Fallback("small.gguf", 1, "killed by SIGSEGV while warming up")
    FallbackStore(pool.cache_dir).keep(digest, crash)
    assert SpeedBook(pool).seconds("smollm2:135m", READING) is None, "that was with extra buffers"
    ProfileStore(pool.cache_dir).keep(
        replace(profile(pool), build=profile_place(pool, digest).build)
    )
    assert SpeedBook(pool).seconds("smollm2:135m", READING) is not None
