"""Images a second and the first token about an image: ours against llama-server's, same source.

uv run python tests/benchmarks/sight.py [--rounds 3] [--images 6] [--slices]

The projector has the size of SmolVLM-256M's (SigLIP-B/16: 12 layers of 768 in F16, 1,024 patches of
512 by 512 pixels) and random weights. The model behind it is tiny, so the projector is what counts.
In turns, on all cores: one picture alone, until its first token, then all others at once, to see
how many are read in a second. Every picture is new, so nothing is kept of it. With `--slices` they
have 1,024 pixels a side: four slices and the whole.
"""

import argparse
import asyncio
import base64
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.engine.backends.local import LocalPool
from paddock.engine.request import ChatRequest, Message, ModelSpec
from paddock.engine.settings import PoolSettings
from tests.benchmarks import client, peers
from tests.benchmarks.harness import circumstances, n_threads, table
from tests.benchmarks.processes import free_port, serve
from tests.fakes.eyes import FAMILIES, noise
from tests.fakes.gguf import Value, write_gguf
from tests.fakes.tiny import Axes, write_llm

N_EYE, N_FEED, N_LAYERS, N_PATCHES, N_MODEL = 768, 3072, 12, 1024, 576
N_MERGED = 16  # patches of a row
QUESTION = "What is it?"
Ask = Callable[[bytes], Awaitable[object]]


def write_model(folder: Path, *, has_slices: bool) -> tuple[Path, Path]:
    """Write a tiny model, and a projector of real size beside it."""
    heads: dict[str, Value] = {"attention.head_count": 9, "attention.head_count_kv": 9}
    control = FAMILIES["smolvlm"].control
    model = write_llm(folder / "real.gguf", "llama", heads, n_embd=N_MODEL, control=control)
    own: dict[str, Value] = {
        "embedding_length": N_EYE,
        "feed_forward_length": N_FEED,
        "block_count": N_LAYERS,
        "projection_dim": N_MODEL,
        "attention.head_count": 12,
        "attention.layer_norm_epsilon": 1e-6,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_size": 512,
        "patch_size": 16,
        "projector.scale_factor": 4,
        "preproc_image_size": 1024 if has_slices else 512,
    }
    header: dict[str, Value] = {
        "general.architecture": "clip",
        "clip.projector_type": "idefics3",
        "clip.has_vision_encoder": True,
        "clip.use_gelu": True,
        **{f"clip.vision.{key}": value for key, value in own.items()},
    }
    return model, write_gguf(folder / "mmproj-real.gguf", header, _axes(), kind=1, seed=3)


def _axes() -> Axes:
    axes: Axes = {
        "v.patch_embd.weight": (16, 16, 3, N_EYE),
        "v.position_embd.weight": (N_EYE, N_PATCHES),
        "v.post_ln.weight": (N_EYE,),
        "v.post_ln.bias": (N_EYE,),
        "mm.model.fc.weight": (N_MERGED * N_EYE, N_MODEL),
    }
    shapes: Axes = {f"attn_{part}": (N_EYE, N_EYE) for part in ("q", "k", "v", "out")}
    shapes |= {"ln1": (N_EYE,), "ln2": (N_EYE,)}
    shapes |= {"ffn_up": (N_EYE, N_FEED), "ffn_down": (N_FEED, N_EYE)}
    for layer in range(N_LAYERS):
        for name, shape in shapes.items():
            axes[f"v.blk.{layer}.{name}.weight"] = shape
            axes[f"v.blk.{layer}.{name}.bias"] = shape[-1:]
    return axes


async def start_theirs(stack: AsyncExitStack, model: Path, projector: Path) -> Ask:
    port = free_port()
    files = ("-m", str(model), "--mmproj", str(projector), "--port", str(port))
    options = ("-c", "8192", "-np", "4", "-t", str(n_threads()))
    command = [str(peers.find().server), *files, *options]
    await stack.enter_async_context(serve(command, port, health="/health"))
    marker = json.loads(await client.get(port, "/props"))["media_marker"]

    async def ask(image: bytes) -> object:
        data = [base64.b64encode(image).decode()]
        text = f"{marker}{QUESTION}"
        prompt = {"prompt_string": text, "multimodal_data": data}
        return await client.post(port, "/completion", {"prompt": prompt, "n_predict": 1})

    return ask


async def start_ours(stack: AsyncExitStack, model: Path) -> Ask:
    folder = model.parent
    settings = PoolSettings(
        n_threads=n_threads(), models_dir=folder, cache_dir=folder / "cache", num_parallel=4
    )
    pool = await stack.enter_async_context(LocalPool(settings))
    spec = ModelSpec(str(model), n_ctx_tokens=2048)

    async def ask(image: bytes) -> object:
        turn = Message("user", QUESTION, images=(image,))
        return await pool.chat(ChatRequest(spec, (turn,), {"max_tokens": 1})).reply()

    return ask


async def measure(ask: Ask, pictures: Sequence[bytes]) -> tuple[float, float]:
    """Return the seconds to the first picture's first token, and how many others a second."""
    first, *others = pictures
    began = time.perf_counter()
    await ask(first)
    first_s = time.perf_counter() - began
    await asyncio.gather(*map(ask, others))
    return first_s, len(others) / (time.perf_counter() - began - first_s)


async def main(n_rounds: int, n_images: int, *, has_slices: bool) -> None:
    seeds, side = count(), 1024 if has_slices else 512

    def pictures(n: int) -> list[bytes]:
        return [noise(next(seeds), side, side) for _ in range(n)]

    with tempfile.TemporaryDirectory() as folder:
        model, projector = write_model(Path(folder), has_slices=has_slices)
        async with AsyncExitStack() as stack:
            contenders = {
                "llama-server": await start_theirs(stack, model, projector),
                "Paddock": await start_ours(stack, model),
            }
            for ask in contenders.values():
                await ask(pictures(1)[0])  # loads what is loaded at the first use
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
            for _ in range(n_rounds):
                for name, ask in contenders.items():
                    found[name].append(await measure(ask, pictures(1 + n_images)))
    print(circumstances(rounds=n_rounds, images=n_images, slices=has_slices))
    rows = []
    for name, measured in found.items():
        first_s, per_s = (statistics.median(one) for one in zip(*measured, strict=True))
        rows.append([name, f"{first_s:.2f}", f"{per_s:.2f}"])
    print(table(["", "first token, s", "images a second"], rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--slices", action="store_true")
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.images, has_slices=given.slices))
