"""Speed of `paddock-llama` against the llama.cpp that was compiled for this very processor.

uv run python tests/benchmarks/builds.py dist/paddock_llama-*.whl

One process with each build, asked in turn: a prompt of 512 tokens, then 32 decode steps. Medians of
all rounds are compared, in wall-clock time and in processor time. The latter is of use on a machine
that others use: with one thread it has no waiting in it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

PROMPT_TOKENS, STEPS = 512, 32
MODEL = "smollm2:135m"
VARIABLES = ("LLAMA_CPP_LIB_PATH", "MTMD_CPP_LIB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(args.wheel).extractall(folder)
        ours = str(Path(folder, "paddock_llama", "lib"))
        children = {
            "native": _child({}, args.threads),
            "wheel": _child({"LLAMA_CPP_LIB_PATH": ours}, args.threads),
        }
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in children}
        for _ in range(args.rounds):
            for name, child in children.items():
                taken[name].append(_asked(child))
        for child in children.values():
            child.communicate("")
    print(f"{args.threads} threads, medians of {args.rounds} rounds, tokens/s; native = 1")
    for what in taken["native"][0]:
        native, wheel = (statistics.median(row[what] for row in taken[name]) for name in taken)
        print(f"{what:24} native {native:8.1f}   wheel {wheel:8.1f}   {wheel / native:.3f}")


def _child(named: Mapping[str, str], n_threads: int) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return subprocess.Popen(
        [sys.executable, __file__, "--child", str(n_threads)],
        env={**kept, **named}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _asked(child: subprocess.Popen[str]) -> dict[str, float]:
    assert child.stdin
    assert child.stdout
    child.stdin.write("\n")
    child.stdin.flush()
    speeds: dict[str, float] = json.loads(child.stdout.readline())
    return speeds


def measure(n_threads: int) -> None:
    """Measure once for each line of the input."""
    from paddock.engine.llama.library import quiet_logs
    from paddock.engine.llama.llama_model import Model
    from paddock.engine.models.model_finder import ModelFinder
    from paddock.engine.profile.measure import Bench, BenchClock, BenchOptions
    from paddock.engine.settings import PoolSettings

    quiet_logs()
    settings = PoolSettings()
    path = ModelFinder(settings.models_dir, settings.cache_dir).locate(MODEL).path
    bench = Bench(
        Model(path), BenchOptions(1024, PROMPT_TOKENS, n_threads), BenchClock(1e9, n_threads), 1
    )
    bench.read(0, PROMPT_TOKENS)
    for _ in sys.stdin:
        bench.clear()
        speeds: dict[str, float] = {}
        _timed(speeds, "prefill", PROMPT_TOKENS, lambda: bench.read(0, PROMPT_TOKENS))
        _timed(speeds, "decode", STEPS, lambda: [bench.step(1) for _ in range(STEPS)])
        print(json.dumps(speeds), flush=True)


def _timed(speeds: dict[str, float], what: str, n_tokens: int, work: Callable[[], object]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    speeds[f"{what}, wall-clock"] = n_tokens / (time.perf_counter() - wall)
    speeds[f"{what}, processor time"] = n_tokens / (time.process_time() - cpu)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        measure(int(sys.argv[2]))
    else:
        main()
