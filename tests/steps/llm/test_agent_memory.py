"""Whatever tools give, and however long it goes on: what a model is shown fits, in whole turns."""

import asyncio
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.engine.request import ChatRequest, ToolCall
from paddock.steps.llm.agent import Agent, AgentParams
from tests.fakes.pool import FakePool
from tests.fakes.tools import tools
from tests.fakes.toolset import FakeToolset


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=4), max_size=10),
    n_ctx_tokens=st.integers(200, 600),
    memory=st.sampled_from(["window", "summary"]),
    takes_tools=st.booleans(),
)
def test_no_prompt_is_too_long_and_no_turn_is_torn(
    sizes: list[list[int]], n_ctx_tokens: int, memory: str, takes_tools: bool
) -> None:
    left = list(enumerate(sizes))

    def answer(request: ChatRequest) -> str | list[ToolCall]:
        if not request.tools and request.constraint is None:
            return "notes"
        if not left:
            return "done" if takes_tools else '{"answer": "done"}'
        turn, wanted = left.pop(0)
        calls = [ToolCall("look", {"x": f"{turn} {n} {size}"}) for n, size in enumerate(wanted)]
        if takes_tools:
            return calls
        return f'{{"tool": "look", "arguments": {{"x": "{calls[0].arguments["x"]}"}}}}'

    toolset = FakeToolset({"look": lambda args: "word " * int(args["x"].split()[2])})
    # It refuses what does not fit, as a real one does.
    pool = FakePool(answer=answer, n_ctx_tokens=n_ctx_tokens, takes_tools=takes_tools)
    hands = replace(tools(Path.cwd(), pool=pool), toolset=toolset)
    params = AgentParams.model_validate(
        {"prompt": "Find it.", "tools": ["look"], "memory": memory, "max_turns": 12}
    )
    out = asyncio.run(Agent().run(params, hands))
    assert out.text == "done"
    assert len(out.calls) == sum(len(turn) if takes_tools else 1 for turn in sizes)
    for request in pool.chats:
        answered = {one.tool_call_id for one in request.messages if one.role == "tool"}
        asked = {call.id for one in request.messages for call in one.tool_calls}
        assert answered == asked
