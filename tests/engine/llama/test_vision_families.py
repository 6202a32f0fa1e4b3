"""Each family of models that see answers as libmtmd's own reading of the prompt does."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.backends.local import LocalPool
from paddock.engine.request import ChatRequest, Message, ModelSpec, Priority, Reply
from paddock.engine.settings import CacheLayout, PoolSettings
from tests.fakes.eyes import FAMILIES, noise, write_family
from tests.fakes.libmtmd import Reference

N_TOKENS = 24
NEARLY = 0.005
"""Difference of log probabilities by the order of sums: kernels for several rows are others."""
KINDS = ("llava", "qwen2vl", "qwen3vl", "gemma3")
"""One family for each way in which rows are computed."""
TWO_KINDS = ("qwen3vl", "gemma3")
"""One whose rows share positions and one whose images must be computed at once."""


@dataclass(frozen=True)
class Conversation:
    """Turns of a user with images, and what the assistant said between."""

    turns: tuple[Message, ...]

    @property
    def prompt(self) -> str:
        """The prompt as the template of `tests.fakes.tiny` writes it."""
        texts = [f"{'<__media__>' * len(m.images)}{m.content}" for m in self.turns]
        roles = [message.role for message in self.turns]
        written = [f"<|im_start|>{r}\n{t}<|im_end|>\n" for r, t in zip(roles, texts, strict=True)]
        return "".join(written) + "<|im_start|>assistant\n"

    @property
    def images(self) -> list[bytes]:
        return [image for message in self.turns for image in message.images]


def user(text: str, *images: bytes) -> Message:
    return Message("user", text, images=images)


ONE = Conversation((user("What is it?", noise(1)),))
TWO = Conversation(
    (
        user("What is it?", noise(1)),
        Message("assistant", "A house and a tree."),
        user("And how does this differ from the first?", noise(2, 48, 56)),
    )
)
LARGE = Conversation((user("Read this page.", noise(3, 208, 168)),))
BESIDE = Conversation((user("Compare these.", noise(4, 56, 40), noise(1)),))


ALL = (ONE, TWO, LARGE, BESIDE)


@dataclass(frozen=True)
class Seeing:
    """A family's tiny model, and what libmtmd says of an answer."""

    model: Path
    reference: Reference

    def request(
        self,
        conversation: Conversation,
        n_tokens: int = N_TOKENS,
        priority: Priority = "normal",
        n_ctx_tokens: int = 2048,
        **given: Any,
    ) -> ChatRequest:
        spec = ModelSpec(str(self.model), n_ctx_tokens=n_ctx_tokens)
        params = {"max_tokens": n_tokens, "temperature": 0}
        return ChatRequest(
            spec, conversation.turns, params, priority, wants_tokens=True, n_logprobs=1, **given
        )

    def check(self, reply: Reply, conversation: Conversation) -> None:
        """Assert that each token is the likeliest one, with the same probability."""
        answer = reply.tokens[len(reply.tokens) - reply.usage.completion_tokens :]
        rating = self.reference.rate(conversation.prompt, conversation.images, answer)
        assert reply.usage.prompt_tokens == rating.n_prompt_tokens
        assert rating.logprobs == pytest.approx(rating.best, abs=NEARLY)
        assert [logprob.logprob for logprob in reply.logprobs] == pytest.approx(
            rating.logprobs, abs=NEARLY
        )

    def settings(self, **given: Any) -> PoolSettings:
        folder = self.model.parent
        return PoolSettings(
            n_threads=1,
            models_dir=folder,
            cache_dir=folder / "cache",
            profile_s=0,
            flash_attention="off",
            **given,
        )

    def pool(self, **given: Any) -> LocalPool:
        return LocalPool(self.settings(**given))


@pytest.fixture(scope="module", params=FAMILIES)
def seeing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Seeing]:
    model, projector = write_family(request.param, tmp_path_factory.mktemp(request.param))
    reference = Reference(model, projector)
    yield Seeing(model, reference)
    reference.close()


@pytest.fixture(scope="module")
def run_coroutine() -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def pool(
    seeing: Seeing, run_coroutine: Callable[[Coroutine[Any, Any, None]], None]
) -> Iterator[LocalPool]:
    """Yield the one pool of a family, whose settings are no part of the claim."""
    pool = LocalPool(seeing.settings())
    yield pool
    run_coroutine(pool.__aexit__(None, None, None))


async def test_answers_are_those_of_libmtmd_alone_and_with_a_cached_prefix(
    pool: LocalPool, seeing: Seeing
) -> None:
    for conversation in ALL:
        first = await pool.chat(seeing.request(conversation)).reply()
        seeing.check(first, conversation)
        again = await pool.chat(seeing.request(conversation)).reply()
        seeing.check(again, conversation)
        assert again.usage.prompt_reused_tokens == first.usage.prompt_tokens - 1


@pytest.mark.parametrize("seeing", KINDS, indirect=True)
@pytest.mark.parametrize("layout", ["split", "unified"])
async def test_answers_are_those_of_libmtmd_beside_seven_others(
    seeing: Seeing, layout: CacheLayout
) -> None:
    async with seeing.pool(num_parallel=8, cache_layout=layout) as pool:
        requests = [seeing.request(conversation) for conversation in ALL * 2]
        replies = await asyncio.gather(*(pool.chat(request).reply() for request in requests))
    for reply, conversation in zip(replies, ALL * 2, strict=True):
        seeing.check(reply, conversation)


@pytest.mark.parametrize("seeing", TWO_KINDS, indirect=True)
async def test_answers_stay_the_same_after_a_preemption(seeing: Seeing) -> None:
    # Any three of the answers need more cells than there are. There are more requests than places,
    # so that four run at once also where a busy machine brings them one after the other.
    async with seeing.pool(num_parallel=4, cache_layout="unified", n_cells=1024) as pool:
        requests = [seeing.request(each, 400, n_ctx_tokens=1024) for each in ALL * 3]
        replies = await asyncio.gather(*(pool.chat(request).reply() for request in requests))
    for reply, conversation in zip(replies, ALL * 3, strict=True):
        seeing.check(reply, conversation)
    assert sum(reply.usage.n_preempted for reply in replies) > 0


@pytest.mark.parametrize("seeing", TWO_KINDS, indirect=True)
@pytest.mark.parametrize("layout", ["split", "unified"])
async def test_answers_go_on_when_a_longer_request_makes_a_larger_context(
    seeing: Seeing, layout: CacheLayout
) -> None:
    longer = Conversation((user("word " * 330, noise(7)),))
    async with seeing.pool(num_parallel=4, cache_layout=layout) as pool:
        jobs = [pool.chat(seeing.request(image, 300)) for image in (TWO, BESIDE)]
        for job in jobs:
            await anext(aiter(job))
        jobs.append(pool.chat(seeing.request(longer)))
        replies = [await job.reply() for job in jobs]
    for reply, conversation in zip(replies, (TWO, BESIDE, longer), strict=True):
        seeing.check(reply, conversation)


@pytest.mark.parametrize("seeing", KINDS, indirect=True)
async def test_answers_stay_the_same_with_drafts(pool: LocalPool, seeing: Seeing) -> None:
    n_accepted = 0
    for conversation in ALL * 2:
        request = seeing.request(conversation, 120, drafts=True)
        reply = await pool.chat(request).reply()
        seeing.check(reply, conversation)
        n_accepted += reply.usage.accepted_tokens
    assert n_accepted


@pytest.mark.parametrize("seeing", KINDS, indirect=True)
async def test_an_answer_about_an_image_ends_where_a_text_would_shift(
    pool: LocalPool, seeing: Seeing
) -> None:
    request = seeing.request(ONE, -1, n_ctx_tokens=256, shifts=True)
    reply = await pool.chat(request).reply()
    seeing.check(reply, ONE)
    assert (reply.done_reason, reply.usage.shifted_tokens) == ("length", 0)
    assert reply.usage.prompt_tokens + reply.usage.completion_tokens == 256


@pytest.mark.parametrize("seeing", ("llava", "qwen3vl"), indirect=True)
async def test_answers_stay_the_same_after_their_cells_were_saved_and_restored(
    seeing: Seeing,
) -> None:
    long = Conversation((user("word " * 40, noise(3, 208, 168)),))
    async with seeing.pool(num_parallel=1, cache_layout="unified", n_cells=2048) as pool:
        first = await pool.chat(seeing.request(long, priority="interactive")).reply()
        for number in range(4):
            other = Conversation((user(f"{number} " + "word " * 330, noise(number)),))
            await pool.chat(seeing.request(other, priority="interactive")).reply()
        again = await pool.chat(seeing.request(long, priority="interactive")).reply()
    seeing.check(again, long)
    assert again.usage.prompt_reused_tokens == first.usage.prompt_tokens - 1
