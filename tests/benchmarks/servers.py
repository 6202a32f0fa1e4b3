"""Other people's servers: llama-server, and the example server of llama-cpp-python."""

import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.benchmarks import client
from tests.benchmarks.loads import Ask
from tests.benchmarks.processes import Server, free_port, peak_bytes, serve
from tests.benchmarks.setup import GREEDY, WARM_UP, Heard, Running, Said, Setup, Start

CHAT = "/v1/chat/completions"


class Served:
    """A server with OpenAI's way of chatting."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def body(self, ask: Ask, *, streams: bool) -> dict[str, Any]:
        body: dict[str, Any] = {
            "messages": ask.messages(),
            "max_tokens": ask.n_tokens,
            "stream": streams,
            **GREEDY,
        }
        if ask.schema:
            form = {"name": "form", "strict": True, "schema": ask.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body

    async def ask(self, ask: Ask, heard: Heard | None = None) -> Said:
        if heard is not None:
            return await self._stream(ask, heard)
        found = await client.post(self.server.port, CHAT, self.body(ask, streams=False))
        text = found["choices"][0]["message"].get("content") or ""
        usage, timings = found["usage"], found.get("timings", {})
        return Said(
            text,
            usage["prompt_tokens"],
            usage["completion_tokens"],
            timings.get("draft_n", 0),
            timings.get("draft_n_accepted", 0),
        )

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


def example_server(n_sequences: int, **model: Any) -> Start:
    """Return a way to start the server among llama-cpp-python's examples."""

    @contextlib.asynccontextmanager
    async def start(setup: Setup) -> AsyncIterator[Running]:
        async with serve_example(setup, n_sequences, **model) as server:
            running = Served(server)
            await running.ask(WARM_UP)
            yield running

    return start


@contextlib.asynccontextmanager
async def serve_example(setup: Setup, n_sequences: int, **model: Any) -> AsyncIterator[Server]:
    """Run the example server; `model` are further settings of its model."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(_example_config(setup, port, n_sequences, model)))
        command = [sys.executable, str(setup.example), "-C", str(config)]
        async with serve(command, port, health="/healthz") as server:
            yield server


def _example_config(
    setup: Setup, port: int, n_sequences: int, model: dict[str, Any]
) -> dict[str, Any]:
    return {
        "server": {"host": "127.0.0.1", "port": port},
        "model": {
            "path": str(setup.model),
            "n_ctx": setup.n_cells or setup.n_ctx_tokens * n_sequences,
            "n_seq_max": n_sequences,
            "n_batch": 512,
            "n_ubatch": 512,
            "threads": setup.n_threads,
            "threads_batch": setup.n_threads,
            "n_gpu_layers": setup.n_gpu_layers,
            "kv_unified": True,
            "store_logits": False,
            **model,
        },
    }
