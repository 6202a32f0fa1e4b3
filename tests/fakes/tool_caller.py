"""A pool that calls tools as a script says: for whole tool runs of clients, decided by no model.

The first tool is called once with what its schema demands; its result is said in the answer.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from paddock.engine.backends.local import LocalPool
from paddock.engine.request import ChatRequest, Chunk, Reply, ToolCall, Usage

_VALUES: Mapping[str, Any] = {"string": "Rome", "integer": 2, "number": 0.5, "boolean": True}
EDIT = "weather.txt\n```\nRain in Rome.\n```\n"
"""Without tools: a file as programs write it that read edits from text, such as aider."""
_COMMANDS = ("cmd", "command")
"""What tools of agents that program call a shell command."""


class ScriptedAnswer:
    prompt_tokens_original = None

    def __init__(self, request: ChatRequest, n_calls: int) -> None:
        assert any(message.role == "user" for message in request.messages), "all of it must come"
        last = request.messages[-1]
        self._text = f"The tool says: {last.content}" if last.role == "tool" else EDIT
        self._calls: tuple[ToolCall, ...] = ()
        if last.role != "tool" and request.tools:
            tool = request.tools[0]
            properties = tool.parameters.get("properties", {})
            arguments = {
                name: "echo Rain in Rome." if name in _COMMANDS else _VALUES.get(
                    properties[name].get("type"), "Rome"
                )
                for name in tool.parameters.get("required", properties)
            }  # fmt: skip
            self._text = ""
            ids = (f"call_{n}" for n in range(1, n_calls + 1))
            self._calls = tuple(ToolCall(tool.name, arguments, call_id) for call_id in ids)

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        for word in self._text.split(" "):
            if word:
                yield Chunk(f"{word} ")
        if self._calls:
            yield Chunk("", 1, tool_calls=self._calls)

    async def reply(self) -> Reply:
        text = f"{self._text} " if self._text else ""
        return Reply(text, "stop", Usage(9, 0, 5), "d" * 64, tool_calls=self._calls)

    def cancel(self) -> None: ...


@contextmanager
def call_tools(pool: LocalPool, n_calls: int = 1) -> Iterator[list[ChatRequest]]:
    """Answer the pool's chats by the script; yields the requests as they come."""
    seen: list[ChatRequest] = []

    def chat(request: ChatRequest, **_: Any) -> Any:
        seen.append(request)
        return ScriptedAnswer(request, n_calls)

    with patch.object(pool, "chat", chat):
        yield seen
