"""A worker measures its model only if it must and may."""

from __future__ import annotations

from pathlib import Path

from paddock.engine.models import ModelFinder
from paddock.engine.native.model import Model
from paddock.engine.profile.profile import PrefillPoint, Profile
from paddock.engine.workers.load import Load
from paddock.engine.workers.profiling import Profiled, profiled

KNOWN = Profile("d" * 64, "cpu1-some", "b", 1.0, 1, 0.5, 98, 23_040.0, (PrefillPoint(64, 500.0),))


def load(path: Path, **more: object) -> Load:
    fields = {"digest": "d" * 64, "device": "cpu1-some", "build": "b", **more}
    return Load(str(path), "embed", 256, 256, 8, 256, 1, **fields)  # type: ignore[arg-type]


def test_a_worker_measures_only_what_is_not_known_and_tells_only_what_is_new(
    tmp_path: Path,
) -> None:
    path = ModelFinder(Path("/nonexistent"), tmp_path).locate("all-minilm").path
    model = Model(path)
    assert profiled(load(path), model) == Profiled(), "unasked, nothing is measured"

    known = profiled(load(path, profile=KNOWN.as_json(), profile_s=4.0), model)
    assert known.profile == KNOWN
    assert known.as_head()["profile"] is None, "the pool has it already"

    damaged = profiled(load(path, profile={"version": 0}), model)
    assert damaged == Profiled()

    late = profiled(load(path, profile_s=1e-6), model)
    assert late.profile is None
    assert late.as_head()["profile_note"] == (
        "1e-06 s are too short for this model on this machine"
    ) or late.note.startswith("other programs used the processor")
    model.close()
