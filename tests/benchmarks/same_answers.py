"""Whether greedy answers are the same in every layout, alone and in company: counts, no times.

python3 tests/benchmarks/same_answers.py [--model NAME] [--prompts 200] [--at-once 8]

Answers of short prompts, with sharing and with the drafts that the pool makes unasked, are compared
within each layout (alone with in company) and between flash attention on and off. What the profile
promises (`paddock show`) must hold here.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import replace

from tests.benchmarks import arena
from tests.benchmarks.contenders import ours
from tests.benchmarks.device_checks import alike
from tests.benchmarks.loads import Ask, documents
from tests.benchmarks.setup import Setup

LAYOUTS = ("split", "unified")
SWITCHES = ("on", "off")
N_TOKENS = 24


def main() -> None:
    """Ask in every layout, and print how many answers are the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    asyncio.run(compare(arena.setup_of(args), args.prompts, args.at_once))


async def compare(setup: Setup, n_prompts: int, n_at_once: int) -> None:
    """Print a line for each layout, and one for flash attention."""
    asks = [
        Ask("", f"{text}\n\nWhat happens next?", N_TOKENS)
        for i in range(n_prompts)
        for text in documents(11 + i, 1, 10 + i % 60)
    ]
    by_switch = {}
    for switch in SWITCHES:
        for layout in LAYOUTS:
            more = {**setup.more, "cache_layout": layout, "flash_attention": switch}
            wanted = replace(setup, n_parallel=n_at_once, more={**more, "profile_s": 0.0})
            async with ours(wanted) as running:
                alone = [(await running.ask(ask)).text for ask in asks]
            async with ours(wanted) as running:
                together = [one.text for one in await arena.ask_all(running, asks, n_at_once)]
            said = alike(alone, together)
            print(f"flash attention {switch}, {layout}: in company as alone {said}", flush=True)
            by_switch[switch, layout] = alone
    said = alike(by_switch["on", "split"], by_switch["off", "split"])
    print(f"with flash attention as without, split, alone: {said}")


if __name__ == "__main__":
    main()
