"""The pool with real worker processes and the real bundled models."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.backends.local import LocalPool
from paddock.engine.errors import DeadlineExceeded, PromptTooLong
from paddock.engine.models.model_creation import create_model
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.model_recipe import ModelRecipe
from paddock.engine.request import ChatRequest, EmbedRequest, ModelSpec
from paddock.engine.system.records import replace
from tests.engine.pools import CHAT, SETTINGS, VECTORS, ask, opened
from tests.fakes import tiny
from tests.fakes.gguf import split_gguf


@pytest.fixture(scope="module")
def single(run_coroutine: Callable[[Coroutine[Any, Any, None]], None]) -> Iterator[LocalPool]:
    """Yield a pool that answers one request at a time."""
    pool = LocalPool(replace(SETTINGS, num_parallel=1))
    yield pool
    run_coroutine(pool.__aexit__(None, None, None))


async def test_many_chats_at_once_are_answered_and_share_their_beginning(pool: LocalPool) -> None:
    await pool.chat(ask("Hello")).reply()
    workers = pool.worker_pids()
    instructions = "Read what follows and answer in one short sentence. " * 8
    streams = [
        pool.chat(ask(f"{instructions}What is {n} plus {n}?", priority="batch")) for n in range(10)
    ]
    replies = [await stream.reply() for stream in streams]
    assert all(reply.text for reply in replies)
    reused = [reply.usage.prompt_reused_tokens for reply in replies]
    assert sum(n > 80 for n in reused) == 9, "one computes the beginning, nine reuse it"
    assert pool.worker_pids() == workers
    assert all(model.n_users == 0 for model in pool.stats().resident)


async def test_characters_are_whole_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    async with opened() as pool:
        stream = pool.chat(ask("Repeat exactly: 北京 — naïve 🦙 Москва"))
        text = "".join([chunk.text async for chunk in stream])
        assert text
        assert "\ufffd" not in text.rstrip("\ufffd")
        assert await pool.count_texts(CHAT, ["北京", "🦙", "\ud800 lone"]) > [0, 0, 0]


async def test_a_cancelled_chat_frees_its_place_at_the_next_step(single: LocalPool) -> None:
    stream = single.chat(ask("Tell a long story.", params={"max_tokens": 1500}))
    async for _ in stream:
        break
    for pid in single.worker_pids():
        os.kill(pid, signal.SIGSTOP)  # it steps on while a busy machine lets this process wait
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream.reply()
    await asyncio.sleep(0.2)  # what it has said comes first
    n_before = single.stats().resident[0].n_decoded_tokens
    for pid in single.worker_pids():
        os.kill(pid, signal.SIGCONT)
    short = await single.chat(ask("Hello", params={"max_tokens": 3})).reply()
    n_spent = single.stats().resident[0].n_decoded_tokens - n_before
    n_unsaid = 30  # of a step under way, and of those that a worker holds back for a moment
    assert n_spent <= short.usage.prompt_tokens + 3 + n_unsaid


async def test_deadlines_end_a_request_and_waiting_in_the_queue_does_not_count(
    single: LocalPool,
) -> None:
    await single.chat(ask("Hello")).reply()
    no_end = {0: -100, 2: -100}
    endless = {"max_tokens": 1500, "logit_bias": no_end, "guards_repetition": False}
    with pytest.raises(DeadlineExceeded) as caught:
        await single.chat(ask("Tell a long story.", params=endless, total_s=0.5)).reply()
    assert (caught.value.kind, caught.value.seconds) == ("total", 0.5)
    with pytest.raises(DeadlineExceeded) as caught:
        await single.chat(ask("Tell a long story.", idle_s=1e-6)).reply()
    assert caught.value.kind == "idle"
    first = single.chat(ask("Tell a story.", params={"max_tokens": 100}, priority="batch"))
    waiting = single.chat(
        ask("Say yes.", params={"max_tokens": 2}, priority="batch", total_s=3, idle_s=3)
    )
    async for _ in first:
        break
    (pid,) = single.worker_pids()
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(3.5)  # longer than the one in the queue may take
    os.kill(pid, signal.SIGCONT)
    assert (await waiting.reply()).usage.queue_s > 0
    await first.reply()


async def test_a_longer_context_does_not_load_the_weights_again_nor_loosens_a_smaller_one(
    noise: ModelSpec,
) -> None:
    async with opened() as pool:
        small, text = replace(noise, n_ctx_tokens=512), "word " * 120
        await pool.chat(ask("Hello", model=small)).reply()
        pids = pool.worker_pids()
        with pytest.raises(PromptTooLong):
            await pool.chat(ask(text, model=small)).reply()
        long = ask(text, model=replace(noise, n_ctx_tokens=1024))
        assert (await pool.chat(long).reply()).usage.prompt_tokens > 600
        assert pool.worker_pids() == pids
        assert pool.stats().loads[noise.ref].loads == 1
        assert pool.stats().resident[0].n_ctx_tokens == 1024
        with pytest.raises(PromptTooLong):
            await pool.chat(ask(text, model=small)).reply()


async def test_two_models_take_turns_where_only_one_has_room(noise: ModelSpec) -> None:
    async with opened(replace(SETTINGS, max_loaded_models=1)) as pool:
        chats = [pool.chat(ask(f"Say {n}.", noise, {"max_tokens": 3})) for n in range(3)]
        vectors = [pool.embed(EmbedRequest(VECTORS, (f"text {n}",))) for n in range(3)]
        replies = await asyncio.gather(*(chat.reply() for chat in chats), *vectors)
        assert len(replies) == 6
        loads = {name: count.loads for name, count in pool.stats().loads.items()}
        assert loads == {noise.ref: 1, "all-minilm": 1}, "no swapping on every call"


COPIED = "uncopyrightable " * 6 + "unco"


async def test_a_model_in_several_files_is_made_counted_and_asked_as_the_whole_one(
    tmp_path: Path,
) -> None:
    settings = replace(SETTINGS, models_dir=tmp_path / "models", cache_dir=tmp_path / "cache")
    finder = ModelFinder(settings.models_dir, settings.cache_dir)
    single = tiny.copying(tmp_path / "single.gguf")
    parts = split_gguf(single, tmp_path / "m.gguf")
    files = {part.name: part for part in parts}
    create_model(finder.store, finder, ModelRecipe("split", files=files), lambda _: None)
    params = {"temperature": 0, "max_tokens": 8}
    async with opened(settings) as pool:
        whole, split = (ModelSpec(ref, n_ctx_tokens=512) for ref in (str(single), "split"))
        answers = [
            await pool.chat(ChatRequest(spec, (), params, prompt=COPIED)).reply()
            for spec in (whole, split)
        ]
        assert answers[0].text == answers[1].text == "pyrighta"
        assert await pool.count_texts(split, ["one two three"]) == [13]
