"""Documents a minute of a job, and its memory: our pool against llama-server.

uv run python tests/benchmarks/job.py            summaries, all with the same instructions
uv run python tests/benchmarks/job.py --load b   the same with a JSON schema of three fields

All documents arrive at once (`--at-once` makes a client that keeps fewer going), greedy, the same
messages, the same model file (but for the tuned copy) and as many threads. No one may keep an
answer from the round before: each round's documents begin with a line of their own, so that all
that can be shared is the instructions. Whether the answers agree is asked one document at a time:
in a batch of several sequences the kernels add in another order, and where two words are all but
equally likely, greedy decoding then takes the other one. `llama-batched-bench` is the limit: the
same numbers of random tokens, the instructions not counted, computed in a bare loop that samples
nothing.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import arena, loads, peers
from tests.benchmarks.arena import Contest
from tests.benchmarks.contenders import DEFAULTS, EVERYBODY, PADDOCK, chosen
from tests.benchmarks.harness import NOTHING, summary, table
from tests.benchmarks.loads import Ask
from tests.benchmarks.raw import bench_speeds
from tests.benchmarks.setup import Running, Said, Setup

LIMIT = "llama-batched-bench (the limit)"
FULL = {"documents": 64, "at_once": 0, "rounds": 3, "answer_tokens": 64, "alone": 4, "words": 400}
QUICK = {**FULL, "documents": 16, "rounds": 1, "alone": 2}
LIMIT_SEQUENCES = (1, 4, 8)


@dataclass(frozen=True, slots=True)
class Job:
    title: str
    asks: Callable[[int, int, int, int], list[Ask]]


JOBS = {
    "a": Job("summaries with the same instructions", loads.summaries),
    "b": Job("forms by a JSON schema of three fields", loads.extractions),
}


@dataclass(frozen=True, slots=True)
class Turn:
    seconds: float
    asks: Sequence[Ask]
    answers: Sequence[Said]
    alone: Sequence[str]
    """Answers to the same few documents, one at a time."""
    peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class Shape:
    n_documents: int
    n_at_once: int
    """0: all of them."""
    n_tokens: int
    n_alone: int
    n_words: int


def main() -> None:
    args = _arguments()
    job = JOBS[args.load]
    setup = arena.setup_of(args)
    shape = Shape(args.documents, args.at_once, args.answer_tokens, args.alone, args.words)
    contenders = chosen(args.only, EVERYBODY)

    async def measure() -> str:
        found = await arena.contest(
            contenders, setup, args.rounds, lambda one, number: play(job, shape, one, number)
        )
        limits = []
        if args.load == "a" and args.only is None:
            limits = await asyncio.to_thread(limit, setup, found, args.rounds)
        return report(args.load, found, limits)

    arena.show(
        args,
        measure,
        load=f"({args.load}) {job.title}",
        at_once=args.at_once or "all",
        context_of_one_request=setup.n_ctx_tokens,
        temperature=0,
    )


def _arguments() -> argparse.Namespace:
    parser = arena.parser(__doc__)
    parser.add_argument("--load", choices=sorted(JOBS), default="a")
    for name in FULL:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    args = parser.parse_args()
    arena.sizes(args, QUICK if args.quick else FULL)
    return args


async def play(job: Job, shape: Shape, one: Running, number: int) -> Turn:
    """Ask a few documents one by one, then those of a round together."""
    few = job.asks(-1, shape.n_alone, shape.n_tokens, shape.n_words)
    alone = [(await one.ask(ask)).text for ask in few]
    asks = job.asks(number, shape.n_documents, shape.n_tokens, shape.n_words)
    began = time.perf_counter()
    answers = await arena.ask_all(one, asks, shape.n_at_once)
    return Turn(time.perf_counter() - began, asks, answers, alone, one.peak_bytes())


def limit(setup: Setup, found: Contest[Turn], n_rounds: int) -> list[float]:
    """Measure the documents a minute that the bare loop would make of the same tokens."""
    bench = peers.look().batched_bench
    turns = [turn for name in found.turns for turn in found.results(name)]
    if bench is None or not turns:
        return []
    n_instructions = 4 * len(loads.INSTRUCTIONS.split()) // 3
    n_prompt = round(statistics.mean(said.n_prompt_tokens for said in turns[0].answers))
    n_answer = round(statistics.mean(said.n_answer_tokens for said in turns[0].answers))
    n_fresh = max(1, n_prompt - n_instructions)
    best = []
    for _ in range(n_rounds):
        speeds = bench_speeds(bench, setup, n_fresh, n_answer, LIMIT_SEQUENCES, is_unified=False)
        seconds = (n_fresh / one.prefill + n_answer / one.decode for one in speeds.values())
        best.append(60 / min(seconds))
        arena.say(LIMIT)
    return best


# The table


def report(load: str, found: Contest[Turn], limits: Sequence[float]) -> str:
    """Return the table of medians, with ratios to the best peer and to llama-server's defaults."""
    speeds = {name: [per_minute(turn) for turn in found.results(name)] for name in found.turns}
    best = best_peer(speeds)
    defaults = speeds.get(DEFAULTS.name)
    reference = _reference(found)
    rows = []
    for name, mine in speeds.items():
        if not mine:
            blanks = [NOTHING] * (len(_headings(load)) - 2)
            rows.append([name, f"failed ({found.failure(name)})", *blanks])
            continue
        spread = summary(mine)
        turns = found.results(name)
        rows.append(
            [
                name,
                f"{spread.median:.1f}",
                f"{spread.low:.1f} to {spread.high:.1f}",
                ratio(mine, speeds[best]) if best else NOTHING,
                ratio(mine, defaults) if defaults else NOTHING,
                *_contents(load, turns),
                f"{agreement(reference, turns[0].alone):.0%}" if reference else NOTHING,
                _megabytes(turns),
            ]
        )
    if limits:
        blanks = [NOTHING] * (len(_headings(load)) - 5)
        spread = summary(limits)
        range_ = f"{spread.low:.1f} to {spread.high:.1f}"
        against = (
            ratio(limits, one) if one else NOTHING for one in (speeds.get(best or ""), defaults)
        )
        rows.append([LIMIT, f"{spread.median:.1f}", range_, *against, *blanks])
    return table(_headings(load), rows)


def _headings(load: str) -> list[str]:
    contents = ["prompt tokens", "answer tokens"]
    contents += ["valid forms"] if load == "b" else []
    first = ["", "documents/min", "range", "to the best peer", "to llama-server's defaults"]
    return [*first, *contents, "same answers alone", "peak MB"]


def _contents(load: str, turns: Sequence[Turn]) -> list[str]:
    answers = [said for turn in turns for said in turn.answers]
    found = [
        f"{statistics.mean(said.n_prompt_tokens for said in answers):.0f}",
        f"{statistics.mean(said.n_answer_tokens for said in answers):.1f}",
    ]
    if load == "b":
        n_valid = sum(loads.is_valid(said.text) for said in answers)
        n_shortened = sum(said.is_shortened for said in answers)
        found.append(f"{n_valid} of {len(answers)}, {n_shortened} shortened")
    return found


def per_minute(turn: Turn) -> float:
    return 60 * len(turn.answers) / turn.seconds


def best_peer(speeds: Mapping[str, Sequence[float]]) -> str | None:
    """Name the peer with the best median."""
    medians = {
        name: statistics.median(mine)
        for name, mine in speeds.items()
        if mine and not name.startswith(PADDOCK.name)
    }
    return max(medians, key=medians.__getitem__, default=None)


def ratio(mine: Sequence[float], best: Sequence[float]) -> str:
    """Return the median of the rounds' own ratios: the machine's speed drifts between them."""
    ratios = [one / other for one, other in zip(mine, best, strict=False)]
    return f"{statistics.median(ratios):.2f}"


def _reference(found: Contest[Turn]) -> Sequence[str] | None:
    """Return the answers that the others are compared with: our own with the identical file."""
    turns = found.results(PADDOCK.name) if PADDOCK.name in found.turns else []
    return turns[0].alone if turns else None


def agreement(ours: Sequence[str], theirs: Sequence[str]) -> float:
    """Return the share of equal answers; of JSON, its values count and not its blanks.

    >>> agreement(["Yes.", '{"a": 1}'], ["Yes. ", '{"a":1}'])
    1.0
    """
    pairs = zip(map(_value, ours), map(_value, theirs), strict=True)
    return sum(one == other for one, other in pairs) / len(ours)


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()


def _megabytes(turns: Sequence[Turn]) -> str:
    peaks = [turn.peak_bytes for turn in turns if turn.peak_bytes is not None]
    return f"{statistics.median(peaks) / 1e6:,.0f}" if peaks else NOTHING


if __name__ == "__main__":
    main()
