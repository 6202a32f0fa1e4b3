"""Confidence with the bundled model, on what it can do: choosing one of three labels."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from paddock.engine.backends.local import LocalPool
from paddock.engine.llama.quantise import quantise
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ModelSpec
from paddock.engine.settings import PoolSettings
from tests.steps.llm.labelled_texts import (
    MODEL,
    TOPICS,
    Labelled,
    label_all,
    label_request,
    labelled,
)

SETTINGS = PoolSettings(n_threads=1, models_dir=Path("/nonexistent"), profile_s=0)
HARD = "It will rain in Oslo until the evening. Lunch will be served after the match."


def test_sure_labels_are_right_more_often_than_doubtful_ones() -> None:
    async def work() -> list[Labelled]:
        async with LocalPool(SETTINGS) as pool:
            return await label_all(pool, 36)

    found = sorted(asyncio.run(work()), key=lambda one: one.p)
    n_right = [sum(one.is_right for one in half) for half in (found[:18], found[18:])]
    assert n_right[0] + 2 < n_right[1], [(one.p, one.is_right) for one in found]
    for one in found:
        assert one.second in TOPICS, "each token of a label leaves one other that fits"
        assert one.second != one.label
        assert 0 < one.second_p < 1
        assert one.p + one.second_p <= 1.001


def test_the_same_label_has_the_same_probability_however_it_came(tmp_path: Path) -> None:
    """Greedy, sampled, with drafts and without, alone and in company: it is the model's own.

    In 16 bits: kernels for 4 bits round by how many rows a batch has, by 0.08 on a Xeon with AMX.
    """
    model = tmp_path / "model.gguf"
    own = ModelFinder(tmp_path, tmp_path).find(MODEL.ref).path
    quantise(Path(own), model, "F16", 2)

    spec = ModelSpec(str(model), n_ctx_tokens=2048)

    async def work() -> tuple[Labelled, list[Labelled], list[Labelled]]:
        async with LocalPool(SETTINGS) as pool:
            first = label_request(HARD, spec)
            greedy = labelled(await pool.chat(first).reply(), "weather")
            asked = [
                label_request(HARD, spec, temperature=4, top_p=1, seed=seed) for seed in range(24)
            ]
            asked.append(replace(first, drafts=False))
            alone = [await pool.chat(request).reply() for request in asked]
            together = await asyncio.gather(*(pool.chat(one).reply() for one in asked[-9:]))
            sampled = [[labelled(one, "weather") for one in all_] for all_ in (alone, together)]
            return greedy, sampled[0], sampled[1]

    greedy, alone, together = asyncio.run(work())
    found = {greedy.label: greedy.p}
    for one in alone:
        assert found.setdefault(one.label, one.p) == pytest.approx(one.p, abs=0.002)
    assert len(found) == len(TOPICS), found
    assert sum(found.values()) == pytest.approx(1, abs=0.01), found
    assert alone[-1].label == greedy.label
    for one in together:
        assert one.p == pytest.approx(found[one.label], abs=0.01)
