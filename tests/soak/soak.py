"""Twenty bad minutes: files arrive, processes are killed, models are swapped, under `paddock up`.

Documents kill the runs that work on them or fill their memory, a share comes and goes, programs
write into what is taken already, and webhooks are called many at a time.

python tests/soak/soak.py [--minutes 20] [--seed 1] [--keep]

Prints one table; status 0 if nothing was lost and nothing done twice.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

HOUSE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(HOUSE))

from tests.soak.arrivals import Arrivals, bomb, broken, poison  # noqa: E402
from tests.soak.judge import Arrival, Verdict, table, verdict  # noqa: E402
from tests.soak.killer import Killer  # noqa: E402
from tests.soak.world import CALLS, World  # noqa: E402

LATE_S = 30.0
AWAY_S = 8.0  # long enough that what lies there meanwhile settles and a run takes it
CALL_TRIES = 120
# How often which of them dies.
VICTIMS = {"run": 5, "model's worker": 3, "Prefect's server": 1, "up": 1}


@dataclass(frozen=True, slots=True)
class Plan:
    arrive_s: float
    files_per_s: float
    kill_every_s: float
    quiet_s: float
    """How long after the last arrival all must be done."""
    seed: int = 1
    surely: tuple[str, ...] = ("run", "model's worker", "Prefect's server", "up")
    """Who is killed once each, before chance decides."""
    poisons: int = 8
    """How many documents kill the run that works on them, and how many PDFs fill the memory."""
    burst: int = 40
    """How many webhooks are called at once, now and then."""
    mishaps: bool = True
    """Whether a root goes away, a YAML is half saved, and commands are run by hand."""
    weights: Mapping[str, int] = field(
        default_factory=lambda: {"texts": 20, "drop": 6, "notes": 3, "letters": 1}
    )


@dataclass
class Calls:
    """What was answered to webhooks, and the calls that were accepted."""

    answers: Counter[str] = field(default_factory=Counter)
    accepted: dict[str, float] = field(default_factory=dict)
    """Call → when it was accepted."""
    seconds: list[float] = field(default_factory=list)
    """How long each accepted one took to be answered."""

    @property
    def words(self) -> str:
        """The answers by their status, and the slowest."""
        counted = ", ".join(f"{n} {what}" for what, n in sorted(self.answers.items()))
        slowest = f"; the slowest {max(self.seconds):.2f} s" if self.seconds else ""
        return f"{counted or 'none'}{slowest}"


@dataclass(frozen=True, slots=True)
class Told:
    verdict: Verdict
    table: str
    missing: tuple[str, ...]
    """The first of what was lost or repeated, and who was killed, in words."""


async def soak(world: World, plan: Plan) -> Told:
    arrivals = Arrivals([(world.folders[name], n) for name, n in plan.weights.items()], plan.seed)
    killer = Killer(world.state_dir, plan.seed, world.recorded)
    ended, by_hand, calls = asyncio.Event(), Counter[int](), Calls()
    supervisor = asyncio.create_task(world.supervise(ended))
    try:
        await world.until_ready()
        before = world.memory_mb()
        await _bad_times(world, plan, arrivals, killer, by_hand, calls)
        said = await _quiet(world, plan, killer, calls)
        after = world.memory_mb()
        ended.set()
        await supervisor
        stop_s = await world.stop()
    finally:
        ended.set()
        supervisor.cancel()
        world.sweep()
    more = {
        "killed": killer.words,
        "starts of `paddock up`": str(world.n_starts),
        "run by hand meanwhile, by exit status": _counted(by_hand),
        "arrived, by way": _counted_words(arrivals.by_way),
        "runs that died of a document": str(len(world.died())),
        "webhooks called at once, by answer": calls.words,
        "ticks of the clock that ran": str(sum(one.path == "tick" for one in world.marks())),
        "memory of `up` alone, at the start and at the end": _both(before, after, "up"),
        "memory of all that it holds, at the start and at the end": _both(before, after, "all"),
        "temporary files left": str(len(world.leftovers())),
        "stopped within": f"{stop_s:.1f} s",
    }
    wrong = [f"lost: {one}" for one in said.lost]
    wrong += [f"repeated: {one} after {before}" for before, one in said.repeated]
    if said.repeated:
        wrong += [f"killed: {kill.pid} at {kill.at}" for kill in killer.kills]
    return Told(said, table(said, more), tuple(wrong[:60]))


async def _bad_times(
    world: World,
    plan: Plan,
    arrivals: Arrivals,
    killer: Killer,
    by_hand: Counter[int],
    calls: Calls,
) -> None:
    async with asyncio.TaskGroup() as group:
        end = time.monotonic() + plan.arrive_s
        group.create_task(_arrive(world, plan, arrivals, end))
        group.create_task(_kill(plan, killer, end))
        group.create_task(_poison(world, plan, arrivals))
        group.create_task(_bursts(world, plan, calls))
        if plan.mishaps:
            group.create_task(_root_goes_away(world, plan, end))
            group.create_task(_half_saved(world, plan, end))
            group.create_task(_run_by_hand(world, plan, end, by_hand))


async def _arrive(world: World, plan: Plan, arrivals: Arrivals, end: float) -> None:
    """Add files, many at a time: some of them take seconds. The first cannot be read."""
    pace = random.Random(plan.seed)
    texts = world.folders["texts"]
    while not texts.known:
        await arrivals.bad(broken, texts)
    async with asyncio.TaskGroup() as group:
        while time.monotonic() < end:
            group.create_task(arrivals.one())
            await asyncio.sleep(pace.expovariate(plan.files_per_s))


async def _kill(plan: Plan, killer: Killer, end: float) -> None:
    pace = random.Random(plan.seed)
    surely = list(plan.surely)
    while (now := time.monotonic()) < end - plan.kill_every_s / 2 or (
        surely and now < end + LATE_S
    ):
        await asyncio.sleep(pace.uniform(0.5, 1.5) * plan.kill_every_s)
        for _ in range(40):  # runs are short: look for one for a while
            if role := killer.strike({surely[0]: 1} if surely else VICTIMS):
                print(f"{time.strftime('%H:%M:%S')} killed: {role}", file=sys.stderr)
                surely = surely[1:]
                break
            await asyncio.sleep(0.1)
        else:
            surely = surely[1:] + surely[:1]  # another one first


async def _poison(world: World, plan: Plan, arrivals: Arrivals) -> None:
    """Bring what kills a run, or fills its memory, among the others."""
    for n in range(2 * plan.poisons):
        await asyncio.sleep(plan.arrive_s / (2 * plan.poisons + 1))
        folder = world.folders["drop" if n % 4 > 1 else "texts"]
        await arrivals.bad(poison if n % 2 else bomb, folder)


async def _bursts(world: World, plan: Plan, calls: Calls) -> None:
    """Call a webhook many times at once, four times in all; one in ten calls comes twice."""
    for burst in range(4 if plan.burst else 0):
        await asyncio.sleep(plan.arrive_s / 5)
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            names = [f"{plan.seed}-{burst}-{n}" for n in range(plan.burst)]
            twice = names[::10]
            await asyncio.gather(*(_call(world, client, one, calls) for one in names + twice))


async def _call(world: World, client: httpx.AsyncClient, name: str, calls: Calls) -> None:
    """Call until it is accepted, as callers do; the key makes the same call one run."""
    url = f"http://127.0.0.1:{world.port}/{CALLS}"
    for _ in range(CALL_TRIES):
        began = time.monotonic()
        try:
            answer = await client.post(url, json={"call": name}, headers={"Idempotency-Key": name})
        except httpx.HTTPError:  # `paddock up` was killed
            calls.answers["without an answer"] += 1
        else:
            calls.answers[f"with {answer.status_code}"] += 1
            if answer.status_code in (200, 202):
                calls.seconds.append(time.monotonic() - began)
                calls.accepted.setdefault(name, time.time())
                return
        await asyncio.sleep(1)


async def _root_goes_away(world: World, plan: Plan, end: float) -> None:
    """Take a watched folder away and bring it back, as a network does; nothing in it is gone.

    What lies there meanwhile is empty, or has a few files in it, or is not there.
    """
    folder = world.folders["texts"]
    for n in itertools.count():
        if time.monotonic() + plan.arrive_s / 4 >= end:
            return
        await asyncio.sleep(plan.arrive_s / 4)
        folder.is_there.clear()
        away = folder.root.with_name("away")
        folder.root.rename(away)
        if n % 3 < 2:  # the place at which the share was mounted
            folder.root.mkdir()
            for stray in range(3 * (n % 3 == 0)):
                (folder.root / f"stray-{n}-{stray}.txt").write_text(f"stray {n} {stray}")
        await asyncio.sleep(min(AWAY_S, plan.arrive_s / 3))
        if folder.root.exists():
            shutil.rmtree(folder.root)
        away.rename(folder.root)
        folder.is_there.set()


async def _half_saved(world: World, plan: Plan, end: float) -> None:
    """Save a pipeline half, and whole again later: the old version goes on."""
    file = world.pipelines / "notes.yaml"
    text = file.read_text()
    while time.monotonic() + plan.arrive_s / 3 < end:
        await asyncio.sleep(plan.arrive_s / 3)
        file.write_text(text[: text.index("steps.text")])  # within a string: no pipeline by chance
        await asyncio.sleep(5)
        file.write_text(text)


async def _run_by_hand(world: World, plan: Plan, end: float, by_hand: Counter[int]) -> None:
    """Run the same pipelines from a terminal: they share the ledger, the pool and the outputs."""
    choose = random.Random(plan.seed)
    while time.monotonic() + plan.arrive_s / 6 < end:
        await asyncio.sleep(plan.arrive_s / 6)
        name = choose.choice(("texts", "letters", "notes"))
        process = await asyncio.create_subprocess_exec(
            *world.command("run", str(world.pipelines / f"{name}.yaml"), "--json"),
            env=world.environ, cwd=world.home, start_new_session=True,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            by_hand[await asyncio.wait_for(process.wait(), 120)] += 1
        except TimeoutError:
            process.kill()
            by_hand[-1] += 1


async def _quiet(world: World, plan: Plan, killer: Killer, calls: Calls) -> Verdict:
    """Wait until all is done, or until it should have been."""
    until = time.monotonic() + plan.quiet_s
    while True:
        said = await asyncio.to_thread(_judged, world, killer, calls)
        if not said.lost or time.monotonic() > until:
            return said
        await asyncio.sleep(1)


def _judged(world: World, killer: Killer, calls: Calls) -> Verdict:
    arrived = [one for folder in world.folders.values() for one in folder.known.values()]
    arrived += [Arrival(CALLS, name, name, at) for name, at in calls.accepted.items()]
    marks = [one for one in world.marks() if one.path != "tick"]
    kills = [*killer.kills, *world.died()]
    return verdict(arrived, marks, kills, world.outputs(), world.quarantined())


def _counted_words(counter: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {way.replace('_', ' ')}" for way, n in sorted(counter.items())) or "none"


def _counted(counter: Counter[int]) -> str:
    return ", ".join(f"{n} with {status}" for status, n in sorted(counter.items())) or "none"


def _both(before: Mapping[str, float], after: Mapping[str, float], which: str) -> str:
    return f"{before[which]:.0f} MB, {after[which]:.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="of arrivals; quiet comes after"
    )
    parser.add_argument("--files-per-s", type=float, default=4.0)
    parser.add_argument("--kill-every-s", type=float, default=20.0)
    parser.add_argument("--poisons", type=int, default=8)
    parser.add_argument("--burst", type=int, default=40)
    parser.add_argument(
        "--quiet-s", type=float, default=300.0, help="the most that it may take then"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path, help="a folder for all of it; else a temporary one")
    parser.add_argument("--keep", action="store_true", help="leave the folder there")
    args = parser.parse_args()
    home = (args.home or Path(tempfile.mkdtemp(prefix="paddock-soak-"))).resolve()
    plan = Plan(60 * args.minutes, args.files_per_s, args.kill_every_s, args.quiet_s, args.seed,
                poisons=args.poisons, burst=args.burst)  # fmt: skip
    world = World(home)
    os.environ["PADDOCK_HOME"] = world.state_dir  # by which its ledger knows us
    try:
        told = asyncio.run(soak(world, plan))
    finally:
        if args.keep:
            print(f"all of it lies in {home}", file=sys.stderr)
        else:
            with contextlib.suppress(OSError):
                shutil.rmtree(home)
    print(told.table)
    for line in told.missing:
        print(line, file=sys.stderr)
    sys.exit(0 if told.verdict.is_good else 1)


if __name__ == "__main__":
    main()
