import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from paddock.engine.backends.local import LocalPool
from paddock.engine.errors import TextTooLong
from paddock.engine.settings import PoolSettings
from paddock.steps.base import StepError
from paddock.steps.vectors.embed import Embed, EmbedOutput, EmbedParams
from tests.fakes.pool import FakePool, vector
from tests.fakes.tools import tools


def embed(pool: FakePool, **wishes: Any) -> EmbedOutput:
    return asyncio.run(Embed().run(EmbedParams(**wishes), tools(Path(), pool=pool)))


def test_each_text_gets_its_vector_in_order() -> None:
    pool = FakePool()
    out = embed(pool, texts=["one", "two"], model="vec")
    assert out.vectors == [list(vector("one", 8)), list(vector("two", 8))]
    assert (out.count, out.store) == (2, None)
    assert (pool.embeds[0].model.ref, pool.embeds[0].model.role) == ("vec", "embed")


def test_a_text_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(TextTooLong) as caught:
        embed(FakePool(n_ctx_tokens=20), texts=["short", "word " * 30])
    assert (caught.value.index, caught.value.n_tokens) == (1, 30)


def test_a_long_text_is_split_where_that_is_wished() -> None:
    pool = FakePool(n_ctx_tokens=14)
    out = embed(pool, texts=["short", "word " * 30], on_overflow="split", dimensions=4)
    assert [one.on_overflow for one in pool.embeds] == ["split"], "one request for all texts"
    assert [len(one) for one in out.vectors or ()] == [4, 4]


def test_a_real_model_splits_and_cuts() -> None:
    async def main() -> tuple[EmbedOutput, EmbedOutput]:
        settings = PoolSettings(n_threads=1, models_dir=Path("/nonexistent"), profile_s=0)
        async with LocalPool(settings) as pool:
            beside = tools(Path(), pool=pool)
            half, long = "The boat leaves at nine. " * 60, "The boat leaves at nine. " * 120
            params = EmbedParams(
                texts=[long, half], model="all-minilm", on_overflow="split", dimensions=32
            )
            split = await Embed().run(params, beside)
            return split, await Embed().run(EmbedParams(texts=[half], model="all-minilm"), beside)

    split, whole = asyncio.run(main())
    assert whole.vectors and split.vectors
    cut = whole.vectors[0][:32]
    for out in split.vectors:
        assert out == pytest.approx([value / math.hypot(*cut) for value in cut], abs=1e-3)


def test_an_empty_text_has_no_vector() -> None:
    with pytest.raises(StepError, match="text 1 is empty, so it has no vector"):
        embed(FakePool(), texts=["one", " "])


@pytest.mark.parametrize(
    ("wishes", "fault"),
    [
        ({}, "Give exactly one of `texts`, `chunks`."),
        ({"texts": [], "store": ""}, "at least 1 character"),
        ({"texts": [], "dimensions": 0}, "greater than or equal to 1"),
    ],
)
def test_impossible_wishes_are_faults(wishes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError) as caught:
        EmbedParams(**wishes)
    assert fault in str(caught.value)
