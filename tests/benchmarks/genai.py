"""openvino-genai's own continuous batching as a contender: a process, asked by lines of JSON.

It reads the GGUF file itself, and rounds what Q4_1 keeps of each block's minimum
(`findings/openvino-genai-rounds-minimums-of-gguf.sh`): its answers are those of a worse model. By
its defaults it computes in BF16 where the processor does it, with a cache of 8 bits; `genai_f32`
computes as an IR of ours of 32 bits does.
"""

import asyncio
import contextlib
import importlib.util
import json
import queue
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

if __name__ != "__main__":
    from tests.benchmarks.loads import Ask
    from tests.benchmarks.processes import peak_bytes
    from tests.benchmarks.setup import WARM_UP, Heard, Running, Said, Setup

IS_HERE = importlib.util.find_spec("openvino_genai") is not None
N_SEQUENCES = 8
N_BATCH_TOKENS = 512
CACHE_GB = 2


class Genai:
    """The process; answers come in any order, each with the number of its question."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    async def ask(self, ask: "Ask", heard: "Heard | None" = None) -> "Said":
        if heard is not None:
            raise RuntimeError("it is asked for whole answers only")
        if ask.schema:
            raise RuntimeError("it is asked for texts only")
        number = id(ask)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        line = {"id": number, "messages": ask.messages(), "n_tokens": ask.n_tokens}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        await self._process.stdin.drain()
        found = await self._waiting[number]
        del self._waiting[number]
        return Said(found["text"], found["n_prompt_tokens"], found["n_answer_tokens"])

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            found = json.loads(line)
            self._waiting[found["id"]].set_result(found)
        for future in self._waiting.values():
            future.set_exception(EOFError("openvino-genai has ended"))

    def peak_bytes(self) -> int | None:
        return peak_bytes([self._process.pid])


def genai(setup: "Setup") -> contextlib.AbstractAsyncContextManager["Running"]:
    return _running(setup, {})


def genai_f32(setup: "Setup") -> contextlib.AbstractAsyncContextManager["Running"]:
    return _running(setup, {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f16"})


@contextlib.asynccontextmanager
async def _running(setup: "Setup", more: dict[str, str]) -> AsyncIterator["Running"]:
    properties = json.dumps({"INFERENCE_NUM_THREADS": setup.n_threads, **more})
    command = [sys.executable, __file__, str(setup.model), properties]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24
    )
    try:
        running = Genai(process)
        await running.ask(WARM_UP)
        yield running
    finally:
        process.kill()
        await process.wait()


def _serve(model: str, properties: dict[str, Any]) -> None:
    """Answer the lines of standard input until it ends."""
    import openvino  # type: ignore[import-untyped]
    import openvino_genai  # type: ignore[import-untyped]

    core = openvino.Core()
    core.set_property("CPU", properties)
    names = ("INFERENCE_PRECISION_HINT", "KV_CACHE_PRECISION")
    computed, kept = (core.get_property("CPU", name).get_type_name() for name in names)
    print(f"openvino-genai computes in {computed}, its cache in {kept}", file=sys.stderr)

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = CACHE_GB
    scheduler.enable_prefix_caching = True
    scheduler.max_num_batched_tokens = N_BATCH_TOKENS
    scheduler.max_num_seqs = N_SEQUENCES
    pipeline = openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)
    tokenizer = pipeline.get_tokenizer()
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)

    threading.Thread(target=read, daemon=True).start()
    running: dict[int, tuple[Any, int]] = {}
    while True:
        while not lines.empty() or not running:
            line = json.loads(lines.get())
            prompt = tokenizer.apply_chat_template(line["messages"], True)
            tokens = tokenizer.encode(prompt, add_special_tokens=False).input_ids
            config = openvino_genai.GenerationConfig(
                max_new_tokens=line["n_tokens"], ignore_eos=True, do_sample=False
            )
            config.set_eos_token_id(tokenizer.get_eos_token_id())
            handle = pipeline.add_request(line["id"], tokens, config)
            running[line["id"]] = handle, tokens.shape[1]
        pipeline.step()
        for number, (handle, n_prompt_tokens) in list(running.items()):
            if handle.get_status() == openvino_genai.GenerationStatus.RUNNING:
                continue
            del running[number]
            ids = [token for output in handle.read_all() for token in output.generated_ids]
            said = {
                "id": number,
                "text": tokenizer.decode(ids),
                "n_prompt_tokens": n_prompt_tokens,
                "n_answer_tokens": len(ids),
            }
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], json.loads(sys.argv[2]))
