"""A worker measures its model only if it must and may."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from paddock.engine.decoding.kv_cache import CacheOptions, KvCache
from paddock.engine.decoding.scheduler_data import Sequence
from paddock.engine.llama.llama_context import ContextOptions
from paddock.engine.llama.llama_model import Model, ModelOptions
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile.measure import Unmeasured
from paddock.engine.profile.profile import Agreement, Measurements, PrefillPoint, Profile
from paddock.engine.workers import worker_main
from paddock.engine.workers.worker_main import known_or_measured_profile
from paddock.engine.workers.worker_protocol import ProfileResult, WorkerOptions
from tests.fakes import tiny

KNOWN = Profile("d" * 64, "cpu1-some", "b", 1.0, 1, 0.5, 98, 23_040.0, (PrefillPoint(64, 500.0),))


def load(path: Path, **extra: object) -> WorkerOptions:
    sizes = {
        "role": "embed", "n_ctx_tokens": 256, "n_cells": 256, "n_parallel": 8,
        "n_batch_tokens": 256, "n_threads": 1,
    }  # fmt: skip
    fields = {**sizes, "digest": "d" * 64, "device": "cpu1-some", "build": "b", **extra}
    return WorkerOptions(str(path), **fields)  # type: ignore[arg-type]


def test_a_worker_measures_only_what_is_not_known_and_tells_only_what_is_new(
    tmp_path: Path,
) -> None:
    path = ModelFinder(Path("/nonexistent"), tmp_path).locate("all-minilm").path
    model = Model(path)
    assert known_or_measured_profile(load(path), model) == ProfileResult(), (
        "unasked, nothing is measured"
    )

    known = known_or_measured_profile(load(path, profile=KNOWN.as_json(), profile_s=4.0), model)
    assert known.profile == KNOWN
    assert known.as_head()["profile"] is None, "the pool has it already"

    damaged = known_or_measured_profile(load(path, profile={"version": 0}), model)
    assert damaged == ProfileResult()

    late = known_or_measured_profile(load(path, profile_s=1e-6), model)
    assert late.profile is None
    assert late.as_head()["profile_note"] == (
        "1e-06 s are too short for this model on this machine"
    ) or late.note.startswith("other programs used the processor")
    model.close()


@pytest.mark.parametrize("is_known", [True, False])
def test_what_a_worker_finds_of_drafts_on_a_busy_machine_holds_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    agreements = (Agreement(drafts=False),) if is_known else ()

    def refuse(*_: object) -> Measurements:
        raise Unmeasured("other programs used the processor", agreements)

    monkeypatch.setattr(worker_main, "measure_model", refuse)
    path = tiny.copying(tmp_path / "copying.gguf")
    with closing(Model(path, ModelOptions(n_gpu_layers=0))) as model:
        busy = known_or_measured_profile(load(path, role="chat", profile_s=4.0), model)
        head = busy.as_head()
        assert head["profile"] is None, "it is measured at a later load"
        assert head["profile_note"] == "other programs used the processor"
        wishes = CacheOptions(1024, 4096, 4, ContextOptions(4096, 256, 4, 1))
        with closing(KvCache(model, wishes, busy.profile)) as cache:
            assert cache.drafts_keep_answers is (False if is_known else None)
            alike = [Sequence(n, np.full(200, 7, np.int32), 20) for n in range(4)]
            assert not cache.limits.is_unified
            assert not cache.suits(alike, is_running=False), "as without a profile"
