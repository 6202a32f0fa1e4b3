"""`llama-batched-bench`: the bare decode loop, random tokens, nothing sampled."""

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.setup import Setup

N_BATCH_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second over all sequences."""

    prefill: float
    decode: float


def bench_speeds(
    bench: Path,
    setup: Setup,
    n_prompt: int,
    n_answer: int,
    n_sequences: Sequence[int],
    *,
    is_unified: bool,
    timeout_s: float | None = None,
) -> dict[int, Speed]:
    """Measure each number of sequences, every one with its own prompt."""
    per_sequence = n_prompt + n_answer
    if not is_unified:
        per_sequence = -(-per_sequence // 256) * 256  # llama.cpp pads each stream
    options = {
        "-m": setup.model,
        "-t": setup.n_threads,
        "-ngl": setup.n_gpu_layers,
        "-c": max(n_sequences) * per_sequence,
        "-b": setup.more.get("n_batch_tokens", N_BATCH_TOKENS),
        "-ub": setup.more.get("n_batch_tokens", N_BATCH_TOKENS),
        "-npp": n_prompt,
        "-ntg": n_answer,
        "-npl": ",".join(map(str, n_sequences)),
        "-fa": "auto",
        "--output-format": "jsonl",
    }
    command = [str(bench), *(str(part) for pair in options.items() for part in pair)]
    command += ["-kvu"] if is_unified else []
    done = subprocess.run(command, check=True, text=True, capture_output=True, timeout=timeout_s)
    return speeds(done.stdout)


def speeds(printed: str) -> dict[int, Speed]:
    """Read batched-bench's lines of JSON.

    >>> speeds('{"pl": 4, "speed_pp": 500.5, "speed_tg": 240.0}')
    {4: Speed(prefill=500.5, decode=240.0)}
    """
    # A warning may stand before it in the same line.
    lines = [json.loads(found) for found in re.findall(r"\{.*\}", printed)]
    return {one["pl"]: Speed(one["speed_pp"], one["speed_tg"]) for one in lines}
