"""The parts of `gpu.py`: each within its time limit, all in one table."""

import argparse
import asyncio
import functools
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from tests.benchmarks import arena, chat, decode, device_checks, job, overflow, peers
from tests.benchmarks.arena import FAILURES
from tests.benchmarks.contenders import PADDOCK, present
from tests.benchmarks.device_rows import Bench, Row, report
from tests.benchmarks.harness import circumstances, n_threads, percentile
from tests.benchmarks.loads import summaries
from tests.benchmarks.raw import Speed, bench_speeds
from tests.benchmarks.servers import llama_server
from tests.benchmarks.setup import Contender, Setup

OURS = PADDOCK.name
ONE_SLOT = "llama-server -np 1"
UNIFIED, SPLIT = "bench, unified", "bench, split"

# A request of 400 words with instructions and answer has some 800 tokens, one of 1,600 words 2,800.
N_CTX_TOKENS = 4096
N_CHAT_TOKENS = 24

# Together under 8 minutes, whatever happens.
LIMIT_S = {
    "look": 40.0, "raw": 140.0, "job": 110.0, "chat": 60.0, "overflow": 40.0,
    "fingerprints": 60.0, "rooms": 30.0,
}  # fmt: skip


def run(args: argparse.Namespace) -> None:
    bench = _bench(args)
    parts: dict[str, Callable[[Bench], Awaitable[None]]] = {
        "raw": raw,
        "job": a_job,
        "chat": a_chat,
        "overflow": an_overflow,
        "fingerprints": device_checks.fingerprints,
        "rooms": device_checks.rooms,
    }

    async def measure() -> None:
        began = time.perf_counter()
        about = await asyncio.to_thread(look, bench.setup)
        for name in args.parts.split(","):
            await _within(bench, name, parts[name])
        print(
            circumstances(
                model=args.model,
                threads=bench.setup.n_threads,
                layers=args.layers,
                settings=" ".join(args.set) or "as decided",
                **about,
                seconds_in_all=round(time.perf_counter() - began),
            )
        )
        print(report(bench.rows))

    arena.start(measure)


def _bench(args: argparse.Namespace) -> Bench:
    here = peers.look()
    options = argparse.Namespace(
        model=args.model, threads=args.threads or n_threads(), layers=args.layers, set=args.set
    )
    setup = arena.setup_of(options)
    setup = replace(setup, server=args.server or here.server, n_ctx_tokens=N_CTX_TOKENS)
    slots = [int(part) for part in args.slots.split(",")]
    wanted = [_server(1)] + [one for n in slots for one in (_server(n), _server(n, "-kvu"))]
    return Bench(args, setup, args.batched_bench or here.batched_bench, present(wanted, setup))


def _server(n_slots: int, *flags: str) -> Contender:
    name = " ".join(["llama-server", f"-np {n_slots}", *flags])
    return Contender(f"server-{n_slots}", name, llama_server(*flags, n_slots=n_slots))


async def _within(bench: Bench, name: str, part: Callable[[Bench], Awaitable[None]]) -> None:
    """Run a part; one that fails or takes too long has its reason in the table."""
    try:
        async with asyncio.timeout(LIMIT_S[name]):
            await part(bench)
    except TimeoutError:
        bench.rows.append(Row(f"{name}: not done within {LIMIT_S[name]:.0f} s", {}))
    except (*FAILURES, subprocess.SubprocessError) as error:
        bench.rows.append(Row(f"{name}: {type(error).__name__}: {error}"[:160], {}))
    arena.say(name)


# What is here


def look(setup: Setup) -> dict[str, object]:
    """Ask this build of llama.cpp what it is, and load the model once to see where it goes."""
    command = [sys.executable, "-c", _LOOK, str(setup.model), str(setup.n_gpu_layers)]
    try:
        done = subprocess.run(
            command, text=True, capture_output=True, timeout=LIMIT_S["look"], check=True
        )
    except subprocess.SubprocessError as error:
        return {"supports_gpu": f"unknown ({type(error).__name__})"}
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


_LOOK = """
import json, re, sys
from paddock.engine.llama.library import lib
lines = []
note = lib.llama_log_callback(lambda level, text, data: lines.append(text.decode(errors="replace")))
lib.llama_log_set(note, None)
lib.llama_backend_init()
params = lib.llama_model_default_params()
params.n_gpu_layers = int(sys.argv[2])
model = lib.llama_model_load_from_file(sys.argv[1].encode(), params)
log = "".join(lines)
devices = re.findall(r"using device (\\\\S+ \\\\([^\\\\n]*?\\\\))", log)
layers = re.findall(r"offloaded (\\\\d+/\\\\d+) layers", log)
print(json.dumps({
    "supports_gpu": bool(lib.llama_supports_gpu_offload()),
    "device": "; ".join(dict.fromkeys(devices)) or "none: the processor",
    "layers_on_the_device": layers[-1] if layers else "0",
    "loads": bool(model),
}))
""".replace("\\\\", "\\")


# The parts


async def raw(bench: Bench) -> None:
    """Compare raw speed: ours in one pool, batched-bench with either cache."""
    args = bench.args
    numbers = [int(part) for part in args.sequences.split(",")]
    shape = decode.Shape(tuple(numbers), args.prompt_tokens, args.answer_tokens)
    found: dict[str, Mapping[int, Speed]] = {}
    found[OURS] = await decode.our_speeds(bench.setup, shape, numbers)
    arena.say("raw, ours")
    for name, is_unified in ((UNIFIED, True), (SPLIT, False)):
        if bench.batched_bench is not None:
            found[name] = await asyncio.to_thread(
                bench_speeds,
                bench.batched_bench,
                bench.setup,
                shape.n_prompt_tokens,
                shape.n_answer_tokens,
                numbers,
                is_unified=is_unified,
                timeout_s=LIMIT_S["raw"] / 3,
            )
            arena.say(f"raw, {name}")
    for which in ("prefill", "decode"):
        for n in numbers:
            cells = {who: getattr(at[n], which) for who, at in found.items() if n in at}
            bench.rows.append(Row(f"{which}, {n} sequences, tokens/s", cells, True))


async def a_job(bench: Bench) -> None:
    """Compare documents a minute; a single slot gets an eighth of the documents."""
    cells: dict[str, float | str] = {}
    for one in (PADDOCK, *bench.servers):
        n = bench.args.documents
        n = max(2, n // 8) if one.name == ONE_SLOT else n
        shape = job.Shape(n, 0, bench.args.job_tokens, 0, bench.args.words)
        play = functools.partial(job.play, job.JOBS["a"], shape)
        found = await arena.contest([one], bench.setup, 1, play)
        _note_failures(bench, "job", found)
        turns = found.results(one.name)
        cells[one.name] = job.per_minute(turns[0]) if turns else "failed"
    bench.rows.append(Row("job, documents/min", cells, True))
    known = {
        one.name: value for one in bench.servers if isinstance(value := cells[one.name], float)
    }
    best = max(known, key=known.__getitem__, default=None)
    bench.best = next((one for one in bench.servers if one.name == best), None)


async def a_chat(bench: Bench) -> None:
    """Compare how a chat fares next to the job, against the best llama-server."""
    args = bench.args
    best = bench.best or next(iter(bench.servers[-1:]), None)
    shape = chat.Shape(
        args.documents,
        args.in_flight,
        args.job_tokens,
        N_CHAT_TOKENS,
        args.words,
        args.every_ms / 1000,
    )
    contenders = [PADDOCK, *([best] if best else [])]
    found = await arena.contest(contenders, bench.setup, 1, functools.partial(chat.play, shape))
    _note_failures(bench, "chat", found)
    first: dict[float, dict[str, float | str]] = {0.5: {}, 0.95: {}}
    between: dict[str, float | str] = {}
    per_minute: dict[str, float | str] = {}
    for one in contenders:
        for turn in found.results(one.name):
            heard = [each for each in turn.chats if each.heard_at]
            for share, cells in first.items():
                cells[one.name] = 1000 * percentile([each.first_s for each in heard], share)
            gaps = [gap for each in heard for gap in each.between_s]
            between[one.name] = 1000 * percentile(gaps, 0.95)
            per_minute[one.name] = turn.per_minute
    bench.rows += [
        *(Row(f"chat, first token p{100 * share:.0f}, ms", c, False) for share, c in first.items()),
        Row("chat, between tokens p95, ms", between, False),
        Row("job during the chats, documents/min", per_minute, True),
    ]


async def an_overflow(bench: Bench) -> None:
    """Compare who gets an answer when the cache is too small for all."""
    args = bench.args
    asks = summaries(0, args.at_once, args.job_tokens, args.words)
    n_cells = args.cells
    setup = replace(bench.setup, n_cells=n_cells, n_parallel=args.at_once, n_ctx_tokens=n_cells)
    contenders = [PADDOCK]
    if bench.servers:
        start = llama_server("-kvu", n_slots=args.at_once)
        contenders.append(Contender("server", f"llama-server, {n_cells} cells", start))
    found = await arena.contest(
        contenders, setup, 1, lambda running, _: overflow.play(asks, running)
    )
    _note_failures(bench, "overflow", found)
    cells: dict[str, float | str] = {}
    for one in contenders:
        for turn in found.results(one.name):
            cells[one.name] = f"{turn.n_answers} of {len(asks)}"
    bench.rows.append(Row(f"answers of {len(asks)} at once in {n_cells} cells", cells))


def _note_failures(bench: Bench, part: str, found: arena.Contest[Any]) -> None:
    for name in found.turns:
        if why := found.failure(name):
            bench.rows.append(Row(f"{part}, {name}: {why}", {}))
