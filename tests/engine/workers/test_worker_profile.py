"""A worker measures its model only if it must and may."""

from __future__ import annotations

from pathlib import Path

from paddock.engine.llama.llama_model import Model
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.profile.profile import PrefillPoint, Profile
from paddock.engine.workers.worker_main import ProfileResult, known_or_measured_profile
from paddock.engine.workers.worker_protocol import WorkerOptions

KNOWN = Profile("d" * 64, "cpu1-some", "b", 1.0, 1, 0.5, 98, 23_040.0, (PrefillPoint(64, 500.0),))


def load(path: Path, **more: object) -> WorkerOptions:
    fields = {"digest": "d" * 64, "device": "cpu1-some", "build": "b", **more}
    return WorkerOptions(str(path), "embed", 256, 256, 8, 256, 1, **fields)  # type: ignore[arg-type]


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
