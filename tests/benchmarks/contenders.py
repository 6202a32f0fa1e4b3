"""Who is compared: our pool, llama-server in several ways, the example server; each asked alike.

A contender is started afresh for each of its turns, on a free port of this machine or in worker
processes, and is gone after it: nobody computes or holds memory beside the one that is measured.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from paddock.engine.models import ModelFinder
from paddock.engine.pool import LocalPool
from paddock.engine.request import ChatRequest, Constraint, Message, ModelSpec
from paddock.engine.residency.events import PoolEvents
from paddock.engine.settings import PoolSettings
from tests.benchmarks import client, peers
from tests.benchmarks.loads import Ask
from tests.benchmarks.processes import OwnGrowth, Server, free_port, peak_bytes, serve

N_CTX_TOKENS = 4096

# Arg-max for everybody, to the end that is asked for: ours would else end answers in circles.
GREEDY = {"temperature": 0, "repeat_penalty": 1.0}
OUR_GREEDY = {**GREEDY, "guards_repetition": False}


@dataclass(frozen=True, slots=True)
class Said:
    """One answer, and what the contender says that it cost."""

    text: str
    n_prompt_tokens: int
    n_answer_tokens: int
    n_drafted_tokens: int = 0
    n_accepted_tokens: int = 0
    is_shortened: bool = False


Heard = Callable[[], None]


class Running(Protocol):
    """A contender in its turn."""

    async def ask(self, ask: Ask, heard: Heard | None = None) -> Said:
        """Get one answer; with `heard`, as a stream that calls it for each piece of text."""
        ...

    def peak_bytes(self) -> int | None:
        """Tell how much memory it took at most; None where nobody tells."""
        ...


@dataclass(frozen=True, slots=True)
class Setup:
    """What all contenders have in common."""

    model: Path
    n_threads: int
    n_gpu_layers: int = 0
    n_ctx_tokens: int = N_CTX_TOKENS
    """What one request may fill."""
    n_cells: int | None = None
    """Of the whole cache; None: as many as each contender's sequences need."""
    n_parallel: int | None = None
    """Our sequences at once; None: as the pool decides."""
    example: Path | None = None
    server: Path | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of our pool, by `--set`."""

    def settings(self, **more: Any) -> PoolSettings:
        """Give our pool's settings."""
        wanted: dict[str, Any] = {
            "n_threads": self.n_threads,
            "n_gpu_layers": self.n_gpu_layers,
            "num_parallel": self.n_parallel,
            # Not the user's own: there the model's name may stand for a tuned copy by now.
            "cache_dir": cache(),
            **({"n_cells": self.n_cells} if self.n_cells else {}),
            **more,
            **self.more,
        }
        return PoolSettings(**wanted)


Start = Callable[[Setup], AbstractAsyncContextManager[Running]]


@dataclass(frozen=True, slots=True)
class Contender:
    """Somebody who can be started; `key` is what `--only` says, `name` what the table says."""

    key: str
    name: str
    start: Start
    is_ours: bool = False


# Ours


class Ours:
    """The pool in this process with its workers."""

    def __init__(self, pool: LocalPool, spec: ModelSpec, growth: OwnGrowth) -> None:
        self.pool = pool
        self.spec = spec
        self._growth = growth

    def request(self, ask: Ask) -> ChatRequest:
        """Give the pool's own form of a request."""
        constraint = Constraint("json_schema", json.dumps(ask.schema)) if ask.schema else None
        return ChatRequest(
            self.spec,
            tuple(Message(turn["role"], turn["content"]) for turn in ask.messages()),
            {**OUR_GREEDY, "max_tokens": ask.n_tokens},
            priority=ask.priority,
            constraint=constraint,
        )

    async def ask(self, ask: Ask, heard: Heard | None = None) -> Said:
        """Get one answer."""
        stream = self.pool.chat(self.request(ask))
        if heard is not None:
            async for chunk in stream:
                if chunk.text:
                    heard()
        reply = await stream.reply()
        usage = reply.usage
        return Said(
            reply.text,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.drafted_tokens,
            usage.accepted_tokens,
            reply.is_shortened,
        )

    def peak_bytes(self) -> int | None:
        """Tell the worker's memory and what this process, which has the pool, grew by."""
        workers, growth = peak_bytes(self.pool.worker_pids()), self._growth.peak()
        return None if workers is None or growth is None else workers + growth


@contextlib.asynccontextmanager
async def ours(
    setup: Setup, events: PoolEvents | None = None, **settings: Any
) -> AsyncIterator[Ours]:
    """Run our pool with one model, loaded and warm; `events` hears of it."""
    growth = OwnGrowth()
    wanted = setup.settings(**settings)
    finder = ModelFinder(wanted.models_dir, wanted.cache_dir)
    spec = ModelSpec(str(setup.model), n_ctx_tokens=setup.n_ctx_tokens, keep_alive_s=-1)
    heard: dict[str, Any] = {"events": events} if events else {}
    async with LocalPool(wanted, models=finder, **heard) as pool:
        running = Ours(pool, spec, growth)
        await running.ask(WARM_UP)
        yield running


@contextlib.asynccontextmanager
async def _tuned(setup: Setup) -> AsyncIterator[Running]:
    copy = tuned_copy(setup.model)
    async with ours(replace(setup, model=copy)) as running:
        yield running


WARM_UP = Ask("", "Say yes.", 4)


def tuned_copy(model: Path) -> Path:
    """Make the Q8_0 copy that `paddock tune` would make, once, in the benchmarks' cache.

    In a process of its own, so that this one's memory stays what it is.
    """
    target = cache() / f"{model.stem}-{model.stat().st_size}.tuned.gguf"
    if not target.is_file():
        print(f"making {target}", file=sys.stderr, flush=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_suffix(".part")
        command = [sys.executable, "-c", _WIDEN, str(model), str(aside)]
        subprocess.run(command, check=True, capture_output=True)
        aside.replace(target)
    return target


_WIDEN = """
import sys
from pathlib import Path
from paddock.engine.gguf import read_header
from paddock.engine.tuning.rewriting import rest, widen
source, target = map(Path, sys.argv[1:])
if rest(read_header(source)):
    from paddock.engine.native.quantise import quantise
    quantise(source, target, "Q8_0", 1)
else:
    widen(source, target, 1)
"""


def cache() -> Path:
    """Tell where the benchmarks keep what they need again: the tuned copy, profiles."""
    return peers.cache().parent.parent / "benchmarks"


# Servers


class Served:
    """A server with OpenAI's way of chatting."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def body(self, ask: Ask, *, streams: bool) -> dict[str, Any]:
        """Give the JSON of a request."""
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
        """Get one answer."""
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
        """Tell the server's memory."""
        return peak_bytes([self.server.pid])


CHAT = "/v1/chat/completions"


def llama_server(*flags: str, n_slots: int) -> Start:
    """Give a way to start llama-server with so many slots."""

    @contextlib.asynccontextmanager
    async def start(setup: Setup) -> AsyncIterator[Running]:
        port = free_port()
        command = [*server_command(setup, port, n_slots), *flags]
        async with serve(command, port, health="/health") as server:
            running = Served(server)
            await running.ask(WARM_UP)
            yield running

    return start


def server_command(setup: Setup, port: int, n_slots: int) -> list[str]:
    """Give llama-server's command line, but for what differs from way to way."""
    assert setup.server is not None
    n_cells = setup.n_cells or setup.n_ctx_tokens * n_slots
    options = {
        "-m": setup.model,
        "--host": "127.0.0.1",
        "--port": port,
        "-np": n_slots,
        "-c": n_cells,
        "-t": setup.n_threads,
        "-ngl": setup.n_gpu_layers,
    }
    return [str(setup.server), *(str(part) for pair in options.items() for part in pair)]


def example_server(n_sequences: int, **model: Any) -> Start:
    """Give a way to start the server among llama-cpp-python's examples."""

    @contextlib.asynccontextmanager
    async def start(setup: Setup) -> AsyncIterator[Running]:
        port = free_port()
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "config.json"
            config.write_text(json.dumps(_example_config(setup, port, n_sequences, model)))
            command = [sys.executable, str(setup.example), "-C", str(config)]
            async with serve(command, port, health="/healthz") as server:
                running = Served(server)
                await running.ask(WARM_UP)
                yield running

    return start


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


def _server(*flags: str, n_slots: int) -> Contender:
    kind = "-kvu" if "-kvu" in flags else ""
    drafts = " ngram" if "--spec-type" in flags else ""
    key = f"server-{n_slots}{kind}{drafts.replace(' ', '-')}"
    name = " ".join(["llama-server", f"-np {n_slots}", *flags])
    return Contender(key, name, llama_server(*flags, n_slots=n_slots))


PADDOCK = Contender("paddock", "paddock", ours, is_ours=True)
TUNED = Contender("paddock-tuned", "paddock, tuned copy (Q8_0)", _tuned, is_ours=True)
SERVERS = (
    _server(n_slots=1),
    _server(n_slots=4),
    _server("-kvu", n_slots=4),
    _server(n_slots=8),
    _server("-kvu", n_slots=8),
)
DRAFTING = (
    _server("--spec-type", "ngram-simple", n_slots=1),
    _server("-kvu", "--spec-type", "ngram-simple", n_slots=8),
    Contender(
        "example-lookup",
        "example server, 8 sequences, prompt lookup",
        example_server(8, draft_model="prompt-lookup-decoding"),
    ),
)
EXAMPLE = Contender("example", "example server, 8 sequences", example_server(8))
EVERYBODY = (PADDOCK, TUNED, *SERVERS, EXAMPLE)


def present(wanted: Sequence[Contender], setup: Setup) -> list[Contender]:
    """Leave out those whose programs are not here, and say so."""
    found = []
    for one in wanted:
        missing = None if one.is_ours else _missing(one, setup)
        if missing:
            print(f"{one.name} is left out: {missing}", file=sys.stderr, flush=True)
        else:
            found.append(one)
    return found


def _missing(one: Contender, setup: Setup) -> str | None:
    if one.key.startswith("server"):
        return None if setup.server else "there is no llama-server (tests/benchmarks/peers.py)"
    if setup.example is None:
        return "there is no example server (tests/benchmarks/peers.py)"
    lacking = [name for name in ("fastapi", "openai", "uvicorn") if not _is_installed(name)]
    return f"it needs {', '.join(lacking)}" if lacking else None


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def chosen(only: str | None, among: Sequence[Contender]) -> list[Contender]:
    """Give those that `--only` names, all of them without it.

    Raises:
        SystemExit: a name that nobody has; the message has the known ones.
    """
    if only is None:
        return list(among)
    names = [name.strip() for name in only.split(",")]
    known = {one.key: one for one in among}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"nobody is called {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names]
