"""What a chat may ask besides a conversation, through a real pool and a real worker."""

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.backends.local import LocalPool
from paddock.engine.errors import BadRequest, Busy, NoInsert, PromptTooLong
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ChatRequest, EmbedRequest, Message, ModelSpec, Reply, Tool
from tests.engine.pools import SETTINGS, VECTORS, digits_with_chances, opened
from tests.fakes import tiny

MODEL = ModelSpec("smollm2:135m", n_ctx_tokens=512)
NARROW = replace(MODEL, n_ctx_tokens=128)  # what is cut to it is soon read
ENDS = {0: -100, 2: -100}
"""The model does not end an answer by itself."""
CHATML = "<|im_start|>{role}\n{content}<|im_end|>\n"


# Every processor goes on alike: " 11" is ahead of all else by more than 3 in logits.
COUNTED = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10,"


def raw(prompt: str, params: Mapping[str, Any] | None = None, **extra: Any) -> ChatRequest:
    return ChatRequest(MODEL, (), {"max_tokens": 8, **(params or {})}, prompt=prompt, **extra)


def ask(*texts: str, params: Mapping[str, Any] | None = None, **extra: Any) -> ChatRequest:
    """Ask with a system turn, then a user's and the model's in turns."""
    roles = ("system", *("user", "assistant") * len(texts))
    messages = tuple(Message(role, text) for role, text in zip(roles, texts, strict=False))
    return ChatRequest(MODEL, messages, {"max_tokens": 8, **(params or {})}, **extra)


async def empty(pool: LocalPool) -> None:
    """Wait until no model is left; the pool tells no one."""
    while pool.stats().resident:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def shown(pool: LocalPool, reply: Reply) -> str:
    return await pool.detokenise(MODEL, reply.tokens)


# Raw prompts


async def test_a_raw_prompt_is_gone_on_with_as_it_stands(pool: LocalPool) -> None:
    reply = await pool.chat(raw(COUNTED, wants_tokens=True)).reply()
    assert reply.text.startswith(" 11")
    assert reply.usage.prompt_tokens == len(await pool.tokenise(MODEL, COUNTED))
    assert await shown(pool, reply) == f"{COUNTED}{reply.text}"


async def test_a_raw_prompt_in_the_models_own_words_is_the_conversation(pool: LocalPool) -> None:
    chat = await pool.chat(ask("Be brief.", "Name a colour.", wants_tokens=True)).reply()
    turns = (("system", "Be brief."), ("user", "Name a colour."))
    text = "".join(CHATML.format(role=role, content=content) for role, content in turns)
    same = await pool.chat(raw(f"{text}<|im_start|>assistant\n", wants_tokens=True)).reply()
    # Not the answers: the likeliest words are nearly equal, and rounding chooses among them.
    n_prompt = chat.usage.prompt_tokens
    assert same.usage.prompt_tokens == n_prompt
    assert same.tokens[:n_prompt] == chat.tokens[:n_prompt]
    assert len(chat.tokens) > n_prompt > 20


async def test_an_answer_is_gone_on_with_by_its_tokens(pool: LocalPool) -> None:
    first = await pool.chat(raw("One, two, three,", wants_tokens=True)).reply()
    later = await pool.chat(raw(" and", prompt_tokens=first.tokens, wants_tokens=True)).reply()
    assert later.tokens[: len(first.tokens)] == first.tokens
    assert (await shown(pool, later)).startswith(f"One, two, three,{first.text} and")
    chat = await pool.chat(
        replace(ask("Be brief.", "More?", wants_tokens=True), prompt_tokens=first.tokens)
    ).reply()
    assert (await shown(pool, chat)).startswith(
        f"One, two, three,{first.text}<|im_start|>system\nBe brief.<|im_end|>"
    )
    with pytest.raises(BadRequest) as caught:
        await pool.chat(raw("x", prompt_tokens=(1, 49_152))).reply()
    assert str(caught.value) == "there is no token 49152: the model's are 0 to 49151"


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
    with pytest.raises(NoInsert):
        await pool.chat(raw("def f():", suffix="return 1")).reply()


async def test_a_request_may_bring_its_own_template(pool: LocalPool) -> None:
    own = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[reply]"
    request = ask("Be brief.", "Name a colour.", template=own, wants_tokens=True)
    reply = await pool.chat(request).reply()
    begins = "[system] Be brief.\n[user] Name a colour.\n[reply]"
    assert (await shown(pool, reply)).startswith(begins)
    plain = await pool.chat(replace(request, template=None)).reply()
    assert (await shown(pool, plain)).startswith("<|im_start|>system")


async def test_text_becomes_tokens_and_text_again(pool: LocalPool) -> None:
    for text in ("", " a  llama\n", "<|im_start|>user", "naïve 🦙 中文"):
        ids = await pool.tokenise(MODEL, text)
        assert await pool.detokenise(MODEL, ids) == text
    assert await pool.tokenise(MODEL, "<|im_start|>") == [1]
    words = await pool.tokenise(VECTORS, "a llama")
    assert (await pool.detokenise(VECTORS, words)).strip() == "a llama"
    with pytest.raises(BadRequest):
        await pool.detokenise(MODEL, [-1])


# How long


async def test_an_answer_without_an_end_goes_up_to_the_end_of_the_context(pool: LocalPool) -> None:
    narrow = replace(MODEL, n_ctx_tokens=32)
    for n in (-1, -2, 500):
        params = {"max_tokens": n, "logit_bias": ENDS, "guards_repetition": False}
        request = replace(raw("Once", params), model=narrow, reserves_answer=False)
        reply = await pool.chat(request).reply()
        assert reply.done_reason == "length"
        assert reply.usage.prompt_tokens + reply.usage.completion_tokens == 32
    with pytest.raises(PromptTooLong) as caught:
        await pool.chat(replace(request, prompt="one two " * 60)).reply()
    error = caught.value
    assert (error.n_reserved_tokens, error.n_ctx_tokens) == (1, 32)


async def test_the_oldest_turns_go_where_that_is_asked_for_and_the_answer_tells(
    pool: LocalPool,
) -> None:
    old = [f"Old {n}. " + "words " * 12 for n in range(9)]
    request = ask("Rules.", *old, "Done.", "Newest?", truncates=True, wants_tokens=True)
    request = replace(request, model=NARROW)
    n_whole = await pool.count_chat(MODEL, request.messages)
    assert n_whole > 128
    stream = pool.chat(request)
    async for _ in stream:
        assert stream.prompt_tokens_original == n_whole
        break
    reply = await stream.reply()
    assert reply.prompt_tokens_original == n_whole
    assert reply.usage.prompt_tokens + 8 <= 128
    text = await shown(pool, reply)
    assert text.startswith("<|im_start|>system\nRules.<|im_end|>\n<|im_start|>user\n")
    assert "Old 0" not in text and "Old 8" in text and "Newest?" in text
    short = await pool.chat(ask("Rules.", "Short?", truncates=True)).reply()
    assert short.prompt_tokens_original is None
    with pytest.raises(PromptTooLong):
        await pool.chat(replace(request, truncates=False)).reply()


async def test_a_last_turn_that_is_too_long_alone_loses_its_middle(pool: LocalPool) -> None:
    long = "First words. " + "and so on " * 150 + "Last words."
    request = ask("Rules.", long, truncates=True, reserves_answer=False, wants_tokens=True)
    reply = await pool.chat(replace(request, model=NARROW)).reply()
    assert reply.prompt_tokens_original is not None and reply.prompt_tokens_original > 300
    text = await shown(pool, reply)
    assert "Rules." in text and "First words." in text and "Last words.<|im_end|>" in text
    assert 100 < reply.usage.prompt_tokens <= 128
    with pytest.raises(PromptTooLong) as caught:
        ruled = ask("rule " * 900, "Why?", truncates=True)
        await pool.chat(replace(ruled, model=NARROW)).reply()
    assert caught.value.n_prompt_tokens > 900, "what it had, not what was left of it"


async def test_of_a_long_prompt_the_beginning_and_the_end_stay(pool: LocalPool) -> None:
    words = await pool.tokenise(MODEL, "".join(f" {n}" for n in range(200)))
    request = raw("", prompt_tokens=tuple(words), truncates=True, wants_tokens=True)
    request = replace(request, model=NARROW)
    reply = await pool.chat(replace(request, n_keep_tokens=6)).reply()
    assert reply.prompt_tokens_original == len(words)
    assert reply.usage.prompt_tokens == 128 - 8
    assert reply.tokens[:6] == tuple(words[:6])
    assert reply.tokens[6:120] == tuple(words[-114:])


async def test_the_most_typical_token_alone_leaves_nothing_to_chance(
    pool: LocalPool, tmp_path: Path
) -> None:
    model = ModelSpec(str(tiny.alphabet(tmp_path / "alphabet.gguf")), n_ctx_tokens=512)
    # Entropy 1.13: of the surprises 0.51, 1.20 and 4.61 the one of "1" is nearest, by 0.5.
    chances = {"0": 0.6, "1": 0.3, **dict.fromkeys("23456789.,", 0.01)}
    bias = await digits_with_chances(pool, model, chances)

    async def drawn_text(seed: int, typical_p: float) -> str:
        params = {"temperature": 1.5, "top_k": 0, "top_p": 1, "typical_p": typical_p}
        options = {"seed": seed, "max_tokens": 12, "logit_bias": bias}
        request = replace(raw("a", {**params, **options}, drafts=False), model=model)
        return (await pool.chat(request).reply()).text

    assert {await drawn_text(seed, 1e-6) for seed in range(3)} == {"1" * 12}
    assert len({await drawn_text(seed, 1.0) for seed in range(3)}) == 3


# Models that come and go


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


async def test_waiting_for_a_load_is_told_apart_from_waiting_for_a_turn() -> None:
    async with opened(replace(SETTINGS, num_parallel=1)) as pool:
        first, second = pool.chat(raw("One")), pool.chat(raw("Two"))
        usage = (await first.reply()).usage
        assert usage.load_s > 0.05
        assert usage.queue_s < usage.load_s
        assert (await second.reply()).usage.load_s > 0.05
        late = (await pool.chat(raw("Three")).reply()).usage
        assert late.load_s == 0
        vectors = await pool.embed(EmbedRequest(VECTORS, ("one",)))
        assert vectors.usage.load_s > 0.02
        again = await pool.embed(EmbedRequest(VECTORS, ("one",)))
        assert again.usage.load_s == 0


async def test_vectors_are_refused_to_who_does_not_wait_where_the_queue_is_full() -> None:
    async with opened(replace(SETTINGS, max_queue=0)) as pool:
        with pytest.raises(Busy):
            await pool.embed(EmbedRequest(VECTORS, ("one",)), waits=False)
        assert len((await pool.embed(EmbedRequest(VECTORS, ("one",)))).vectors) == 1


async def test_a_text_may_be_cut_and_the_reply_says_by_how_much(pool: LocalPool) -> None:
    texts = ("short", "boat " * 510 + "share " * 190)
    reply = await pool.embed(EmbedRequest(VECTORS, texts, on_overflow="cut"))
    n_long = (await pool.count_texts(VECTORS, texts))[1]
    assert reply.n_cut_tokens == (0, n_long - 510)
    assert reply.n_pieces == ()
    parts = ("short", "boat " * 510, "boat " * 320 + "share " * 190)
    same = await pool.embed(EmbedRequest(VECTORS, parts))
    short, beginning, end = (
        sum(x * y for x, y in zip(reply.vectors[1], vector, strict=True)) for vector in same.vectors
    )
    assert beginning > 0.999 > 0.99 > end > short
    assert same.n_cut_tokens == ()


async def test_a_model_with_a_head_that_guesses_ahead_makes_fewer_steps(
    pool: LocalPool, tmp_path: Path
) -> None:
    model = ModelSpec(str(tiny.alphabet(tmp_path / "alphabet.gguf")), n_ctx_tokens=512)
    request = replace(raw("a", {"max_tokens": 24}, drafts=True), model=model)
    reply = await pool.chat(request).reply()
    assert reply.text == "bcdefghijklmnopqrstuvwxy"
    assert reply.usage.accepted_tokens >= 12
    plain = await pool.chat(replace(request, drafts=False)).reply()
    assert (plain.text, plain.usage.drafted_tokens) == (reply.text, 0)
