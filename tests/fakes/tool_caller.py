"""A pool that calls tools as a script says: for whole tool runs of clients, decided by no model.

The first tool is called once with what its schema demands; its result is said in the answer.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from paddock.engine.backends.local import LocalPool
from paddock.engine.request import ChatRequest, Chunk, Reply, ToolCall, Usage

_VALUES: Mapping[str, Any] = {"string": "Rome", "integer": 2, "number": 0.5, "boolean": True}


class ScriptedAnswer:
    prompt_tokens_original = None

    def __init__(self, request: ChatRequest) -> None:
        last = request.messages[-1]
        self._text = f"The tool says: {last.content}"
        self._calls: tuple[ToolCall, ...] = ()
        if last.role != "tool":
            assert request.messages and request.tools, "the whole conversation must come"
            tool = request.tools[0]
            parameters = tool.parameters.get("properties", {}).items()
            arguments = {name: _VALUES.get(kind.get("type"), "Rome") for name, kind in parameters}
            self._text = ""
            self._calls = (ToolCall(tool.name, arguments, "call_1"),)

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
def call_tools(pool: LocalPool) -> Iterator[list[ChatRequest]]:
    """Answer the pool's chats by the script; yields the requests as they come."""
    seen: list[ChatRequest] = []

    def chat(request: ChatRequest, **_: Any) -> Any:
        seen.append(request)
        return ScriptedAnswer(request)

    pool.chat = chat  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        del pool.chat
