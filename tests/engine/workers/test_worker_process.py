"""A worker process whose other end is a few lines of Python: how it may go wrong."""

import asyncio
import sys

import pytest

from paddock.engine.workers.death_reasons import WorkerEnd
from paddock.engine.workers.worker_process import WorkerProcess
from paddock.engine.workers.worker_protocol import (
    EmbedOrder,
    LoadBroken,
    PendingRequest,
    WorkerGone,
    WorkerOptions,
)

LOAD = WorkerOptions("/model.gguf", "chat", 512, 2048, 4, 512, 1)
MEMORY = {"device_bytes": 700, "n_cells": 512, "cell_bytes": [0, 100]}
READY = f"read_frame(sys.stdin.buffer); send({{'event': 'ready', 'memory': {MEMORY}}})"
SCRIPT = """
import os, sys, time
from paddock.engine.system.frames import pack_frame, read_frame
def send(head):
    sys.stdout.buffer.write(pack_frame(head))
    sys.stdout.buffer.flush()
"""


def command(*lines: str) -> tuple[str, ...]:
    return (sys.executable, "-c", SCRIPT + "\n".join(lines))


BROKEN = "send({'event': 'broken', 'why': 'llama.cpp cannot make a context'})"
ABORTS = (
    "import ctypes",
    "from paddock.engine.llama.library import ggml_function",
    "read_frame(sys.stdin.buffer)",
    "forms = ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p",
    "ggml_function('ggml_abort', None, *forms)(b'a.cpp', 7, b'the device is lost')",
)

LATE = (
    "import subprocess",
    "subprocess.Popen(['sh', '-c', 'sleep 0.3; echo a.cpp:7: too late >&2'])",
    "os.abort()",
)


@pytest.mark.parametrize(
    ("lines", "within_s", "said"),
    [
        (("read_frame(sys.stdin.buffer)", BROKEN), 120, "llama.cpp cannot make a context"),
        (("os.abort()",), 120, "killed by SIGABRT while loading"),
        (ABORTS, 120, "killed by SIGABRT while loading (llama.cpp's last line: a.cpp:7: the device "
            "is lost)"),
        (LATE, 120, "killed by SIGABRT while loading (llama.cpp's last line: a.cpp:7: too late)"),
        (("time.sleep(600)",), 1.5, "loading took more than 1.5 s"),
    ],
    ids=["it says why", "by its signal", "by llama.cpp's message, not by a trace",
        "by what comes late", "too long"],
)  # fmt: skip
async def test_a_worker_that_cannot_load_is_told(
    lines: tuple[str, ...], within_s: float, said: str
) -> None:
    with pytest.raises(LoadBroken) as caught:
        await WorkerProcess.started(LOAD, within_s, command(*lines))
    assert str(caught.value) == said


async def test_what_a_ready_worker_told_and_takes_is_known() -> None:
    grown = {"device_bytes": 900, "n_cells": 1024, "cell_bytes": [0, 200]}
    memory = f"send({{'event': 'memory', 'memory': {grown | {'n_cells_at_most': 1024}}}})"
    code = "send({'event': 'told', 'id': 1, 'result': [1]})"
    lines = (READY, "read_frame(sys.stdin.buffer)", memory, code, "read_frame(sys.stdin.buffer)")
    worker = await WorkerProcess.started(LOAD, 120, command(*lines))
    taken = worker.measure()
    # A quarter of the planned 2,048 cells is there; the rest is reserved.
    assert taken.host_bytes > 1_000_000 and taken.device_bytes == 700 + 300
    assert (taken.host_growth_bytes, taken.device_growth_bytes) == (0, 300)
    await worker.count_texts(("one",))
    taken = worker.measure()
    assert (taken.device_bytes, taken.device_growth_bytes) == (900, 0), "no more can be had"
    await worker.stop()
    assert worker.measure() == taken, "the most that it took"
    assert str(worker.gone.result()) == "it was unloaded"


async def test_work_that_is_no_step_is_a_sign_of_life_unless_an_answer_should_make_steps() -> None:
    code = "send({'event': 'told', 'id': head['id'], 'result': [1]})"
    turn = "{'progressed': [2], 'chunks': [], 'done': [], 'n_tokens': 1, 'step_s': 40.0}"
    lines = (
        READY,
        f"head, _ = read_frame(sys.stdin.buffer); send({{'event': 'alive', 'for_s': 500}}); {code}",
        "read_frame(sys.stdin.buffer); send({'event': 'started', 'ids': [2]})",
        f"send({{'event': 'turns', 'turns': [{turn}]}})",
        f"head, _ = read_frame(sys.stdin.buffer); {code}; read_frame(sys.stdin.buffer)",
    )
    worker = await WorkerProcess.started(LOAD, 120, command(*lines))
    loop = asyncio.get_running_loop()
    await worker.count_texts(("long",))
    assert worker.last_turn_at > loop.time() + 400
    worker.last_turn_at = loop.time()
    moved = asyncio.Event()
    waiting = asyncio.create_task(
        worker.embed(EmbedOrder(("one",)), PendingRequest(on_step=moved.set))
    )
    await moved.wait()
    assert worker.slowest_step_s == 40
    before = worker.last_turn_at
    await worker.count_texts(("short",))
    assert worker.last_turn_at == before, "counting goes on beside a hung step"
    waiting.cancel()
    await worker.kill(WorkerEnd("the test is over"))


GARBAGE = {
    "KeyError": "send({'event': 'turn'})",
    "ValueError": "send(['no head'])",
    "FrameTooLarge": "os.write(1, b'\\xff' * 64)",
    "JSONDecodeError": "os.write(1, bytes([3, *bytes(15)]) + b'{]}')",
}


WRONG_TYPE = ("TypeError", "send({'event': 'memory', 'memory': []})")


@pytest.mark.parametrize(("error", "deed"), [*GARBAGE.items(), WRONG_TYPE])
async def test_garbage_in_the_pipe_ends_the_requests_at_once(error: str, deed: str) -> None:
    lines = (READY, f"read_frame(sys.stdin.buffer); {deed}; time.sleep(600)")
    worker = await WorkerProcess.started(LOAD, 120, command(*lines))
    with pytest.raises(WorkerGone, match=f"its output cannot be read: {error}"):
        await worker.count_texts(("one",))
    await worker.kill(WorkerEnd("the test is over"))
