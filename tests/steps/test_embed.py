import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from paddock.engine.errors import TextTooLong
from paddock.steps.embed import Embed, EmbedOutput, EmbedParams
from paddock.steps.step import StepError
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


def test_chunks_are_embedded_by_their_text() -> None:
    pool = FakePool()
    embed(pool, chunks=[{"text": "one", "page": 1}, "two"], dimensions=4)
    assert (pool.embeds[0].texts, pool.embeds[0].dimensions) == (("one", "two"), 4)


def test_no_texts_need_no_model() -> None:
    pool = FakePool()
    assert embed(pool, texts=[]).model_dump() == {"vectors": [], "count": 0, "store": None}
    assert pool.embeds == []


def test_a_text_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(TextTooLong) as caught:
        embed(FakePool(n_ctx_tokens=20), texts=["short", "word " * 30])
    assert (caught.value.index, caught.value.n_tokens) == (1, 30)


def test_a_long_text_is_split_and_its_parts_weigh_by_their_tokens() -> None:
    pool = FakePool(n_ctx_tokens=14)
    out = embed(pool, texts=["short", "a b c d e f g h i j. k l"], on_overflow="split")
    assert pool.embeds[0].texts == ("short", "a b c d e f g h i j.", "k l")
    first, second = vector("a b c d e f g h i j.", 8), vector("k l", 8)
    mixed = [10 * a + 2 * b for a, b in zip(first, second, strict=True)]
    assert out.vectors[0] == list(vector("short", 8))
    assert out.vectors[1] == pytest.approx([value / math.hypot(*mixed) for value in mixed])


def test_an_empty_text_has_no_vector() -> None:
    with pytest.raises(StepError, match="text 1 is empty, so it has no vector"):
        embed(FakePool(), texts=["one", " "])


@pytest.mark.parametrize(
    ("wishes", "fault"),
    [
        ({}, "Give exactly one of `texts`, `chunks`."),
        ({"texts": [], "store": "x.lance"}, "`store` is not in this version."),
        ({"texts": [], "dimensions": 0}, "greater than or equal to 1"),
    ],
)
def test_impossible_wishes_are_faults(wishes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError) as caught:
        EmbedParams(**wishes)
    assert fault in str(caught.value)
