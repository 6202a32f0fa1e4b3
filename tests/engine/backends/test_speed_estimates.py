"""Time and gains come from stored profiles, and from nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from paddock.engine.backends.speed_estimates import SpeedBook, profile_place
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile.context_layout import Workload
from paddock.engine.profile.profile import (
    Agreement,
    DecodePoint,
    FormatPoint,
    PrefillPoint,
    Profile,
    ProfileStore,
    Weights,
)
from paddock.engine.request import ModelFacts
from paddock.engine.settings import PoolSettings
from paddock.engine.workers.fallbacks import Fallback, FallbackStore

READING = Workload(16, 700, 20)


def settings(folder: Path) -> PoolSettings:
    return PoolSettings(models_dir=folder / "models", cache_dir=folder / "cache", n_threads=1)


def profile(pool: PoolSettings, ref: str = "smollm2:135m") -> Profile:
    """What two cores measured."""
    facts = ModelFinder(pool.models_dir, pool.cache_dir).find(ref)
    place = profile_place(pool)
    return Profile(
        facts.digest, place.device, place.build, 1.0, 1, 0.5, 98 << 20, 23_040.0,
        prefill=(PrefillPoint(64, 480.0), PrefillPoint(256, 512.0)),
        decode=(DecodePoint(1, 64, True, 190.0), DecodePoint(8, 64, True, 280.0)),
        formats=(
            FormatPoint("Q4_1", 1, 0.03), FormatPoint("Q4_1", 8, 0.16),
            FormatPoint("Q4_1", 256, 4.2), FormatPoint("Q8_0", 1, 0.04),
            FormatPoint("Q8_0", 8, 0.08), FormatPoint("Q8_0", 256, 2.0),
        ),
        weights=(Weights("Q4_1", 106e6), Weights("Q8_0", 0.0, 28e6)),
    )  # fmt: skip


def test_without_a_profile_nothing_is_claimed(tmp_path: Path) -> None:
    book = SpeedBook(settings(tmp_path))
    assert book.seconds("smollm2:135m", READING) is None
    assert book.gain("smollm2:135m", READING) is None
    assert list(book.gains()) == []


def test_time_and_gain_follow_from_the_stored_profile(tmp_path: Path) -> None:
    pool = settings(tmp_path)
    ProfileStore(pool.cache_dir).keep(profile(pool))
    book = SpeedBook(pool)
    seconds = book.seconds("smollm2:135m", READING)
    assert seconds == pytest.approx(16 * 700 / 512 + 320 / 280, rel=0.1)
    gain = book.gain("smollm2:135m", READING)
    assert gain is not None
    assert gain.sentence() == (
        "A tuned copy of smollm2:135m would read prompts about 1.9 times as fast, and do this "
        "job 1.8 times as fast: paddock tune smollm2:135m"
    )
    assert [gain.ref for gain in book.gains()] == ["smollm2:135m"]


@pytest.mark.parametrize(
    ("company", "drafts", "words"),
    [
        (True, True, "the same alone, beside other requests and with drafts, in a split cache"),
        (
            True, False,
            "the same alone and beside other requests, in a split cache; drafts would change "
            "them and are off",
        ),
        (
            False, False,
            "not always the same: kernels round by what runs in the same step; drafts would "
            "change them and are off",
        ),
        (None, True, "not compared: there was no time to measure that"),
    ],
)  # fmt: skip
def test_what_greedy_answers_keep_is_said_in_one_line(
    tmp_path: Path, company: bool | None, drafts: bool | None, words: str
) -> None:
    pool = settings(tmp_path)
    known = replace(profile(pool), agreements=(Agreement(True, company, drafts),))
    ProfileStore(pool.cache_dir).keep(known)
    mode = SpeedBook(pool).compute_mode("smollm2:135m")
    assert mode is not None
    assert mode.reproducibility() == words
    assert mode.flash_attention() == "on"
    mode = SpeedBook(replace(pool, cache_layout="unified")).compute_mode("smollm2:135m")
    assert mode is not None
    assert mode.company is None, "that was compared in a split cache"
    assert mode.reproducibility().startswith("not compared in a unified cache")


def test_flash_attention_is_said_with_what_usual_work_takes_without_it(tmp_path: Path) -> None:
    pool = settings(tmp_path)
    known = profile(pool)
    split = tuple(replace(speed, is_unified=False) for speed in known.decode)
    plain = tuple(
        replace(speed, tokens_per_s=3 * speed.tokens_per_s, is_flash=False) for speed in split
    )
    agreements = (Agreement(True, False, True), Agreement(False, True, False))
    known = replace(known, decode=known.decode + split + plain, agreements=agreements)
    ProfileStore(pool.cache_dir).keep(known)
    mode = SpeedBook(pool).compute_mode("smollm2:135m")
    assert mode is not None
    assert not mode.is_flash
    assert mode.company, "of the way that is used"
    words = mode.flash_attention()
    assert words.startswith("off: usual work takes 0.")
    assert words.endswith(" times as long without it")
    ProfileStore(pool.cache_dir).keep(replace(known, is_disturbed=True))
    busy = SpeedBook(pool).compute_mode("smollm2:135m")
    assert busy is not None
    assert busy.flash_attention() == f"{words}, measured beside other programs"
    ((name, _),) = SpeedBook(pool).compute_modes()
    assert name == "smollm2:135m"
    note = SpeedBook(replace(pool, flash_attention="on")).compute_mode("smollm2:135m")
    assert note is None, "that was measured apart"


@pytest.mark.parametrize(("own_ctx_tokens", "is_flash"), [(8192, False), (16_384, True)])
def test_a_model_whose_context_is_above_8192_tokens_is_never_without_flash_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_ctx_tokens: int, is_flash: bool
) -> None:
    pool = settings(tmp_path)
    known = profile(pool)
    split = tuple(replace(speed, is_unified=False) for speed in known.decode)
    plain = tuple(
        replace(speed, tokens_per_s=3 * speed.tokens_per_s, is_flash=False) for speed in split
    )
    ProfileStore(pool.cache_dir).keep(replace(known, decode=known.decode + split + plain))
    find = ModelFinder.find

    def found(finder: ModelFinder, ref: str, n_ctx_tokens: int | None = None) -> ModelFacts:
        return replace(find(finder, ref, n_ctx_tokens), n_ctx_tokens=own_ctx_tokens)

    monkeypatch.setattr(ModelFinder, "find", found)
    for n_ctx in (None, 2048, 32_768):
        mode = SpeedBook(replace(pool, n_ctx_tokens=n_ctx)).compute_mode("smollm2:135m")
        assert mode is not None
        assert mode.is_flash == is_flash, "its own context counts"


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


def test_a_job_that_only_writes_gets_no_advice(tmp_path: Path) -> None:
    pool = settings(tmp_path)
    ProfileStore(pool.cache_dir).keep(profile(pool))
    assert SpeedBook(pool).gain("smollm2:135m", Workload(1, 10, 500)) is None


def test_a_model_that_is_not_there_has_no_speed(tmp_path: Path) -> None:
    pool = settings(tmp_path)
    ProfileStore(pool.cache_dir).keep(profile(pool))
    assert SpeedBook(pool).seconds("nobody:1b", READING) is None


def test_calls_are_described_by_their_means() -> None:
    assert SpeedBook.workload(4, 400, 40, 100) == Workload(4, 100.0, 10.0, 25.0)
    assert SpeedBook.workload(0, 0, 0, 0) == Workload(1, 0.0, 0.0, 0.0)
