"""Trials of constraints have the time that they need: other tests use the machine."""

import math
from collections.abc import Iterator

import pytest

from paddock.engine import trial_process


@pytest.fixture(autouse=True, scope="module")
def _patient_trials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # At the lowest priority a trial takes minutes there.
        patch.setattr(trial_process, "BRIEF_S", math.inf)
        patch.setattr(trial_process, "TRIAL_WALL_S", 600)
        yield
