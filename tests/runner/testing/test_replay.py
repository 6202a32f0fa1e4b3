"""Tools and commands, recorded and replayed: no server and no command is started in a replay."""

import asyncio
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest, Reply, TokenLogprob
from paddock.engine.system.records import replace
from paddock.runner.core.item_toolset import NoToolset
from paddock.runner.testing.cassette import read_cassette
from paddock.runner.testing.replay import CassetteSession, CassetteTape, NotRecorded
from paddock.runner.testing.sandbox_copy import SandboxCopy
from paddock.steps.base import BoundTool, StepError, ToolResult
from tests.fakes.pool import FakePool
from tests.runner.testing.bench import Bench, Nobody

COMMAND = """\
inputs: {word: hello}
steps:
  - {id: said, uses: run, with: {command: [sh, -c, "echo $0 >> ran; cat ran", "{{ inputs.word }}"]}}
returns: steps.said.stdout
"""
TEST = """\
tests:
  - name: two documents
    replay: tests/cassettes
    expect: [{contains: hello}]
"""


def test_a_command_is_recorded_and_not_run_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, COMMAND, TEST, n_documents=0)
    allowed = {"allow": "run"}
    assert bench.case("record", flags=allowed).passed
    text = bench.cassette.read_text("utf-8").replace("hello\\n", "hello from the tape\\n")
    bench.cassette.write_text(text, "utf-8")
    bench.edit("contains: hello", "contains: hello from the tape")
    assert bench.case("replay", pool=Nobody()).passed, "what is not run needs no consent"

    bench.edit("word: hello", "word: bye")
    (problem,) = bench.case("replay", pool=Nobody()).problems
    assert problem.message == (
        "this call of a tool was not recorded. "
        "If the change is meant, record the test again with `--record`."
    )
    assert '-command: ["sh", "-c", "echo $0 >> ran; cat ran", "hello"]' in problem.detail


class Clock:
    """A toolset of one tool of a server, which gives another result at each call."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)

    async def tool(
        self, name: str, server: str | None = None, options: Mapping[str, Any] | None = None
    ) -> BoundTool:
        async def do(args: Mapping[str, Any]) -> ToolResult:
            if args.get("breaks"):
                raise StepError("the server died.", remedy="Start it.", kind="timeout")
            n = next(self.numbers)
            return ToolResult(f"tick {n}", {"n": n}, is_error=n == 3)

        schema = {"type": "object", "properties": {"zone": {"type": "string"}}}
        return BoundTool("tick", "Tells a number.", schema, False, 5.0, do, server)

    async def names(self, server: str | None = None) -> Sequence[str]:
        return ("tick",)


def taped(tmp_path: Path, inner: Any, *, is_replayed: bool) -> tuple[CassetteSession, Any]:
    cassette = read_cassette(tmp_path / "c.jsonl")
    stage = SandboxCopy(tmp_path / "folder" / "pipeline.yaml", tmp_path / "tmp", tmp_path)
    session = CassetteSession(cassette, stage, str, is_replayed, "c.jsonl")
    return session, CassetteTape(session).toolset(inner)


async def tried(tools: Any) -> list[Any]:
    tool = await tools.tool("tick", "clock")
    found: list[Any] = [await tools.names("clock"), tool.schema, tool.description, tool.timeout_s]
    found += [await tool.call({"zone": "utc"}) for _ in range(3)]
    try:
        await tool.call({"breaks": True})
    except StepError as error:
        found.append((error.reason, error.remedy, error.kind))
    return found


def test_a_servers_tool_gives_in_a_replay_what_it_gave_in_this_order(tmp_path: Path) -> None:
    session, tools = taped(tmp_path, Clock(), is_replayed=False)
    first = asyncio.run(tried(tools))
    assert [piece.text for piece in first[4:7]] == ["tick 1", "tick 2", "tick 3"]
    session.cassette.write("x")

    _, replayed = taped(tmp_path, NoToolset(), is_replayed=True)
    assert asyncio.run(tried(replayed)) == first


def test_what_was_not_recorded_fails(tmp_path: Path) -> None:
    session, tools = taped(tmp_path, Clock(), is_replayed=False)
    asyncio.run(tried(tools))
    session.cassette.write("x")

    async def other(tools: Any) -> None:
        await (await tools.tool("tick", "clock")).call({"zone": "cet"})

    session, replayed = taped(tmp_path, NoToolset(), is_replayed=True)
    with pytest.raises(NotRecorded):
        asyncio.run(other(replayed))
    (unseen,) = session.unseen
    assert unseen.difference.endswith(
        ' server: clock\n-args: {"zone": "utc"}\n+args: {"zone": "cet"}'
    )


SURE = """\
steps:
  - id: label
    uses: chat
    with: {prompt: Which}
    reply: {schema: {label: "enum[one, two]"}, confidence: true}
returns: steps.label.confidence.label
"""


class Unsure(FakePool):
    """Answers with a label, of which it is not sure."""

    async def answer_to(self, request: ChatRequest) -> Reply:
        reply = await super().answer_to(request)
        rest = (TokenLogprob(b'{"label": "', 0.0), TokenLogprob(b'"}', 0.0))
        top = ((b"one", -0.5), (b"two", -0.93))
        logprobs = (rest[0], TokenLogprob(b"one", -0.5, top), rest[1])
        return replace(reply, text='{"label": "one"}', logprobs=logprobs)


def test_probabilities_of_tokens_that_spell_a_path_or_a_secret_are_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "label")
    pipeline = f"secrets: {{key: {{env: KEY}}}}\n{SURE}".replace("Which", "'{{ secrets.key }}'")
    bench = Bench(
        tmp_path,
        pipeline,
        TEST.split("    expect")[0] + '    expect: [{check: "true"}]\n',
        n_documents=0,
    )
    bench.case("record", pool=Unsure(), flags={"allow": "secrets"})
    replies = [line["given"] for line in bench.lines() if line.get("kind") == "chat"]
    assert replies and all("logprobs" not in reply for reply in replies)
    assert "label" not in json.dumps(replies)
