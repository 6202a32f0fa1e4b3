"""The common frame of the benchmarks with contenders: command line, turns, failures, progress."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from paddock.engine.errors import EngineError
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.settings import PoolSettings
from tests.benchmarks import harness, peers
from tests.benchmarks.client import HttpError
from tests.benchmarks.contenders import present
from tests.benchmarks.loads import Ask
from tests.benchmarks.processes import ended_in_order
from tests.benchmarks.setup import Contender, Running, Said, Setup

_T = TypeVar("_T")
_R = TypeVar("_R")

# What can go wrong with a contender; it is a result, and the others go on.
FAILURES = (EngineError, HttpError, OSError, EOFError, RuntimeError, TimeoutError)
TURN_S = 900.0


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="a few minutes instead of the full size")
    made.add_argument("--only", metavar="NAME,…", help="these contenders alone")
    made.add_argument("--model", default="smollm2:135m", help="a name, or the path of a GGUF file")
    made.add_argument("--threads", type=int, default=harness.n_threads())
    made.add_argument("--layers", type=int, default=0, help="on the device; -1: all")
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of our pool, as in `--set cache_layout=split`; may be repeated",
    )
    return made


def arguments(
    made: argparse.ArgumentParser, full: Mapping[str, int], quick: Mapping[str, int]
) -> argparse.Namespace:
    """Read the command line, which has an option for each size; those left open are filled in."""
    for name in full:
        made.add_argument(f"--{name.replace('_', '-')}", type=int)
    args = made.parse_args()
    sizes(args, quick if args.quick else full)
    return args


def sizes(args: argparse.Namespace, wanted: Mapping[str, int]) -> None:
    args.sizes = tuple(wanted)
    for name, value in wanted.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def setup_of(args: argparse.Namespace) -> Setup:
    settings = PoolSettings()
    found = ModelFinder(settings.models_dir, settings.cache_dir).locate(args.model)
    here = peers.look()
    return Setup(
        found.path,
        args.threads,
        args.layers,
        server=here.server,
        more=dict(map(_setting, args.set)),
    )


def _setting(text: str) -> tuple[str, Any]:
    """Read `name=value`, the value as JSON where it is any.

    >>> _setting("n_batch_tokens=256"), _setting("cache_layout=split")
    (('n_batch_tokens', 256), ('cache_layout', 'split'))
    """
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@dataclass(frozen=True, slots=True)
class Failed:
    """A turn that came to nothing, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class Contest(Generic[_T]):
    """Everybody's turns: a result or a failure for each round."""

    turns: Mapping[str, Sequence[_T | Failed]]

    def results(self, name: str) -> list[_T]:
        return [turn for turn in self.turns[name] if not isinstance(turn, Failed)]

    def failure(self, name: str) -> str | None:
        """Return why a contender has no result at all."""
        turns = self.turns[name]
        first = next((turn for turn in turns if isinstance(turn, Failed)), None)
        return first.why if first and not self.results(name) else None

    def table(self, headings: Sequence[str], cells: Callable[[list[_T]], Sequence[object]]) -> str:
        """Return a row for each contender: `cells` of its turns, or why it has no result."""
        rows: list[list[object]] = []
        for name in self.turns:
            turns = self.results(name)
            blanks = [harness.NOTHING] * (len(headings) - 2)
            failure = [f"failed ({self.failure(name)})", *blanks]
            rows.append([name, *(cells(turns) if turns else failure)])
        return harness.table(headings, rows)


async def contest(
    contenders: Sequence[Contender],
    setup: Setup,
    n_rounds: int,
    play: Callable[[Running, int], Awaitable[_T]],
) -> Contest[_T]:
    """Have those contenders that are here take turns."""
    starts = {one.name: partial(one.start, setup) for one in present(contenders, setup)}
    return await take_turns(starts, n_rounds, play)


async def take_turns(
    starts: Mapping[str, Callable[[], AbstractAsyncContextManager[_R]]],
    n_rounds: int,
    play: Callable[[_R, int], Awaitable[_T]],
) -> Contest[_T]:
    """Have everyone play each round, in another order each, started afresh each time."""
    names = list(starts)
    found: dict[str, list[_T | Failed]] = {name: [] for name in names}
    for number in range(n_rounds):
        first = number % len(names) if names else 0
        for name in [*names[first:], *names[:first]]:
            began = time.perf_counter()
            found[name].append(await _turn(name, starts[name], number, play))
            took_s = time.perf_counter() - began
            say(f"round {number + 1} of {n_rounds}: {name}, {took_s:.1f} s")
    return Contest(found)


async def _turn(
    name: str,
    start: Callable[[], AbstractAsyncContextManager[_R]],
    number: int,
    play: Callable[[_R, int], Awaitable[_T]],
) -> _T | Failed:
    try:
        async with asyncio.timeout(TURN_S), start() as running:
            return await play(running, number)
    except FAILURES as error:
        say(f"{name} failed: {error!r}")
        return Failed(_shortened(f"{type(error).__name__}: {error}"))


def _shortened(text: str) -> str:
    """Keep both ends: the first names the error, the last has its cause."""
    text = " ".join(text.split()).replace("|", "/")
    return text if len(text) <= 160 else f"{text[:60]} \N{HORIZONTAL ELLIPSIS} {text[-95:]}"


async def ask_all(one: Running, asks: Sequence[Ask], n_at_once: int) -> list[Said]:
    """Ask everything, never more than so many at once (0: all together)."""
    places = asyncio.Semaphore(n_at_once or max(1, len(asks)))

    async def in_place(ask: Ask) -> Said:
        async with places:
            return await one.ask(ask)

    return await asyncio.gather(*map(in_place, asks))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def show(
    args: argparse.Namespace, measure: Callable[[], Awaitable[str]], **circumstances: object
) -> None:
    """Run a benchmark and print under which circumstances it gave its table."""

    async def main() -> None:
        found = await measure()
        sizes = {name: getattr(args, name) for name in args.sizes}
        device = {"threads": args.threads, "layers_on_the_device": args.layers}
        print(harness.circumstances(**{"model": args.model, **sizes, **circumstances, **device}))
        print(found)

    start(main)


def start(main: Callable[[], Awaitable[None]]) -> None:
    """Run a benchmark so that nothing is left behind, however it ends."""

    async def begin() -> None:
        await main()

    with ended_in_order():
        asyncio.run(begin())
