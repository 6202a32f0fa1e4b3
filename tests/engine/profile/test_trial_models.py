"""A trial model of each format is a whole GGUF file."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddock.engine.gguf import TYPE_NAMES, read_header
from paddock.engine.profile import trial_models


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "IQ4_XS", "F16", "BF16"])
def test_a_trial_is_a_whole_file_in_its_format(tmp_path: Path, name: str) -> None:
    file = tmp_path / "trial.gguf"
    trial_models.write_trial_model(file, name)
    header = read_header(file)
    matrices = [one for one in header.tensors if len(one.axes) == 2 and one.name.startswith("blk.")]
    assert {TYPE_NAMES[one.kind] for one in matrices} == {name}
    assert sum(one.n_weights for one in matrices) == trial_models.TRIAL_WEIGHTS


def test_an_unknown_format_has_no_trial() -> None:
    assert trial_models.can_write_trial_model("Q8_0")
    assert not trial_models.can_write_trial_model("type 39")
