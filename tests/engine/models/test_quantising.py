"""Weights are written in another format, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddock.engine.errors import EngineError, StoreFull
from paddock.engine.gguf import read_header
from paddock.engine.models import model_creation
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.modelfile import ModelRecipe
from paddock.engine.models.transfer import ProgressLine
from tests.engine.models.making import config, digest_of, made, refusal, statuses


@pytest.mark.parametrize(
    ("wish", "kind"), [("q8_0", "Q8_0"), ("q4_K_M", "Q4_K_M"), ("Q4_0", "Q4_0")]
)
def test_weights_are_written_in_another_format(
    finder: ModelFinder, loadable: Path, wish: str, kind: str
) -> None:
    lines = made(finder, ModelRecipe("mine", files={"trial.gguf": loadable}, quantize=wish))
    working = [line for line in lines if line.status == f"quantizing F16 model to {kind}"]
    assert working[0] == ProgressLine(f"quantizing F16 model to {kind}")
    assert working[-1].completed == working[-1].total != 0
    assert "verifying conversion" in statuses(lines)
    facts = finder.find("mine")
    assert read_header(Path(facts.path)).file_type == kind
    assert facts.size_bytes < loadable.stat().st_size
    assert config(finder, "mine")["file_type"] == kind
    assert f"creating new layer sha256:{facts.digest}" in statuses(lines)
    assert [path.name for path in (finder.store.root / "blobs").glob(".*")] == []
    assert len(finder.store.blobs.digests()) == 2


def test_only_unquantised_weights_are_quantised(finder: ModelFinder) -> None:
    recipe = ModelRecipe("mine", base="smollm2:135m", quantize="q4_0")
    assert refusal(finder, recipe) == (
        "quantization is only supported for F16, BF16 and F32 models"
    )


def test_the_format_that_it_has_already_is_no_work(finder: ModelFinder, weights: Path) -> None:
    lines = made(finder, ModelRecipe("mine", files={"m": weights}, quantize="f16"))
    assert not any("quantizing" in line.status for line in lines)
    assert finder.find("mine").digest == digest_of(weights.read_bytes()).removeprefix("sha256:")


def test_a_quantiser_that_dies_is_told_with_its_last_words_and_leaves_nothing(
    finder: ModelFinder, loadable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import os, sys; sys.stdin.readline(); sys.stderr.write('GGML_ASSERT'); os.abort()"
    monkeypatch.setattr(model_creation, "_QUANTISER_COMMAND", ("python3", "-c", script))
    with pytest.raises(EngineError) as caught:
        made(finder, ModelRecipe("mine", files={"trial.gguf": loadable}, quantize="q8_0"))
    assert str(caught.value).endswith(
        "cannot be written in Q8_0: the process was killed by SIGABRT (GGML_ASSERT)"
    )
    assert finder.store.names() == []
    assert [path.name for path in (finder.store.root / "blobs").glob(".*")] == []


def test_there_is_no_beginning_where_there_is_no_room(
    finder: ModelFinder, loadable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_creation, "free_disk_bytes", lambda _: 1_000_000)
    with pytest.raises(StoreFull):
        made(finder, ModelRecipe("mine", files={"trial.gguf": loadable}, quantize="q8_0"))
    assert finder.store.names() == []
