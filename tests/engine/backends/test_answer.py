"""An answer between the worker that makes it and those who read it."""

import asyncio
from collections.abc import Awaitable, Callable

from paddock.engine.backends.answer import Answer
from paddock.engine.request import ChatRequest, Chunk, ModelSpec, Reply, Usage
from paddock.engine.workers.worker_protocol import AnswerEnd

REQUEST = ChatRequest(ModelSpec("x"), ())


def answered(n_chunks: int, pause: Callable[[int], Awaitable[None]]) -> Answer:
    """Return an answer that counts."""

    async def serve(answer: Answer) -> Reply:
        for number in range(n_chunks):
            answer.add(Chunk(f"{number} ", reasoning="x"))
            await pause(number)
        return answer.reply_of(AnswerEnd("stop", Usage(), False, (1, 2)), "d")

    return Answer(REQUEST, serve)


def counted(n: int) -> str:
    return "".join(f"{number} " for number in range(n))


async def at_once(number: int) -> None:
    """Make no pause."""


async def after_each(number: int) -> None:
    await asyncio.sleep(0)


async def test_nothing_is_lost_of_an_answer_longer_than_what_is_kept_in_pieces() -> None:
    for pause in (at_once, after_each):
        answer = answered(2000, pause)
        chunks = [chunk async for chunk in answer]
        reply = await answer.reply()
        assert reply.text == "".join(chunk.text for chunk in chunks) == counted(2000)
        assert sum(chunk.n_tokens for chunk in chunks) == 2000
        assert (reply.reasoning, reply.tokens) == ("x" * 2000, (1, 2))


async def test_a_slow_reader_gets_what_has_gathered_and_a_late_one_all_of_it() -> None:
    answer = answered(1500, after_each)
    quick, slow = asyncio.create_task(read(answer, 0)), asyncio.create_task(read(answer, 40))
    assert "".join(await quick) == "".join(await slow) == counted(1500)
    late = await read(answer, 0)
    assert "".join(late) == counted(1500)
    assert len(late) < 600, "an answer that is not awaited is not kept piece by piece"


async def read(answer: Answer, n_pauses: int) -> list[str]:
    texts = []
    async for chunk in answer:
        texts.append(chunk.text)
        for _ in range(n_pauses):
            await asyncio.sleep(0)
    return texts
