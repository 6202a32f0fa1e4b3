"""One pool over several servers: what happens when they come and go."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from paddock.engine.backends import balancer
from paddock.engine.backends.balancer import BalancedPool, ServerMember
from paddock.engine.backends.neutral_request import NEUTRAL_TEXT
from paddock.engine.backends.openai_client import ServerAway, ServerBusy
from paddock.engine.errors import (
    BadRequest,
    Busy,
    ModelBroken,
    NoServer,
    NotServed,
    ServerLost,
    ServersFull,
)
from paddock.engine.request import (
    ChatRequest,
    EmbedRequest,
    Message,
    ModelSpec,
    Reply,
    Tool,
    ToolCall,
)
from tests.fakes.far_servers import FarServer
from tests.waiting import eventually

M = ModelSpec("m")


def ask(text: str = "hello") -> ChatRequest:
    return ChatRequest(M, (Message("user", text),))


@asynccontextmanager
async def opened(
    servers: Sequence[FarServer], *, reach_s: float = 5.0
) -> AsyncIterator[tuple[BalancedPool, list[str]]]:
    notes: list[str] = []
    members = [ServerMember(server.url, server.found) for server in servers]
    async with BalancedPool(members, notes.append, reach_s=reach_s, ping_s=0.05) as pool:
        yield pool, notes
    assert all(server.is_closed for server in servers)


def fails(error: Exception, *texts: str) -> Callable[[ChatRequest], None]:
    """Return what raises an error at requests with these texts; at every one, if none is named."""

    def fail(request: ChatRequest) -> None:
        if not texts or request.messages[-1].content in texts:
            raise error

    return fail


def refuses(*texts: str) -> Callable[[ChatRequest], None]:
    return fails(BadRequest("no"), *texts)


async def replies_of(pool: BalancedPool, n: int) -> list[Reply]:
    return await asyncio.gather(*(pool.chat(ask(f"{i}")).reply() for i in range(n)))


async def test_requests_are_divided_by_places_and_no_server_gets_more_than_it_has() -> None:
    large, small = FarServer("large", n_slots=4), FarServer("small", n_slots=1)
    async with opened([large, small]) as (pool, notes):
        await replies_of(pool, 50)
    assert (large.n_running_most, small.n_running_most) == (4, 1)
    assert len(large.asked) > len(small.asked) > 0
    assert notes == []


async def test_what_runs_at_a_server_that_dies_goes_to_the_others_and_each_once() -> None:
    dying, other = FarServer("dying"), FarServer("other")
    async with opened([dying, other]) as (pool, notes):
        work = asyncio.create_task(replies_of(pool, 30))
        await eventually(lambda: len(dying.asked) > 3)
        dying.die()
        replies = await work
    assert len(replies) == 30
    assert {f"{i}" for i in range(30)} == {*dying.asked, *other.asked}
    assert len(other.asked) == len(set(other.asked))
    assert notes == ["the connection to http://dying:1 broke: the others go on."]


async def test_a_server_that_hangs_is_left_as_one_that_died() -> None:
    hanging, other = FarServer("hanging"), FarServer("other")
    async with opened([hanging, other]) as (pool, notes):
        await pool.facts(M)
        hanging.hangs = True
        await replies_of(pool, 6)
    assert notes == ["http://hanging:1 does not answer any more: its requests go to others."]


async def test_a_server_that_is_back_is_asked_again() -> None:
    server = FarServer("only")
    async with opened([server]) as (pool, notes):
        await replies_of(pool, 1)
        server.die()
        work = asyncio.create_task(replies_of(pool, 2))
        await eventually(lambda: notes)
        server.come_back()
        assert len(await work) == 2
    assert notes == [
        "http://only:1 cannot be reached: it is tried again.",
        "http://only:1 is there.",
    ]


async def test_where_no_server_is_there_at_the_start_one_is_told_at_once() -> None:
    first, other = FarServer("one"), FarServer("other")
    first.die()
    other.die()
    async with opened([first, other]) as (pool, _):
        with pytest.raises(NoServer) as caught:
            await pool.facts(M)
    assert str(caught.value) == (
        "no server can be reached for model 'm': http://one:1 cannot be reached; "
        "http://other:1 cannot be reached. "
        "Start one, or correct the address; the same command goes on."
    )


async def test_who_is_patient_waits_for_the_first_that_comes() -> None:
    first, other = FarServer("one"), FarServer("other")
    first.die()
    other.die()
    notes: list[str] = []
    async with BalancedPool(
        [ServerMember(server.url, server.found) for server in (first, other)],
        notes.append,
        is_patient=True,
    ) as pool:
        looked = asyncio.create_task(pool.facts(M))
        await eventually(lambda: notes)
        other.come_back()
        await looked
        assert (await pool.chat(ask()).reply()).text == "from http://other:1"
    assert notes[0] == "http://one:1 cannot be reached; http://other:1 cannot be reached: waiting."


async def test_a_server_that_answers_by_errors_of_its_own_is_named_once_with_path_and_status() -> (
    None
):
    server = FarServer("only")
    reason = "http://only:1/v1/chat/completions failed (500: CUDA error)"
    server.on_chat = fails(ServerAway(reason, was_sent=True, is_failing=True))
    async with opened([server]) as (pool, notes):
        with pytest.raises(NoServer) as caught:
            await pool.chat(ask()).reply()
    assert set(notes) == {f"{reason}: it is tried again."}
    assert caught.value.is_failing
    assert str(caught.value) == (
        f"no server works for model 'm': {reason}, also with a request without a document. "
        "Its log says why; the same command goes on."
    )


async def test_one_that_only_just_loads_its_model_is_waited_for() -> None:
    server = FarServer("only")
    server.loads = 2
    async with opened([server]) as (pool, notes):
        assert (await pool.chat(ask()).reply()).text == "from http://only:1"
    assert set(notes) == {"http://only:1 is busy: Loading model: waiting for it."}


async def test_a_request_that_brings_down_every_server_is_given_up() -> None:
    first, other = FarServer("one"), FarServer("other")
    first.on_chat = other.on_chat = fails(ServerAway("it broke", was_sent=True), "hello")
    async with opened([first, other]) as (pool, _):
        with pytest.raises(ServerLost, match="no server answered for model 'm': it broke"):
            await pool.chat(ask()).reply()
    assert sorted(first.asked + other.asked) == [NEUTRAL_TEXT, *["hello"] * 3]


@pytest.mark.parametrize(
    ("raised", "texts", "error", "said"),
    [
        (ServerAway("it failed (500: broken)", was_sent=True), (), NoServer,
            "it failed \\(500: broken\\), also with a request"),
        (ModelBroken("http://only:1", "403: flagged"), ("hello",), BadRequest, "403: flagged"),
        (ModelBroken("http://only:1", "the server refuses the key"), (), ModelBroken,
            "refuses the key"),
    ],
    ids=[
        "a server that fails at every request stops the run",
        "a moderated text is that document's fault, though it is refused as a key is",
        "a key that is refused stops at once",
    ],
)  # fmt: skip
async def test_whose_fault_a_failed_request_is(
    raised: Exception, texts: tuple[str, ...], error: type[Exception], said: str
) -> None:
    server = FarServer("only")
    server.on_chat = fails(raised, *texts)
    async with opened([server]) as (pool, _):
        with pytest.raises(error, match=said):
            await pool.chat(ask()).reply()


async def test_an_answer_of_which_a_part_was_read_is_not_begun_again() -> None:
    server = FarServer("only")
    async with opened([server]) as (pool, _):
        await pool.facts(M)
        server.hangs = True
        stream = pool.chat(ask())
        chunks = aiter(stream)
        assert (await anext(chunks)).text == "from "
        server.die()
        with pytest.raises(ServerLost):
            await anext(chunks)


async def test_a_full_server_is_left_alone_for_as_long_as_it_says() -> None:
    full, other = FarServer("full", n_slots=None), FarServer("other", n_slots=None)
    full.on_chat = fails(ServerBusy("it is full", 60.0))
    async with opened([full, other]) as (pool, notes):
        await replies_of(pool, 10)
        n_first = len(full.asked)
        await replies_of(pool, 10)
    assert len(full.asked) == n_first
    assert notes == []


async def test_a_server_that_is_busy_for_everyone_stops_the_run_and_else_the_request_is_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(balancer, "BUSY_S", 0.3)
    server = FarServer("only", n_slots=None)
    server.on_chat = fails(ServerBusy("503: loading", 0.05), "hello", NEUTRAL_TEXT)
    async with opened([server]) as (pool, _):
        with pytest.raises(ServersFull, match=r"took no request for 0\.3 s: 503: loading"):
            await pool.chat(ask()).reply()
        monkeypatch.setattr(balancer, "BUSY_S", 3.0)
        late = asyncio.create_task(pool.chat(ask()).reply())
        await asyncio.sleep(0.05)
        await pool.chat(ask("small")).reply()
        with pytest.raises(Busy, match="503: loading"):
            await late


async def test_a_server_that_refuses_every_document_stops_all_of_them() -> None:
    server = FarServer("only", n_slots=16)
    server.on_chat = refuses()
    async with opened([server]) as (pool, _):
        answers = [pool.chat(ask(f"{i}")).reply() for i in range(16)]
        errors = await asyncio.gather(*answers, return_exceptions=True)
    assert {type(error) for error in errors} == {ModelBroken}
    assert {str(error) for error in errors} == {
        "http://only:1: it refuses requests whatever the document: no. Correct the step, or the "
        "model's `ref`, `params` or `pool`; the same command goes on."
    }
    assert server.asked.count(NEUTRAL_TEXT) == 1


async def test_a_server_that_refuses_every_document_is_left_to_the_others() -> None:
    broken, other = FarServer("broken"), FarServer("other")
    broken.on_chat = refuses()
    async with opened([broken, other]) as (pool, notes):
        replies = await replies_of(pool, 20)
    assert {reply.text for reply in replies} == {"from http://other:1"}
    assert len(notes) == 1
    assert notes[0].startswith("http://broken:1: it refuses requests whatever the document: no.")
    assert notes[0].endswith("It is left out: the others go on.")


async def test_texts_that_a_server_refuses_to_embed_are_compared_with_a_neutral_one() -> None:
    server = FarServer("only")
    refused = {"a", "b"}

    def refuse(request: EmbedRequest) -> None:
        if refused & {*request.texts}:
            raise BadRequest("no")

    server.on_embed = refuse
    request = EmbedRequest(ModelSpec("m", role="embed"), ("a", "b"))
    async with opened([server]) as (pool, _):
        with pytest.raises(BadRequest, match="no"):
            await pool.embed(request)
        refused.add(NEUTRAL_TEXT)
        with pytest.raises(ModelBroken, match="whatever the document: no"):
            await pool.embed(request)


async def test_the_neutral_request_has_the_form_of_the_one_that_was_refused() -> None:
    server, seen = FarServer("only"), list[ChatRequest]()

    def refuse(request: ChatRequest) -> None:
        seen.append(request)
        raise BadRequest("no")

    server.on_chat = refuse
    turns = (
        Message("system", "be brief"),
        Message("user", "what is this?", images=(b"a", b"b")),
        Message("assistant", "", tool_calls=(ToolCall("look", {"at": "secret"}, "1"),)),
        Message("tool", "secret", tool_name="look", tool_call_id="1"),
    )
    request = ChatRequest(M, turns, params={"max_tokens": 9}, tools=(Tool("look"),))
    async with opened([server]) as (pool, _):
        with pytest.raises(ModelBroken):
            await pool.chat(request).reply()
    neutral = seen[1]
    assert "secret" not in repr(neutral)
    assert [message.role for message in neutral.messages] == ["system", "user", "assistant", "tool"]
    assert [len(message.images) for message in neutral.messages] == [0, 2, 0, 0]
    assert (neutral.params, neutral.tools) == (request.params, request.tools)


async def test_servers_with_other_models_are_asked_for_theirs_alone() -> None:
    first, two = FarServer("one", models=["m"]), FarServer("two", models=["n"])
    async with opened([first, two]) as (pool, _):
        await replies_of(pool, 5)
        await pool.chat(ChatRequest(ModelSpec("n"), (Message("user", "x"),))).reply()
        with pytest.raises(NotServed) as caught:
            await pool.facts(ModelSpec("o"))
    assert (len(first.asked), len(two.asked)) == (5, 1)
    assert str(caught.value) == (
        "the server at http://one:1, http://two:1 has no model 'o'. It has: 'm', 'n'. "
        "Write one of them as the model's `ref`."
    )


@pytest.mark.parametrize("answers_after_s", [0.0, 0.1], ids=["first", "slower"])
async def test_of_two_models_under_one_name_the_first_servers_counts_however_slow_it_is(
    answers_after_s: float,
) -> None:
    first, other = FarServer("one"), FarServer("other", version="2")
    first.answers_after_s = answers_after_s
    async with opened([first, other]) as (pool, notes):
        assert len(await replies_of(pool, 10)) == 10
    assert other.asked == []
    assert notes == [
        "http://other:1: it has another model under the name 'm' than http://one:1; it is left out"
    ]


async def test_a_server_that_comes_back_with_another_model_is_left_out() -> None:
    server = FarServer("only")
    async with opened([server], reach_s=2) as (pool, notes):
        await replies_of(pool, 1)
        server.die()
        work = asyncio.create_task(replies_of(pool, 1))
        await eventually(lambda: notes)
        server.version = "2"
        server.come_back()
        with pytest.raises(NoServer, match="http://only:1 has it no more"):
            await work
    assert "another model has come under the name 'm'; it is left out" in notes[1]
    assert len(server.asked) == 1


async def test_a_cancelled_answer_leaves_its_place() -> None:
    server = FarServer("only", n_slots=1)
    async with opened([server]) as (pool, _):
        await pool.facts(M)
        server.hangs = True
        stream = pool.chat(ask("first"))
        await eventually(lambda: server.asked)
        stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stream.reply()
        server.hangs = False
        assert (await pool.chat(ask("second")).reply()).text == "from http://only:1"


async def test_texts_to_embed_go_in_portions_over_all_servers() -> None:
    first, other = FarServer("one"), FarServer("other")
    spec = ModelSpec("m", "embed")
    async with opened([first, other]) as (pool, _):
        reply = await pool.embed(EmbedRequest(spec, tuple(f"text {i}" for i in range(200))))
    assert len(reply.vectors) == 200


async def test_counting_waits_behind_no_answer() -> None:
    server = FarServer("only", n_slots=1)
    async with opened([server]) as (pool, _):
        await pool.facts(M)
        server.hangs = True
        stream = pool.chat(ask())
        await eventually(lambda: server.asked)
        assert await pool.count_texts(M, ["two words"]) == [2]
        stream.cancel()


async def test_one_that_says_nothing_at_the_start_is_not_waited_for_where_others_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(balancer, "GRACE_S", 0.2)
    silent, other = FarServer("silent"), FarServer("other")
    silent.answers_after_s = 3600.0
    async with opened([silent, other]) as (pool, notes):
        await replies_of(pool, 3)
        assert notes == ["http://silent:1 has not answered within 0.2 s: the others go on."]
        silent.answers_after_s = 0.0
        await eventually(lambda: len(notes) == 2)
        await replies_of(pool, 10)
    assert silent.asked
    assert notes[1] == "http://silent:1 is there."
