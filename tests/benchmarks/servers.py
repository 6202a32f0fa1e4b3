"""llama-server, asked as OpenAI's clients ask."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.benchmarks import client
from tests.benchmarks.loads import Ask
from tests.benchmarks.processes import Server, free_port, peak_bytes, serve
from tests.benchmarks.setup import WARM_UP, Heard, Running, Said, Setup, Start, greedy

CHAT = "/v1/chat/completions"


class Served:
    """A server with OpenAI's way of chatting."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def body(self, ask: Ask, *, streams: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"messages": ask.messages(), "stream": streams, **greedy(ask)}
        if ask.schema:
            form = {"name": "form", "strict": True, "schema": ask.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body

    async def ask(self, ask: Ask, heard: Heard | None = None) -> Said:
        if heard is not None:
            return await self._stream(ask, heard)
        found = await client.post(self.server.port, CHAT, self.body(ask, streams=False))
        text = found["choices"][0]["message"].get("content") or ""
        return Said(text, found["usage"]["prompt_tokens"], found["usage"]["completion_tokens"])

    async def _stream(self, ask: Ask, heard: Heard) -> Said:
        texts: list[str] = []
        body = self.body(ask, streams=True)
        async for event in client.events(self.server.port, CHAT, body):
            for choice in event.get("choices", []):
                if text := choice.get("delta", {}).get("content"):
                    texts.append(text)
                    heard()
        return Said("".join(texts), 0, len(texts))

    def peak_bytes(self) -> int | None:
        return peak_bytes([self.server.pid])


def llama_server(*flags: str, n_slots: int | None) -> Start:
    """Return a way to start llama-server with so many slots; None: as it decides."""

    @contextlib.asynccontextmanager
    async def start(setup: Setup) -> AsyncIterator[Running]:
        port = free_port()
        command = [*server_command(setup, port, n_slots), *flags]
        async with serve(command, port, health="/health") as server:
            running = Served(server)
            await running.ask(WARM_UP)
            yield running

    return start


def server_command(setup: Setup, port: int, n_slots: int | None) -> list[str]:
    """Return llama-server's command line, but for what differs from way to way."""
    assert setup.server is not None
    options = {
        "-m": setup.model,
        "--host": "127.0.0.1",
        "--port": port,
        "-t": setup.n_threads,
        "-ngl": setup.n_gpu_layers,
    }
    if n_slots is not None:
        options |= {"-np": n_slots, "-c": setup.n_cells or setup.n_ctx_tokens * n_slots}
    return [str(setup.server), *(str(part) for pair in options.items() for part in pair)]
