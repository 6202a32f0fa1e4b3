"""LoRA adapters over the real small model."""

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest

from paddock.engine.backends.local import LocalPool
from paddock.engine.errors import AdapterBroken, ModelBroken
from paddock.engine.memory.loaded_models import resolve_adapters
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ChatRequest, Message, ModelFacts, ModelSpec
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from tests.fakes.adapter import write_adapter
from tests.fakes.gguf import Value

CHAT = ModelSpec("smollm2:135m", n_ctx_tokens=512)
TENSOR = "blk.20.attn_output.weight"


def test_an_adapter_that_adds_nothing_changes_nothing_and_another_one_does(tmp_path: Path) -> None:
    nothing = write_adapter(tmp_path / "nothing.gguf", TENSOR, 576, 576, strength=0)
    much = write_adapter(tmp_path / "much.gguf", TENSOR, 576, 576, strength=8)
    settings = PoolSettings(n_threads=1, num_parallel=1, cache_dir=tmp_path / "cache", profile_s=0)
    finder = Made(tmp_path, tmp_path / "cache", str(much))

    async def work() -> None:
        async with LocalPool(settings, models=finder) as pool:

            async def likely(*adapters: Path, ref: str = CHAT.ref) -> set[bytes]:
                """Return the 20 likeliest beginnings: rounding changes few of them."""
                spec = replace(CHAT, ref=ref, adapters=tuple(map(str, adapters)))
                message = Message("user", "Name three animals.")
                request = ChatRequest(spec, (message,), {"max_tokens": 1}, n_logprobs=20)
                (first,) = (await pool.chat(request).reply()).logprobs
                return {raw for raw, _ in first.top}

            plain = await likely()
            assert len(await likely(nothing) & plain) > 12
            other = await likely(much)
            assert not other & plain
            assert len(await likely() & plain) > 12
            held = {model.adapters for model in pool.stats().resident}
            assert held == {(), (str(nothing),), (str(much),)}, "each is a model of its own"
            assert len(await likely(ref="made") & other) > 12, "always has it"
            assert await pool.unload("made")
            left = {model.adapters for model in pool.stats().resident}
            assert left == {(), (str(nothing),)}

    asyncio.run(work())


class Made(ModelFinder):
    """Knows a model that was made from the small one, with an adapter."""

    def __init__(self, models_dir: Path, cache_dir: Path, adapter: str) -> None:
        super().__init__(models_dir, cache_dir)
        self._adapter = adapter

    def find(self, ref: str, n_ctx_tokens: int | None = None) -> ModelFacts:
        if ref != "made":
            return super().find(ref, n_ctx_tokens)
        return replace(super().find(CHAT.ref, n_ctx_tokens), name="made", adapters=(self._adapter,))


@pytest.mark.parametrize(
    ("n", "more", "why"),
    [
        (64, {}, "llama.cpp cannot apply the adapter {} to this model: .*maybe wrong base model"),
        (576, {"adapter.alora.invocation_tokens": [np.uint32(1)]},
         "the adapter {} holds from certain words of a prompt on .aLoRA., which is not supported"),
    ],
)  # fmt: skip
async def test_an_adapter_that_cannot_be_used_is_named(
    tmp_path: Path, n: int, more: dict[str, Value], why: str
) -> None:
    foreign = write_adapter(tmp_path / "foreign.gguf", TENSOR, n, n, strength=1, more=more)
    settings = PoolSettings(n_threads=1, cache_dir=tmp_path / "cache", profile_s=0)

    async with LocalPool(settings) as pool:
        spec = replace(CHAT, adapters=(str(foreign),))
        with pytest.raises(ModelBroken) as caught:
            await pool.chat(ChatRequest(spec, (Message("user", "Hello"),))).reply()
    assert re.search(why.format(foreign), str(caught.value))


def test_an_adapter_that_is_missing_or_none_is_told_before_anything_is_loaded(
    tmp_path: Path,
) -> None:
    with pytest.raises(AdapterBroken) as caught:
        resolve_adapters([str(tmp_path / "none.gguf")])
    assert str(caught.value) == (
        f"adapter {tmp_path / 'none.gguf'}: there is no such file. Name the path of a GGUF adapter."
    )
    model = ModelFinder(tmp_path, tmp_path / "cache").locate("smollm2:135m").path
    with pytest.raises(AdapterBroken) as caught:
        resolve_adapters([str(model)])
    assert str(caught.value) == (
        f"adapter {model}: this is not a LoRA adapter, but a GGUF file of a model"
    )
