from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from paddock.engine.request import (
    ChatRequest,
    Constraint,
    Message,
    ModelFacts,
    ModelSpec,
    Reply,
    TokenLogprob,
    Tool,
    ToolCall,
)
from paddock.runner.core.call_cache import CallOrigin, LedgerPool, ModelDigests, chat_key
from paddock.runner.core.run_records import RunStats
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.progress.events import Observer
from tests.fakes.pool import FakePool, FakeStream
from tests.runner.world import SUMMARIES, World

CALL = ToolCall("look", {"where": "here"}, "c1")


class Thinking(FakePool):
    async def answer_to(self, request: ChatRequest) -> Reply:
        reply = await super().answer_to(request)
        return replace(reply, reasoning="Hm.", tool_calls=(CALL,))


def asked(folder: Path, pool: FakePool, *requests: ChatRequest) -> list[Reply]:
    """Ask one after the other, each answer remembered."""

    async def main() -> list[Reply]:
        with Ledger(folder) as ledger:
            tally = RunStats("run", "pipeline", Observer())
            caller = CallOrigin("scope", "step", "key", looks_up=True)
            known = LedgerPool(pool, ledger, ModelDigests(pool.facts), tally, caller)
            replies = []
            for request in requests:
                replies.append(await known.chat(request).reply())
                await ledger.durable()
            return replies

    return asyncio.run(main())


def test_an_answer_that_is_remembered_keeps_its_reasoning_and_calls(tmp_path: Path) -> None:
    request = ChatRequest(ModelSpec("m"), (Message("user", "Is it?"),))
    first, again = asked(tmp_path, Thinking(), request, request)
    assert again == first
    assert (again.reasoning, again.tool_calls) == ("Hm.", (CALL,))


class Doubting(FakePool):
    """Sends log probabilities: of reasoning, of a character in two tokens, of a guess."""

    async def answer_to(self, request: ChatRequest) -> Reply:
        reply = await super().answer_to(request)
        raw = "é".encode()
        guess = (("y", -0.1, b"y"), ("n", -2.5, b"n"), ("never", -9.0, b"never"))
        logprobs = (
            TokenLogprob("Hm.", -1.0, b"Hm."),
            TokenLogprob("�", 0.0, raw[:1], (("�", 0.0, raw[:1]),)),
            TokenLogprob("�", -0.123456, raw[1:]),
            TokenLogprob("y", -0.1, b"y", guess),
        )
        return replace(reply, text="éy", logprobs=logprobs)


def test_what_a_confidence_is_made_of_is_remembered_and_no_more(tmp_path: Path) -> None:
    request = ChatRequest(ModelSpec("m"), (Message("user", "Is it?"),), n_logprobs=3)
    pool = Doubting()
    first, again = asked(tmp_path, pool, request, request)
    assert len(pool.chats) == 1
    assert again.logprobs == first.logprobs
    assert [(one.raw, one.logprob) for one in again.logprobs] == [
        (b"\xc3", 0.0), (b"\xa9", -0.1235), (b"y", -0.1),
    ]  # fmt: skip
    assert [raw for _, _, raw in again.logprobs[-1].top] == [b"n"]


def test_a_request_without_log_probabilities_keeps_its_key() -> None:
    """A later version that reads the ledger of an earlier one finds its replies."""
    plain = ChatRequest(ModelSpec("m"), (Message("user", "Is it?"),))
    assert set(chat_key(plain, "d")) == {"messages", "sampling", "digest", "ctx"}
    assert chat_key(replace(plain, n_logprobs=5), "d") != chat_key(plain, "d")


def test_all_that_decides_an_answer_is_asked_again(tmp_path: Path) -> None:
    plain = ChatRequest(ModelSpec("m"), (Message("user", "Is it?"),))
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
    asked(tmp_path, pool, plain, *others, plain, *others)
    assert len(pool.chats) == 1 + len(others)


class Made(FakePool):
    """A pool whose model was made from a Modelfile."""

    def __init__(self, **own: Any) -> None:
        super().__init__()
        self.own = own

    async def facts(self, model: ModelSpec) -> ModelFacts:
        return replace(await super().facts(model), **self.own)


def test_a_model_that_was_made_again_from_the_same_file_is_asked_again(tmp_path: Path) -> None:
    request = ChatRequest(ModelSpec("m"), (Message("user", "Is it?"),))
    pools = [
        FakePool(),
        Made(system="Be brief."),
        Made(system="Be long."),
        Made(params={"temperature": 1.0}),
        Made(messages=(Message("user", "Hm?"),)),
    ]
    for pool in [*pools, *pools]:
        asked(tmp_path, pool, request)
    assert [len(pool.chats) for pool in pools] == [1] * len(pools)


class Counting(FakePool):
    """Writes down what it is asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: Counter[str] = Counter()

    async def facts(self, model: ModelSpec) -> ModelFacts:
        self.asked["facts"] += 1
        return await super().facts(model)

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        self.asked["count"] += 1
        return await super().count_chat(model, messages, tools)

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        self.asked["count"] += 1
        return await super().count_texts(model, texts)

    def chat(self, request: ChatRequest) -> FakeStream:
        self.asked["chat"] += 1
        return super().chat(request)

    async def answer_to(self, request: ChatRequest) -> Reply:
        before = self.asked.copy()
        try:
            return await super().answer_to(request)
        finally:
            self.asked = before  # what it asks itself crosses no border


def test_a_prompt_crosses_to_its_pool_twice_and_a_known_answer_not_at_all(tmp_path: Path) -> None:
    world = World(tmp_path, SUMMARIES)
    few, many = Counting(), Counting()
    world.documents(10)
    world.run(pool=few)
    world.edit("Sum up", "Put shortly")
    world.documents(30)
    world.run(pool=many)
    more = many.asked - few.asked
    assert (few.asked["chat"], more["chat"], more["count"]) == (10 + 1, 20, 0)
    assert 20 <= more["facts"] < 30, "once for each answer's limit, and some for the block"
    world.edit("Put shortly", "Sum up")
    for name in range(10, 30):
        (tmp_path / f"inbox/{name}.txt").unlink()
    again = Counting()
    report = world.run(pool=again)
    assert (report.calls, report.counts["stale"]) == (0, 10 + 1)
    assert again.asked["chat"] == again.asked["count"] == 0


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
    assert again.asked.keys() <= {"facts"}


def test_an_overlong_prompt_is_cut_after_the_pool_refused_it(tmp_path: Path) -> None:
    chat = "uses: chat, with: {on_overflow: truncate, "
    world = World(tmp_path, SUMMARIES.replace("sum, uses: chat, with: {", f"sum, {chat}"))
    world.write("inbox/0.txt", " ".join(f"word{n}" for n in range(900)))
    pool = Counting(n_ctx_tokens=400)
    assert world.run(pool=pool).status == "completed"
    cut, _ = pool.chats
    assert "word0 " in cut.messages[-1].content
    assert "[…]" in cut.messages[-1].content
    assert "word899" in cut.messages[-1].content
