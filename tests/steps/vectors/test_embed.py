import asyncio
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.errors import TextTooLong
from paddock.engine.request import EmbedReply, EmbedRequest
from paddock.engine.system.records import replace
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


def test_an_empty_text_has_no_vector() -> None:
    with pytest.raises(StepError, match="text 1 is empty, so it has no vector"):
        embed(FakePool(), texts=["one", " "])


def test_letters_that_the_model_does_not_know_are_noted_or_refused() -> None:
    class Latin(FakePool):
        async def embed(self, request: EmbedRequest) -> EmbedReply:
            shares = tuple(float(not text.isascii()) for text in request.texts)
            return replace(await super().embed(request), unknown_shares=shares)

    own = tools(Path(), pool=Latin())
    for texts in (["a", "ก"], ["ก", "a", "ข"]):
        asyncio.run(Embed().run(EmbedParams(texts=texts), own))
    lacks, so = "the model's vocabulary lacks 100% of the letters of text", "may have its vector."
    assert own.notes == [f"{lacks} 1: other words {so}",
                         f"{lacks} 0, and some of 1 others: other words {so}"]  # fmt: skip
    with pytest.raises(StepError, match="lacks 100% of the letters of text 1"):
        embed(Latin(), texts=["a", "ก"], on_unknown="error")
