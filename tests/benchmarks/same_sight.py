"""Greedy answers about images: ours against llama-server's, built from the same source.

uv run python tests/benchmarks/same_sight.py [FAMILY …]

Each family of models that see has a tiny random model and projector (`tests.fakes.eyes`). Four
conversations, with one image, two, a large one, and two at once, are asked one by one and eight at
once; how many of the tokens are llama-server's own, up to the first other one.
"""

import asyncio
import base64
import json
import sys
import tempfile
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.engine.request import Reply
from tests.benchmarks import client, peers
from tests.benchmarks.harness import table
from tests.benchmarks.processes import free_port, serve
from tests.engine.llama.test_vision_families import ALL, N_TOKENS, Seeing
from tests.fakes.eyes import FAMILIES, write_family


async def their_answers(model: Path, projector: Path) -> list[list[int]]:
    port = free_port()
    files = ("-m", str(model), "--mmproj", str(projector))
    options = ("-c", "8192", "-np", "4", "-t", "1", "-fa", "off", "--port", str(port))
    found = []
    async with serve([str(peers.find().server), *files, *options], port, health="/health"):
        marker = json.loads(await client.get(port, "/props"))["media_marker"]
        for one in ALL:
            images = [base64.b64encode(image).decode() for image in one.images]
            text = one.prompt.replace("<__media__>", marker)
            body = {
                "prompt": {"prompt_string": text, "multimodal_data": images},
                "n_predict": N_TOKENS,
                "temperature": 0,
                "return_tokens": True,
            }
            found.append((await client.post(port, "/completion", body))["tokens"])
    return found


async def our_answers(model: Path) -> tuple[list[list[int]], list[list[int]]]:
    """Return the answers one by one, and those of twice as many at once."""
    seeing = Seeing(model, None)  # type: ignore[arg-type]  # the reference is llama-server
    async with seeing.pool(num_parallel=8) as pool:
        alone = [await pool.chat(seeing.request(one)).reply() for one in ALL]
        asked = (pool.chat(seeing.request(one)).reply() for one in ALL * 2)
        return [*map(_answer, alone)], [*map(_answer, await asyncio.gather(*asked))]


def _answer(reply: Reply) -> list[int]:
    return list(reply.tokens[len(reply.tokens) - reply.usage.completion_tokens :])


def share(theirs: Sequence[list[int]], ours: Sequence[list[int]]) -> str:
    pairs = [list(zip(one, other, strict=False)) for one, other in zip(theirs, ours, strict=True)]
    same = [sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], one)) for one in pairs]
    return f"{sum(same)} of {sum(map(len, theirs))}"


async def main(families: Sequence[str]) -> None:
    rows = []
    for name in families:
        with tempfile.TemporaryDirectory() as folder:
            model, projector = write_family(name, Path(folder))
            theirs = await their_answers(model, projector)
            alone, together = await our_answers(model)
            rows.append([name, share(theirs, alone), share(theirs * 2, together)])
    print(table(["family", "tokens as llama-server's, alone", "eight at once"], rows))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or list(FAMILIES)))
