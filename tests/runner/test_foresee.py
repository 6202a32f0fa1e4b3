"""The time that a plan tells: from the models' profiles, else from the last run, else none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from paddock.engine.models import ModelFinder
from paddock.engine.profile.store import ProfileBook
from paddock.runner import plan
from paddock.runner.settings import Settings
from tests.runner.test_speed import profile
from tests.runner.world import World
from tests.runner.world import settings as of_world


def settings(folder: Path) -> Settings:
    made = of_world(folder)
    return replace(made, pool=replace(made.pool, models_dir=folder / "models", n_threads=1))


def test_time_is_told_from_the_profile_then_from_the_last_run(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.documents(3)
    assert plan(world.file, settings=settings(tmp_path)).seconds is None, "nothing was measured"
    world.run()

    # Another file serves than the one that answered (a pool without a model): all is to be done.
    last = plan(world.file, settings=settings(tmp_path))
    assert last.seconds is not None, "at the speed of the last run"

    pool = settings(tmp_path).pool
    slow = profile(pool)
    slow = replace(
        slow,
        prefill=tuple(replace(one, tokens_per_s=1.0) for one in slow.prefill),
        decode=tuple(replace(one, tokens_per_s=1.0) for one in slow.decode),
    )
    ProfileBook(pool.cache_dir).keep(slow)
    measured = plan(world.file, settings=settings(tmp_path))
    assert measured.tokens is not None
    assert measured.seconds is not None
    assert 0.5 * measured.tokens < measured.seconds <= 1.1 * measured.tokens, "one a second"


def test_what_a_copy_would_gain_is_told_once_it_is_known(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.documents(3)
    assert plan(world.file, settings=settings(tmp_path)).advice == ()
    pool = settings(tmp_path).pool
    ProfileBook(pool.cache_dir).keep(profile(pool))
    (advice,) = plan(world.file, settings=settings(tmp_path)).advice
    assert advice.startswith("A tuned copy of smollm2:135m would read prompts about 1.9 times as")


def test_a_tuned_copy_makes_no_document_stale(tmp_path: Path) -> None:
    """The ledger goes by the file that the name stands for, whichever copy of it serves."""
    from tests.engine.tuning.test_tuned import copy_in

    finder = ModelFinder(tmp_path / "models", tmp_path / "cache")
    before = finder.find("smollm2:135m")
    finder.tuned.keep(copy_in(tmp_path, before.digest))
    after = finder.find("smollm2:135m")
    assert after.digest != before.digest
    assert after.named_digest == before.named_digest


def test_calls_are_not_told_where_a_long_text_may_be_read_in_parts(tmp_path: Path) -> None:
    world = World(
        tmp_path, "steps: [{id: a, uses: chat, with: {prompt: Hi, on_overflow: truncate}}]\n"
    )
    assert world.plan().calls == 1
    world.edit("truncate", "map-reduce")
    assert world.plan().calls is None
