"""What a chat may ask besides a conversation, through a real pool and a real worker."""

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.backends.local import LocalPool
from paddock.engine.errors import BadRequest, Busy, NoInsert, TemplateUnreadable, TrialTimeout
from paddock.engine.gguf import SUPPRESSED
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import (
    ChatRequest,
    Constraint,
    EmbedRequest,
    Message,
    ModelSpec,
    Priority,
    Tool,
)
from paddock.engine.system.records import replace
from tests.engine.pools import SETTINGS, VECTORS, opened
from tests.fakes import tiny
from tests.fakes.gguf import Value

MODEL = ModelSpec("smollm2:135m", n_ctx_tokens=512)
ENDS = {0: -100, 2: -100}
"""The model does not end an answer by itself."""


def raw(prompt: str, params: Mapping[str, Any] | None = None, **extra: Any) -> ChatRequest:
    return ChatRequest(MODEL, (), {"max_tokens": 8, **(params or {})}, prompt=prompt, **extra)


async def empty(pool: LocalPool) -> None:
    """Wait until no model is left; the pool tells no one."""
    while pool.stats().resident:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def test_what_a_raw_prompt_has_no_place_for_is_refused(pool: LocalPool) -> None:
    with pytest.raises(BadRequest) as caught:
        await pool.chat(raw("x", tools=(Tool("look"),))).reply()
    assert str(caught.value) == "a prompt without a conversation has no place for tools"
    with pytest.raises(BadRequest) as caught:
        await pool.chat(raw("")).reply()
    assert str(caught.value) == "the prompt is empty"
    with pytest.raises(BadRequest) as caught:
        await pool.chat(raw("x", images=(b"GIF89a",))).reply()
    assert str(caught.value) == "model 'smollm2:135m' cannot see images: it has no projector"
    with pytest.raises(BadRequest) as caught:
        await pool.chat(raw("x", prompt_tokens=(1, 49_152))).reply()
    assert str(caught.value) == "there is no token 49152: the model's are 0 to 49151"
    with pytest.raises(NoInsert):
        await pool.chat(raw("def f():", suffix="return 1")).reply()


async def test_text_becomes_tokens_and_text_again(pool: LocalPool) -> None:
    for text in ("", " a  llama\n", "<|im_start|>user", "naïve 🦙 中文"):
        ids = await pool.tokenise(MODEL, text)
        assert await pool.detokenise(MODEL, ids) == text
    assert await pool.tokenise(MODEL, "<|im_start|>") == [1]
    words = await pool.tokenise(VECTORS, "a llama")
    assert (await pool.detokenise(VECTORS, words)).strip() == "a llama"
    with pytest.raises(BadRequest):
        await pool.detokenise(MODEL, [-1])


async def test_a_model_is_loaded_and_let_go_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    shutil.copy(ModelFinder(tmp_path, tmp_path).locate("all-minilm").path, path)

    async with opened() as pool:
        mine = ModelSpec(str(path), role="embed")
        assert not await pool.unload("all-minilm")
        assert await pool.load(mine) > 0.05
        assert await pool.load(mine) == 0
        path.unlink()
        assert await pool.unload(str(path)), "a model that is on disk no more"
        assert pool.stats().resident == ()
        await pool.load(VECTORS)
        assert await pool.unload("ALL-minilm:latest"), "another way to write its name"
        assert not await pool.unload("all-minilm")


async def test_a_model_in_use_goes_when_its_users_have_left() -> None:
    async with opened() as pool:
        stream = pool.chat(raw("Once upon a time", {"max_tokens": 60, "logit_bias": ENDS}))
        async for _ in stream:
            break
        assert await pool.unload("smollm2:135m")
        assert len(pool.stats().resident) == 1
        reply = await stream.reply()
        assert reply.usage.completion_tokens > 10
        await empty(pool)


async def test_vectors_are_refused_to_who_does_not_wait_where_the_queue_is_full() -> None:
    async with opened(replace(SETTINGS, max_queue=0)) as pool:
        with pytest.raises(Busy):
            await pool.embed(EmbedRequest(VECTORS, ("one",)), waits=False)
        assert len((await pool.embed(EmbedRequest(VECTORS, ("one",)))).vectors) == 1


async def test_a_requests_template_ends_with_that_request() -> None:
    def asked(template: str | None, priority: Priority = "batch") -> ChatRequest:
        turn, params = Message("user", "Hello"), {"max_tokens": 4}
        return ChatRequest(MODEL, (turn,), params, template=template, priority=priority)

    computes = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    async with opened() as pool:
        usual = await pool.chat(asked(None)).reply()
        costly = asyncio.ensure_future(pool.chat(asked(computes, "normal")).reply())
        answered = [await pool.chat(asked(None)).reply() for _ in range(3)]
        assert {reply.text for reply in answered} == {usual.text}
        with pytest.raises((BadRequest, TrialTimeout)):
            await costly
        own = "{% for m in messages %}<|im_start|>{{ m.role }}{{ m.content }}{% endfor %}"
        assert (await pool.chat(asked(own)).reply()).text
        with pytest.raises(TemplateUnreadable):
            await pool.chat(asked("{% for %}")).reply()


async def test_vectors_tell_of_letters_that_the_model_does_not_know(pool: LocalPool) -> None:
    texts = ("Hello", "Ünïcode", "ภาษาไทย")
    assert (await pool.embed(EmbedRequest(VECTORS, texts))).unknown_shares == (0, 0, 1)
    assert (await pool.embed(EmbedRequest(VECTORS, texts[:2]))).unknown_shares == ()


async def test_what_the_file_says_of_decoding_is_obeyed(tmp_path: Path) -> None:
    def asked(params: Mapping[str, Any], **more: Any) -> ChatRequest:
        spec = ModelSpec(str(tmp_path / "m.gguf"), n_ctx_tokens=256)
        wanted = {"max_tokens": 40, "ignore_eos": True, "guards_repetition": False, **params}
        return ChatRequest(spec, (), wanted, prompt="Hello", wants_tokens=True, **more)

    async def said(values: Mapping[str, Value], *requests: ChatRequest) -> list[tuple[int, ...]]:
        tiny.llama(tmp_path / "m.gguf", more=values)
        async with opened() as pool:
            return [(await pool.chat(request).reply()).tokens[5:] for request in requests]

    ours: Mapping[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    greedy, drawn = asked({"temperature": 0}), asked({}, defaults={**ours, "seed": 4})
    best, other = await said({}, greedy, drawn)
    assert best != other
    # The file's temperature comes before ours, and after the request's.
    cold: dict[str, Value] = {"general.sampling.temp": 0.0}
    assert await said(cold, drawn, asked({**ours, "seed": 4})) == [best, other]
    # Tokens that the file forbids are not said, nor those beyond the vocabulary a fault.
    never = [*best[:20], *other[:20], 999_999, -1 & 0xFFFFFFFF]
    for tokens in await said({SUPPRESSED: never}, greedy, drawn, asked({"min_tokens": 3})):
        assert tokens
        assert not {*tokens} & {*never}
    # A constraint goes before the file, as before a bias.
    forced = asked({}, constraint=Constraint("regex", "[ab]{3}"))
    [spelt] = await said({SUPPRESSED: [ord("a") - 33, ord("b") - 33]}, forced)
    assert len(spelt) >= 3
