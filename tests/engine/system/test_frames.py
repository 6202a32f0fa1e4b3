"""Frames: whatever the other process does, it is answered or refused, and never waited for."""

import asyncio
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.system import frame_processes
from paddock.engine.system.frame_processes import MOST_PROCESSES, FrameProcess, NoAnswer
from paddock.engine.system.frames import (
    FrameHead,
    FramePipes,
    FrameTooLarge,
    PipeClosed,
    pack_frame,
    read_frame,
    read_frame_async,
)
from tests.optional import present
from tests.waiting import until

HEADS = st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text()))
CHILD = """
import os, signal, subprocess, sys, time
while len(sys.argv) > 1 and not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
from paddock.engine.system.frames import answer_frames, pack_frame, send_frame, take_pipes
requests, answers = take_pipes()
def answer(order):
    match order["do"]:
        case "die":
            os._exit(1)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "processor":
            signal.setitimer(signal.ITIMER_PROF, 0.2)
            while True:
                pass
        case "spin":
            while True:
                pass
        case "print":
            print("noise", flush=True)
            os.write(1, b"more noise")
            subprocess.run(["echo", "and a child's"])
        case "leave":
            subprocess.Popen(["sleep", "600"], stdout=answers)
            os._exit(1)
        case "wait":
            open(order["begun"], "w").close()
            while not os.path.exists(order["until"]):
                time.sleep(0.01)
        case "half":
            send_frame(answers, pack_frame({"a": "b" * 1000})[:500])
            time.sleep(600)
        case "endless":
            while True:
                send_frame(answers, b"x" * 65536)
        case "garbage":
            return (3).to_bytes(8, "little") + (0).to_bytes(8, "little") + b"{]}"
    return pack_frame({"pid": os.getpid(), "do": order["do"], "n": len(order.get("text", ""))})
answer_frames(requests, answers, answer)
"""


@pytest.fixture
def child() -> Iterator[FrameProcess]:
    process = FrameProcess([sys.executable, "-c", CHILD])
    yield process
    process.close()


@given(HEADS, st.binary())
def test_what_is_packed_is_read(head: FrameHead, body: bytes) -> None:
    kept = read_frame(io.BytesIO(pack_frame(head)))[0]  # what UTF-8 cannot say is replaced
    assert read_frame(io.BytesIO(pack_frame(kept, body))) == (kept, body)
    whole = pack_frame(head, body, errors="surrogatepass")
    assert read_frame(io.BytesIO(whole)) == (head, body)


@given(HEADS, st.binary(), st.data())
def test_a_broken_pipe_is_an_end_and_nothing_else(
    head: FrameHead, body: bytes, data: st.DataObject
) -> None:
    raw = pack_frame(head, body)
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    with pytest.raises(PipeClosed):
        read_frame(io.BytesIO(cut))

    async def read() -> None:
        stream = asyncio.StreamReader()
        stream.feed_data(cut)
        stream.feed_eof()
        await read_frame_async(stream)

    with pytest.raises(PipeClosed):
        asyncio.run(read())


def test_a_frame_of_nonsense_lengths_is_refused() -> None:
    with pytest.raises(FrameTooLarge):
        read_frame(io.BytesIO(b"\xff" * 64))


@pytest.mark.parametrize("head", ["[]", "1", "null", "[" * 1_000_000, "{]}", "{", ""])
def test_a_frame_whose_head_is_no_object_is_refused(head: str) -> None:
    raw = len(head).to_bytes(8, "little") + bytes(8) + head.encode()
    with pytest.raises(ValueError, match=r"object|nested|Expecting"):
        read_frame(io.BytesIO(raw))


@pytest.mark.skipif(sys.platform == "win32", reason="it has other priorities")
@pytest.mark.parametrize(("own", "asked", "had"), [(0, 5, 5), (10, 5, 10)])
def test_a_process_of_low_priority_is_no_quicker_than_its_parent(
    own: int, asked: int, had: int
) -> None:
    program = f"""
import os, sys
os.nice({own})
from paddock.engine.system.frame_processes import FrameProcess
process = FrameProcess([sys.executable, "-c", {CHILD!r}], nice={asked})
print(os.getpriority(os.PRIO_PROCESS, process.ask({{"do": "work"}}, 600)["pid"]))
process.close()
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert int(done.stdout) == max(had, os.nice(0) + own)


STARTED = """
import os
at_start = os.nice(0)
from paddock.engine.system.frames import answer_frames, pack_frame, take_pipes
answer_frames(*take_pipes(), lambda order: pack_frame({"nice": [at_start, os.nice(0)]}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="it has other priorities")
def test_a_process_of_low_priority_starts_as_quickly_as_its_parent() -> None:
    process = FrameProcess([sys.executable, "-c", STARTED], {}, nice=19)
    assert process.ask({}, 600) == {"nice": [os.nice(0), 19]}
    process.close()


@pytest.mark.parametrize(
    ("deed", "is_machines"),
    [
        ("die", False), ("processor", False), ("endless", False), ("garbage", False),
        ("half", True), ("leave", True), ("killed", True),
    ],
)  # fmt: skip
def test_a_hostile_child_is_ended_and_the_next_order_answered(
    child: FrameProcess, deed: str, *, is_machines: bool
) -> None:
    """What sleeps, as on a busy machine, or is killed by the system, is no fault of the order."""
    first = present(child.ask({"do": "work"}, 60))
    with pytest.raises(NoAnswer) if is_machines else nullcontext():
        assert child.ask({"do": deed}, 2 if deed in ("half", "leave") else 60) is None
    assert not child.is_running
    second = present(child.ask({"do": "work"}, 60))
    assert second["pid"] != first["pid"]


@pytest.mark.parametrize(("deed", "is_busy"), [("spin", True), ("half", False)])
def test_what_an_order_took_of_the_processor_is_known_when_it_is_late(
    child: FrameProcess, deed: str, *, is_busy: bool
) -> None:
    present(child.ask({"do": "work"}, 60))
    with pytest.raises(NoAnswer) as late:
        child.ask({"do": deed}, 5)
    assert (late.value.processor_s > 0.1) == is_busy


def test_what_is_not_brief_delays_no_other_order(child: FrameProcess, tmp_path: Path) -> None:
    begun, may_end = tmp_path / "begun", tmp_path / "may end"
    with ThreadPoolExecutor() as pool:
        waits = {"do": "wait", "begun": str(begun), "until": str(may_end)}
        slow = pool.submit(child.ask, waits, 60, 0)
        until(begun.exists)
        others = [present(child.ask({"do": "work"}, 60)) for _ in range(2)]
        assert not slow.done() and others[0]["pid"] == others[1]["pid"]
        may_end.touch()
        assert present(slow.result())["pid"] != others[0]["pid"]


def test_processes_that_are_slow_to_end_delay_no_answer_and_are_few(
    child: FrameProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, end = threading.Event(), frame_processes._Answering.end
    monkeypatch.setattr(
        frame_processes._Answering, "end", lambda *args: (may_end.wait(60), end(*args))
    )
    for _ in range(MOST_PROCESSES):
        present(child.ask({"do": "work"}, 60))
        with pytest.raises(NoAnswer):
            child.ask({"do": "half"}, 0.5)
    with pytest.raises(NoAnswer):
        child.ask({"do": "work"}, 0.5)
    assert len(child._all) == MOST_PROCESSES
    may_end.set()
    present(child.ask({"do": "work"}, 60))
    until(lambda: len(child._all) == 1)


def test_the_start_of_a_process_takes_none_of_any_orders_time(tmp_path: Path) -> None:
    """On a busy machine that takes seconds, and an ordinary chat was told that it is busy."""
    may_start = tmp_path / "may start"
    child = FrameProcess([sys.executable, "-c", CHILD, str(may_start)], {"do": "work"})
    with ThreadPoolExecutor() as pool:
        orders = [pool.submit(child.ask, {"do": "work"}, 30) for _ in range(3)]
        until(lambda: child._all)
        before = child.clock_s()
        time.sleep(0.1)
        assert child.clock_s() == before
        may_start.touch()
        assert all(present(order.result())["do"] == "work" for order in orders)
    assert child.clock_s() > before
    child.close()


def test_what_a_child_prints_stands_in_no_answer(child: FrameProcess) -> None:
    answers = [child.ask({"do": do}, 60) for do in ("print", "work")]
    assert [answer and answer["do"] for answer in answers] == ["print", "work"]


def test_an_answer_beyond_its_limit_is_refused_before_it_is_read() -> None:
    frame = pack_frame({}, b"x" * 1000)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.stdin is not None
        assert cat.stdout is not None
        pipes = FramePipes(cat.stdin.fileno(), cat.stdout.fileno())
        assert pipes.ask(frame, lambda: None, 1000)[1] == b"x" * 1000
        with pytest.raises(FrameTooLarge):
            pipes.ask(frame[: len(frame) // 2], lambda: None, 999)
        cat.kill()
    assert os.WIFSIGNALED(cat.returncode) or cat.returncode
