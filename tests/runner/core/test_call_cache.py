import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.errors import PromptTooLong
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    Constraint,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Reply,
    Stream,
    TokenLogprob,
    Tool,
    ToolCall,
)
from paddock.engine.system.records import replace
from paddock.runner.core.calls.call_cache import LedgerPool
from paddock.runner.core.calls.call_rows import chat_key
from paddock.runner.core.calls.recorded_calls import CallOrigin
from paddock.runner.core.calls.run_models import RunModels
from paddock.runner.core.run_stats import RunStats
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.progress.events import Observer
from tests.fakes.pool import FakePool, FakeStream
from tests.runner.world import SUMMARIES, World, each_document, states

CALL = ToolCall("look", {"where": "here"}, "c1")
REQUEST = ChatRequest(ModelSpec("m"), (Message("user", "Is it?"),))


class Thinking(FakePool):
    async def answer_to(self, request: ChatRequest) -> Reply:
        reply = await super().answer_to(request)
        return replace(reply, reasoning="Hm.", tool_calls=(CALL,))


def replies_to(folder: Path, pool: FakePool, *requests: ChatRequest) -> list[Reply]:
    """Ask one after the other, each answer remembered."""

    async def main() -> list[Reply]:
        with Ledger(folder) as ledger:
            tally = RunStats("run", "pipeline", Observer())
            caller = CallOrigin("scope", "step", "key", looks_up=True)
            known = LedgerPool(pool, ledger, RunModels(pool.facts), tally, caller)
            replies = []
            for request in requests:
                replies.append(await known.chat(request).reply())
                await ledger.durable()
            return replies

    return asyncio.run(main())


def test_an_answer_that_is_remembered_keeps_its_reasoning_and_calls(tmp_path: Path) -> None:
    first, again = replies_to(tmp_path, Thinking(), REQUEST, REQUEST)
    assert again == first
    assert (again.reasoning, again.tool_calls) == ("Hm.", (CALL,))


def test_an_answer_that_ended_at_its_limit_is_asked_again_where_the_default_context_is_another(
    tmp_path: Path,
) -> None:
    def pool(n_ctx_tokens: int) -> FakePool:
        return FakePool(answer=lambda _: "word " * 400, n_ctx_tokens=n_ctx_tokens)

    (short,) = replies_to(tmp_path, pool(400), REQUEST)
    larger = pool(4000)
    longer, again = replies_to(tmp_path, larger, REQUEST, REQUEST)
    assert (short.done_reason, longer.done_reason, len(larger.chats)) == ("length", "stop", 1)
    assert longer == again
    same = pool(400)
    assert replies_to(tmp_path, same, REQUEST) == [short]
    assert not same.chats


class Doubting(FakePool):
    """Sends log probabilities: of reasoning, of a character in two tokens, of a guess."""

    async def answer_to(self, request: ChatRequest) -> Reply:
        reply = await super().answer_to(request)
        raw = "é".encode()
        guess = ((b"y", -0.1), (b"n", -2.5), (b"never", -9.0))
        logprobs = (
            TokenLogprob(b"Hm.", -1.0),
            TokenLogprob(raw[:1], 0.0, [(raw[:1], 0.0)]),
            TokenLogprob(raw[1:], -0.123456),
            TokenLogprob(b"y", -0.1, guess),
        )
        return replace(reply, text="éy", logprobs=logprobs)


def test_what_a_confidence_is_made_of_is_remembered_and_no_more(tmp_path: Path) -> None:
    request, pool = replace(REQUEST, n_logprobs=3), Doubting()
    first, again = replies_to(tmp_path, pool, request, request)
    assert len(pool.chats) == 1
    assert again.logprobs == first.logprobs
    assert [(logprob.raw, logprob.logprob) for logprob in again.logprobs] == [
        (b"\xc3", 0.0), (b"\xa9", -0.1235), (b"y", -0.1),
    ]  # fmt: skip
    assert [raw for raw, _ in again.logprobs[-1].top] == [b"n"]


def test_a_request_without_log_probabilities_keeps_its_key() -> None:
    """A later version that reads the ledger of an earlier one finds its replies."""
    assert set(chat_key(REQUEST, "d")) == {"messages", "sampling", "digest", "ctx"}
    assert chat_key(replace(REQUEST, n_logprobs=5), "d") != chat_key(REQUEST, "d")


def test_all_that_decides_an_answer_is_asked_again(tmp_path: Path) -> None:
    plain = REQUEST
    others = (
        replace(plain, tools=(Tool("look"),)),
        replace(plain, constraint=Constraint("json")),
        replace(plain, think=False),
        replace(plain, messages=(Message("user", "Is it?", images=(b"a",)),)),
        replace(plain, messages=(Message("user", "Is it?", images=(b"b",)),)),
        replace(plain, prompt="Is it?"),
        replace(plain, prompt="Is it?", suffix="Yes."),
        replace(plain, template="{{ .Prompt }}"),
        replace(plain, truncates=True),
        replace(plain, params={"typical_p": 0.5}),
    )
    pool = FakePool()
    replies_to(tmp_path, pool, plain, *others, plain, *others)
    assert len(pool.chats) == 1 + len(others)


class Made(FakePool):
    """A pool whose model was made from a Modelfile."""

    def __init__(self, **own: Any) -> None:
        super().__init__()
        self.own = own

    async def facts(self, model: ModelSpec) -> ModelFacts:
        return replace(await super().facts(model), **self.own)


def test_a_model_that_was_made_again_from_the_same_file_is_asked_again(tmp_path: Path) -> None:
    pools = [
        FakePool(),
        Made(system="Be brief."),
        Made(system="Be long."),
        Made(params={"temperature": 1.0}),
        Made(messages=(Message("user", "Hm?"),)),
    ]
    for pool in [*pools, *pools]:
        replies_to(tmp_path, pool, REQUEST)
    assert [len(pool.chats) for pool in pools] == [1] * len(pools)


ANSWERS = ContextVar("answers", default=False)
"""Whether a pool answers now: what it asks itself crosses no border."""


class Counting(FakePool):
    """Writes down what it is asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.counts: Counter[str] = Counter()

    async def facts(self, model: ModelSpec) -> ModelFacts:
        self.note("facts")
        return await super().facts(model)

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        self.note("count")
        return await super().count_chat(model, messages, tools)

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        self.note("count")
        return await super().count_texts(model, texts)

    def chat(self, request: ChatRequest) -> FakeStream:
        self.note("chat")
        return super().chat(request)

    async def answer_to(self, request: ChatRequest) -> Reply:
        token = ANSWERS.set(True)
        try:
            return await super().answer_to(request)
        finally:
            ANSWERS.reset(token)

    def note(self, what: str) -> None:
        if not ANSWERS.get():
            self.counts[what] += 1


def test_a_prompt_crosses_to_its_pool_twice_and_a_known_answer_not_at_all(tmp_path: Path) -> None:
    world = World(tmp_path, SUMMARIES)
    few, many = Counting(), Counting()
    world.documents(10)
    world.run(pool=few)
    world.edit("Sum up", "Put shortly")
    world.documents(30)
    world.run(pool=many)
    added = many.counts - few.counts
    assert (few.counts["chat"], added["chat"], added["count"]) == (10 + 1, 20, 0)
    assert 20 <= added["facts"] < 30, "once for each answer's limit, and some for the block"
    world.edit("Put shortly", "Sum up")
    for name in range(10, 30):
        (tmp_path / f"inbox/{name}.txt").unlink()
    again = Counting()
    report = world.run(pool=again)
    assert (report.calls, report.counts["stale"]) == (0, 10 + 1)
    assert again.counts["chat"] == again.counts["count"] == 0


EACH_WAY_TO_ASK = """\
name: ways
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: sum, uses: summarise, with: {file: "{{ doc.path }}", instructions: "Plainly."}}
      - {id: act, uses: agent, with: {prompt: "Plainly: {{ doc.name }}", tools: [now]}}
    returns: {sum: steps.sum.text, act: steps.act.text}
  - {id: all, uses: reduce, with: {over: "{{ steps.each.results }}", prompt: "Plainly", fanin: 2}}
returns: {all: steps.all.text}
"""


def test_known_answers_of_every_step_need_no_model(tmp_path: Path) -> None:
    world, first, again = World(tmp_path, EACH_WAY_TO_ASK), Counting(), Counting()
    world.documents(4)
    assert world.run(pool=first).status == "completed"
    world.edit("Plainly", "Shortly")
    assert world.run().calls == len(first.chats) == 4 + 4 + 3
    world.edit("Shortly", "Plainly")
    report = world.run(pool=again)
    assert (report.status, report.calls, report.counts["stale"]) == ("completed", 0, 5)
    assert again.counts.keys() <= {"facts"}


def _equal_documents(world: World, n: int) -> None:
    for number in range(n):
        world.write(f"inbox/{number}.txt", "The ferry is late.")


class Embedding(FakePool):
    """Each text takes a moment, so that equal ones are in flight together."""

    n_texts = 0

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        self.n_texts += len(request.texts)
        return await super().embed(request)


def test_equal_prompts_in_flight_together_are_asked_once(tmp_path: Path) -> None:
    world = World(tmp_path, SUMMARIES)
    _equal_documents(world, 6)
    report = world.run(pool=FakePool(delay_s=0.05))
    assert report.status == "completed"
    assert (len(world.pool.chats), report.calls, report.cached_calls) == (1 + 1, 1 + 1, 5)
    assert len({world.output(f"{number}.txt") for number in range(6)}) == 1


def test_items_that_wait_for_a_call_that_fails_ask_themselves(tmp_path: Path) -> None:
    world = World(tmp_path, SUMMARIES)
    _equal_documents(world, 6)
    failed: list[str] = []

    def answer(request: ChatRequest) -> str:
        if not failed:
            failed.append(request.messages[-1].content)
            raise PromptTooLong(5000, 0, 4096)
        return "Late."

    report = world.run(pool=FakePool(answer=answer, delay_s=0.05))
    assert Counter(states(report).values()) == {"quarantined": 1, "new": 5}
    assert report.calls + report.cached_calls == 5 + 1


class Beginning(FakePool):
    """A pool with a semaphore that is released each time it begins to answer."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.begun = asyncio.Semaphore(0)

    async def answer_to(self, request: ChatRequest) -> Reply:
        self.begun.release()
        return await super().answer_to(request)


@contextmanager
def ledger_pools(folder: Path, pool: FakePool, n: int) -> Iterator[list[LedgerPool]]:
    """Yield what items ask, each of its own, which know the ledger's replies."""
    with Ledger(folder) as ledger:
        digests, stats = RunModels(pool.facts), RunStats("run", "pipeline", Observer())
        callers = [CallOrigin("scope", "step", str(n), looks_up=True) for n in range(n)]
        yield [LedgerPool(pool, ledger, digests, stats, caller) for caller in callers]


@contextmanager
def equal_calls(folder: Path, pool: FakePool, n: int) -> Iterator[list[Stream]]:
    """Yield the streams of items that ask the same."""
    with ledger_pools(folder, pool, n) as pools:
        yield [known.chat(REQUEST) for known in pools]


@pytest.mark.parametrize("is_kept", [True, False], ids=["iterator kept", "iterator dropped"])
@pytest.mark.parametrize("end", ["left", "cancelled"])
async def test_a_stream_that_is_left_or_cancelled_keeps_no_equal_call_waiting(
    tmp_path: Path, end: str, is_kept: bool
) -> None:
    with equal_calls(tmp_path, FakePool(), 2) as (first, second):
        chunks: AsyncIterator[Chunk] | None = aiter(first)
        assert chunks is not None
        await anext(chunks)
        if end == "cancelled":
            first.cancel()
        if not is_kept:
            chunks = None
        assert "Is it?" in (await second.reply()).text


@pytest.mark.parametrize("n_cancelled", [1, 2, 5])
async def test_of_equal_calls_in_flight_one_is_made_for_each_that_is_cancelled(
    tmp_path: Path, n_cancelled: int
) -> None:
    pool = Beginning(delay_s=0.05)
    with equal_calls(tmp_path, pool, 30) as streams:
        replies = [asyncio.create_task(stream.reply()) for stream in streams]
        for number in range(n_cancelled):
            await pool.begun.acquire()
            replies[number].cancel()
        assert len(await asyncio.gather(*replies[n_cancelled:])) == 30 - n_cancelled
    assert len(pool.chats) == n_cancelled + 1


EQUAL_TEXTS = """\
name: texts
models: {vec: {ref: m, role: embed}}
""" + each_document("""\
      - {uses: embed, with: {texts: ["{{ steps.text.text }}"], store: out/store}}
""")


def test_equal_texts_in_flight_together_are_embedded_once(tmp_path: Path) -> None:
    world = World(tmp_path, EQUAL_TEXTS)
    _equal_documents(world, 6)
    pool = Embedding(delay_s=0.05)
    report = world.run(pool=pool)
    assert (report.status, pool.n_texts) == ("completed", 1)
    assert (report.calls, report.cached_calls) == (1, 5)
