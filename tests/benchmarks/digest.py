"""Summaries a minute: our pool against llama-server with one slot and with eight.

uv run python tests/benchmarks/digest.py

Sixteen documents of about 650 tokens, the same messages, greedy, the same model file and as many
threads. Nobody may keep an answer from the round before: each round's documents begin with a
line of their own, so all that can be shared is the system prompt. Whether the answers agree is
asked one document at a time: in a batch of several sequences the kernels add in another order,
and where two words are all but equally likely, greedy decoding then takes the other one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx

from paddock.engine.models import ModelFinder
from paddock.engine.pool import LocalPool
from paddock.engine.request import ChatRequest, Message, ModelSpec
from paddock.engine.settings import PoolSettings
from tests.benchmarks import peers
from tests.benchmarks.harness import circumstances, summary, table

N_CTX_TOKENS = 4096
N_ALONE = 4
SYSTEM = "You summarise documents. Write plain sentences, and only what the document says."
CLOSING = "Summarise the document above in at most 80 words."


@dataclass(frozen=True, slots=True)
class Answer:
    """One summary, and what the contender says that it cost."""

    text: str
    n_prompt_tokens: int
    n_answer_tokens: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked with every document."""

    params: dict[str, Any]

    def messages(self, document: str) -> list[dict[str, str]]:
        """Give a short system prompt, the document, and one closing line of instruction."""
        return [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"{document}\n\n{CLOSING}"},
        ]


Round = dict[str, tuple[float, list[Answer]]]
Contender = Callable[[Sequence[str]], Awaitable[list[Answer]]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=100)
    parser.add_argument("--repeat-penalty", type=float, default=1.1)
    args = parser.parse_args()
    try:
        server = peers.find().server
    except peers.PeersMissing as missing:
        sys.exit(f"This benchmark compares, and there is nothing to compare with: {missing}")
    wish = Wish({"max_tokens": args.max_tokens, "repeat_penalty": args.repeat_penalty})
    shape = (args.rounds, args.documents)
    rounds, alone = asyncio.run(_contest(args.model, args.threads, shape, wish, server))
    print(
        circumstances(
            model=args.model,
            documents=args.documents,
            rounds=args.rounds,
            threads=args.threads,
            context_of_one_request=N_CTX_TOKENS,
            temperature=0,
            **wish.params,
        )
    )
    print(report(rounds, alone))


async def _contest(
    model: str, n_threads: int, shape: tuple[int, int], wish: Wish, server: Path
) -> tuple[list[Round], dict[str, list[Answer]]]:
    """Let everybody summarise the documents of each round, by turns; then some one by one."""
    n_rounds, n_documents = shape
    path = Path(_finder().find(model).path)
    async with contextlib.AsyncExitStack() as stack:
        contenders: dict[str, Contender] = {
            "paddock": await stack.enter_async_context(_ours(model, n_threads, wish))
        }
        for n_slots in (1, 8):
            theirs = _llama_server(server, path, n_threads, n_slots, wish)
            contenders[f"llama-server -np {n_slots}"] = await stack.enter_async_context(theirs)
        # This loads the models and warms them up.
        several = documents(-1, N_ALONE)
        alone = {
            who: [(await one([text]))[0] for text in several] for who, one in contenders.items()
        }
        rounds: list[Round] = []
        for number in range(n_rounds):
            texts = documents(number, n_documents)
            rounds.append({who: await _timed(one, texts) for who, one in contenders.items()})
            print(f"round {number + 1} of {n_rounds}", file=sys.stderr, flush=True)
        return rounds, alone


async def _timed(contend: Contender, texts: Sequence[str]) -> tuple[float, list[Answer]]:
    began = time.perf_counter()
    answers = await contend(texts)
    return time.perf_counter() - began, answers


def _finder() -> ModelFinder:
    settings = PoolSettings()
    return ModelFinder(settings.models_dir, settings.cache_dir)


@contextlib.asynccontextmanager
async def _ours(model: str, n_threads: int, wish: Wish) -> AsyncIterator[Contender]:
    spec = ModelSpec(model, n_ctx_tokens=N_CTX_TOKENS, keep_alive_s=-1, params=wish.params)
    async with LocalPool(PoolSettings(n_threads=n_threads), models=_finder()) as pool:

        async def one(document: str) -> Answer:
            messages = tuple(
                Message(turn["role"], turn["content"]) for turn in wish.messages(document)
            )
            reply = await pool.chat(ChatRequest(spec, messages, priority="batch")).reply()
            usage = reply.usage
            return Answer(reply.text, usage.prompt_tokens, usage.completion_tokens)

        async def contend(texts: Sequence[str]) -> list[Answer]:
            return await asyncio.gather(*map(one, texts))

        yield contend


@contextlib.asynccontextmanager
async def _llama_server(
    binary: Path, model: Path, n_threads: int, n_slots: int, wish: Wish
) -> AsyncIterator[Contender]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(binary), "-m", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["-np", str(n_slots), "-c", str(N_CTX_TOKENS * n_slots), "-t", str(n_threads)]
    base = f"http://127.0.0.1:{port}"
    with _process(command) as run:
        async with httpx.AsyncClient(base_url=base, timeout=600) as client:
            await _until_ready(client, run)

            async def one(document: str) -> Answer:
                body = {"messages": wish.messages(document), "temperature": 0, **wish.params}
                reply = await client.post("/v1/chat/completions", json=body)
                found = reply.raise_for_status().json()
                text = found["choices"][0]["message"]["content"]
                usage = found["usage"]
                return Answer(text, usage["prompt_tokens"], usage["completion_tokens"])

            async def contend(texts: Sequence[str]) -> list[Answer]:
                return await asyncio.gather(*map(one, texts))

            yield contend


@contextlib.contextmanager
def _process(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for as long as the block lasts."""
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as run:
        try:
            yield run
        finally:
            run.terminate()


async def _until_ready(client: httpx.AsyncClient, run: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if run.poll() is not None:
            raise RuntimeError(f"llama-server ended with {run.returncode}")
        with contextlib.suppress(httpx.TransportError):
            if (await client.get("/health")).status_code == 200:
                return
        await asyncio.sleep(0.1)
    raise TimeoutError("llama-server was not ready after 60 s")


def documents(number: int, n: int) -> list[str]:
    """Make the documents of a round: about 650 tokens each, no two with the same beginning."""
    return [_document(random.Random(f"{number} {index}")) for index in range(n)]


def _document(chance: random.Random) -> str:
    lines = [f"Letter {chance.randrange(10**6)} from {chance.choice(PLACES)}."]
    while sum(len(line.split()) for line in lines) < 490:
        lines.append(
            f"On {chance.choice(DAYS)} {chance.choice(PEOPLE)} {chance.choice(DEEDS)} "
            f"{chance.choice(PLACES)}, and {chance.choice(PEOPLE)} said that it "
            f"{chance.choice(COMMENTS)}; the bill was {chance.randrange(11, 990)} pounds."
        )
    return "\n".join(lines)


DAYS = ("Monday", "the second Tuesday in May", "a wet Thursday", "the eve of the fair", "Sunday")
PEOPLE = ("the ferryman", "Mrs Lister", "the new doctor", "an old miller", "Tom", "the council")
DEEDS = ("mended the bridge at", "counted the eels at", "lost a hat at", "sold the boats of")
PLACES = ("Cold Ash", "Salt Bridge", "the upper mill", "Wexcombe harbour", "Long Meadow")
COMMENTS = (
    "should have been done in spring",
    "was better than nothing at all",
    "would not last until the winter",
    "had cost too much the first time",
)


def report(rounds: Sequence[Round], alone: Mapping[str, Sequence[Answer]]) -> str:
    """Give the table: medians over the rounds, and how far the answers agree with ours."""
    ours, *others = rounds[0]
    speeds = {
        who: summary([60 * len(one[who][1]) / one[who][0] for one in rounds]) for who in alone
    }
    best = max(speeds[who].median for who in others)
    rows = []
    for who, speed in speeds.items():
        answers = [answer for one in rounds for answer in one[who][1]]
        rows.append(
            [
                who,
                f"{speed.median:.1f}",
                f"{speed.low:.1f} to {speed.high:.1f}",
                f"{speed.median / best:.2f}",
                f"{sum(answer.n_prompt_tokens for answer in answers) / len(answers):.0f}",
                f"{sum(answer.n_answer_tokens for answer in answers) / len(answers):.1f}",
                f"{agreement(alone[ours], alone[who]):.0%}",
            ]
        )
    headings = ["", "documents/min", "range", "to the better server", "prompt tokens"]
    return table([*headings, "answer tokens", "same answers alone"], rows)


def agreement(ours: Sequence[Answer], theirs: Sequence[Answer]) -> float:
    """Tell the share of equal answers."""
    same = sum(one.text.strip() == two.text.strip() for one, two in zip(ours, theirs, strict=True))
    return same / len(ours)


if __name__ == "__main__":
    main()
