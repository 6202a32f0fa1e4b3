"""Who is compared: our pool, and llama-server in several ways; each asked alike.

A contender is started afresh for each of its turns, on a free port of this machine or in worker
processes, and is gone after it: no one computes or holds memory next to the one that is measured.
"""

import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from paddock.engine.backends.local import LocalPool
from paddock.engine.memory.device_memory import this_device
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.request import ChatRequest, Constraint, Message, ModelSpec
from paddock.engine.settings import PoolSettings
from paddock.engine.tuning.tuner import TuningStop, tune
from tests.benchmarks import genai
from tests.benchmarks.loads import Ask
from tests.benchmarks.processes import OwnGrowth, peak_bytes
from tests.benchmarks.servers import llama_server
from tests.benchmarks.setup import WARM_UP, Contender, Heard, Running, Said, Setup, cache, greedy

_T = TypeVar("_T")


class Ours:
    """The pool in this process with its workers."""

    def __init__(self, pool: LocalPool, spec: ModelSpec, growth: OwnGrowth) -> None:
        self.pool = pool
        self.spec = spec
        self._growth = growth

    def request(self, ask: Ask) -> ChatRequest:
        constraint = Constraint("json_schema", json.dumps(ask.schema)) if ask.schema else None
        return ChatRequest(
            self.spec,
            tuple(Message(turn["role"], turn["content"]) for turn in ask.messages()),
            {**greedy(ask), "guards_repetition": False},
            priority=ask.priority,
            constraint=constraint,
        )

    async def ask(self, ask: Ask, heard: Heard | None = None) -> Said:
        stream = self.pool.chat(self.request(ask))
        if heard is not None:
            async for chunk in stream:
                if chunk.text:
                    heard()
        reply = await stream.reply()
        usage = reply.usage
        return Said(reply.text, usage.prompt_tokens, usage.completion_tokens, reply.is_shortened)

    def peak_bytes(self) -> int | None:
        """Return the worker's memory and what this process, which has the pool, grew by."""
        workers, growth = peak_bytes(self.pool.worker_pids()), self._growth.peak()
        return None if workers is None or growth is None else workers + growth


@contextlib.asynccontextmanager
async def ours(setup: Setup) -> AsyncIterator[Ours]:
    """Run our pool with one model, loaded and warm."""
    growth = OwnGrowth()
    wanted = setup.settings()
    finder = ModelFinder(wanted.models_dir, wanted.cache_dir)
    spec = ModelSpec(str(setup.model), n_ctx_tokens=setup.n_ctx_tokens, keep_alive_s=-1)
    async with LocalPool(wanted, models=finder) as pool:
        running = Ours(pool, spec, growth)
        await running.ask(WARM_UP)
        for digest in pool.unmeasured():  # as a service does in its first idle minute
            await pool.measure(digest)
        yield running


@contextlib.asynccontextmanager
async def _tuned(setup: Setup) -> AsyncIterator[Running]:
    async with ours(with_tuned_copy(setup)) as running:
        yield running


def with_tuned_copy(setup: Setup) -> Setup:
    """Return a setup that computes by the copy that an idle service makes here, made once.

    In a home of its own, so that the model's name goes on standing for its own file.
    """
    model = setup.model
    home = cache() / "tuned"
    settings = PoolSettings(models_dir=home / "models", cache_dir=home / "cache")
    finder = ModelFinder(settings.models_dir, settings.cache_dir)
    if finder.find(str(model)).tuned_from is None:
        print(f"making a tuned copy in {home}", file=sys.stderr, flush=True)
        facts = finder.find_original(str(model))
        tune(facts, settings, this_device().n_threads, TuningStop())
    made = finder.tuned.record(finder.find_original(str(model)).digest)
    said = made.summary if made else "none"
    print(f"tuned copy of {model.name}: {said}", file=sys.stderr, flush=True)
    folders = {"models_dir": settings.models_dir, "cache_dir": settings.cache_dir}
    return replace(setup, more={**setup.more, **folders})


# Everybody


def _server(*flags: str, n_slots: int | None) -> Contender:
    """Return llama-server with so many slots; None: as many, and as much cache, as it decides."""
    slots = "defaults" if n_slots is None else f"-np {n_slots}"
    parts = [part.lstrip("-") for part in (*slots.split(), *flags) if part != "-np"]
    name = " ".join(["llama-server", slots, *flags])
    key = "-".join(["server", *parts])
    return Contender(key, name, llama_server(*flags, n_slots=n_slots), needs_server=True)


PADDOCK = Contender("paddock", "paddock", ours)
TUNED = Contender("paddock-tuned", "paddock, tuned copy", _tuned)
DEFAULTS = _server(n_slots=None)
_LAYOUTS = ((), ("-fa", "off"), ("-kvu",), ("-kvu", "-fa", "off"))
"""Flash attention is on unless it is switched off, and so is a split cache with given slots."""
SERVERS = (
    _server(n_slots=1),
    _server("-fa", "off", n_slots=1),
    *(_server(*flags, n_slots=n_slots) for n_slots in (4, 8) for flags in _LAYOUTS),
)
GENAI = (
    Contender("genai", "openvino-genai", genai.genai),
    Contender("genai-f32", "openvino-genai, 32 bits", genai.genai_f32),
)
EVERYBODY = (PADDOCK, TUNED, *(GENAI if genai.IS_HERE else ()), DEFAULTS, *SERVERS)


def present(wanted: Sequence[Contender], setup: Setup) -> list[Contender]:
    """Leave out those whose programs are not here, and say so."""
    found = [one for one in wanted if setup.server or not one.needs_server]
    for one in wanted:
        if one not in found:
            why = "there is no llama-server (tests/benchmarks/peers.py)"
            print(f"{one.name} is left out: {why}", file=sys.stderr, flush=True)
    return found


def chosen(only: str | None, among: Sequence[Contender]) -> list[Contender]:
    """Return those that `--only` names, all of them without it.

    Raises:
        SystemExit: a name that no one has; the message has the known ones.
    """
    known = {one.key: one for one in among}
    return [known[name] for name in named(only, known)]


def named(only: str | None, known: Iterable[str]) -> list[str]:
    """Return the names in what `--only` says, all known ones without it.

    Raises:
        SystemExit: a name that no one has; the message has the known ones.
    """
    everybody = list(known)
    names = everybody if only is None else [name.strip() for name in only.split(",")]
    unknown = [name for name in names if name not in everybody]
    if unknown:
        raise SystemExit(f"nobody is called {', '.join(unknown)}; there are {', '.join(everybody)}")
    return names


def available(only: str | None, everybody: Mapping[str, tuple[str, _T, bool]]) -> dict[str, _T]:
    """Return what `--only` names, by the table's names, and leave out what is not here.

    `everybody` has a name, a contender and whether it is here, by what `--only` calls it.
    """
    wanted = [everybody[name] for name in named(only, everybody)]
    for name, _, is_here in wanted:
        if not is_here:
            print(f"{name} is left out: it is not here", file=sys.stderr, flush=True)
    return {name: contender for name, contender, is_here in wanted if is_here}
