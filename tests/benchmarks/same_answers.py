"""Whether greedy answers stay what they are without batching, drafts and sharing: counts, no times.

uv run python tests/benchmarks/same_answers.py [--quick] [--model NAME] [--only split-on,…]

The reference has none of the three: llama.cpp computes a whole prompt in an empty context and then
one token at a time. The pool answers the same prompts in every layout: one after the other, in
company without drafts, and in company with drafts and all prompts in the cache. Token ids are
compared. Where an answer parts, the reference's token led by so many logits: some tenths are
rounding, whole numbers a fault. What the profile promises (`paddock show`) must hold here. Without
one the pool drafts wherever it can; `--set profile_s=12` measures one first.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.engine.llama.library import quiet_logs
from paddock.engine.llama.llama_context import Context, ContextOptions
from paddock.engine.llama.llama_model import Model, ModelOptions
from paddock.engine.request import Reply
from paddock.engine.settings import Switch
from tests.benchmarks import arena
from tests.benchmarks.contenders import Ours, named, ours
from tests.benchmarks.device_checks import alike, n_common
from tests.benchmarks.harness import NOTHING, circumstances, table
from tests.benchmarks.loads import Ask, documents
from tests.benchmarks.setup import Setup

FULL = {"prompts": 200, "answer_tokens": 24}
QUICK = {"prompts": 8, "answer_tokens": 24}
SWITCHES: tuple[Switch, ...] = ("on", "off")
CONTEXTS = {
    f"{layout}-{switch}": (layout, switch) for switch in SWITCHES for layout in ("split", "unified")
}
"""Cache layout and flash attention, by what `--only` calls them."""
HEADINGS = (
    "flash attention, layout",
    "alone",
    "in company, no drafts",
    "again: drafts, prompts in the cache",
    "largest lead lost, logits",
    "accepted drafts, tokens",
    "prompts from the cache, tokens",
)


def main() -> None:
    """Ask in every layout, and print how many answers are the reference's."""
    parser = arena.parser(__doc__)
    parser.add_argument("--at-once", type=int, default=8)
    args = arena.arguments(parser, FULL, QUICK)
    contexts = [CONTEXTS[name] for name in named(args.only, CONTEXTS)]
    asks = [
        Ask("", f"{text}\n\nWhat happens next?", args.answer_tokens)
        for i in range(args.prompts)
        for text in documents(11 + i, 1, 10 + i % 60)
    ]
    quiet_logs()
    arena.start(lambda: compare(args, contexts, asks))


async def compare(
    args: argparse.Namespace, contexts: Sequence[tuple[str, Switch]], asks: Sequence[Ask]
) -> None:
    setup = replace(arena.setup_of(args), n_parallel=args.at_once)
    rows, references = [], dict[Switch, list[Answer]]()
    for layout, switch in contexts:
        more = {
            "profile_s": 0.0, **setup.more, "cache_layout": layout, "flash_attention": switch,
        }  # fmt: skip
        async with ours(replace(setup, more=more)) as running:
            passes = [await asked(running, asks, 1)]
        async with ours(replace(setup, more=more)) as running:
            passes.append(await asked(running, asks, args.at_once, drafts=False))
            passes.append(await asked(running, asks, args.at_once))
        if switch not in references:
            prompts = [one.prompt for one in passes[0]]
            references[switch] = await asyncio.to_thread(
                reference, setup, switch, prompts, args.answer_tokens
            )
        expected = [one.tokens for one in references[switch]]
        rows.append(
            [
                f"{switch}, {layout}",
                *(alike(expected, [one.tokens for one in found], "tokens") for found in passes),
                largest_lead(references[switch], passes),
                sum(one.n_drafted for found in passes for one in found),
                sum(one.n_cached for found in passes for one in found),
            ]
        )
        arena.say(f"flash attention {switch}, {layout}: done")
    print(circumstances(model=args.model, prompts=len(asks), at_once=args.at_once))
    print(table(HEADINGS, rows))


@dataclass(frozen=True, slots=True)
class Answer:
    """Token ids of a prompt and of its answer, and how many of them cost nothing."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    n_drafted: int = 0
    n_cached: int = 0
    leads: tuple[float, ...] = ()
    """By how much each token, and the end, led the second in logits; of the reference."""


async def asked(
    running: Ours, asks: Sequence[Ask], n_at_once: int, *, drafts: bool | None = None
) -> list[Answer]:
    places = asyncio.Semaphore(n_at_once)

    async def in_place(ask: Ask) -> Reply:
        request = replace(running.request(ask), drafts=drafts, wants_tokens=True)
        async with places:
            return await running.pool.chat(request).reply()

    return [_answer(reply) for reply in await asyncio.gather(*map(in_place, asks))]


def _answer(reply: Reply) -> Answer:
    usage = reply.usage
    prompt, tokens = reply.tokens[: usage.prompt_tokens], reply.tokens[usage.prompt_tokens :]
    return Answer(prompt, tokens, usage.accepted_tokens, usage.prompt_reused_tokens)


def reference(
    setup: Setup, flash_attention: Switch, prompts: Sequence[tuple[int, ...]], n_tokens: int
) -> list[Answer]:
    """Return answers without batching, drafts or sharing: a prompt, then token by token."""
    model = Model(setup.model, ModelOptions(n_gpu_layers=setup.n_gpu_layers))
    longest = max(map(len, prompts))
    options = ContextOptions(
        longest + n_tokens, longest, 1, setup.n_threads, flash_attention=flash_attention
    )
    with Context(model, options) as context:
        answers = [_greedy(context, prompt, n_tokens) for prompt in prompts]
    model.close()
    return answers


def _greedy(context: Context, prompt: tuple[int, ...], n_tokens: int) -> Answer:
    context.clear()
    answer: list[int] = []
    leads: list[float] = []
    new, n_before = np.array(prompt, np.int32), 0
    while len(answer) < n_tokens:
        pos = np.arange(n_before, n_before + len(new), dtype=np.int32)
        context.decode(new, pos, np.zeros_like(new), (pos == pos[-1]).astype(np.int8))
        n_before += len(new)
        row = context.logits(1)[0]
        second, first = np.partition(row, -2)[-2:]
        leads.append(float(first - second))
        token = int(row.argmax())
        if context.model.ends_generation(token):
            break
        answer.append(token)
        new = np.array([token], np.int32)
    return Answer(prompt, tuple(answer), leads=tuple(leads))


def largest_lead(reference: Sequence[Answer], passes: Sequence[Sequence[Answer]]) -> float | str:
    """Return the largest lead of a reference's token where an answer has another one.

    >>> sure = Answer((1,), (5, 6), leads=(2.0, 0.5, 1.0))
    >>> largest_lead([sure], [[Answer((1,), (5, 6))], [Answer((1,), (5, 7))]])
    0.5
    """
    pairs = [pair for found in passes for pair in zip(reference, found, strict=True)]
    return max(
        (
            one.leads[min(n_common(one.tokens, other.tokens), len(one.leads) - 1)]
            for one, other in pairs
            if one.tokens != other.tokens
        ),
        default=NOTHING,
    )


if __name__ == "__main__":
    main()
