"""Requests with long texts or images: one after the other next to all others, and cancelled in
order."""

import os
import sys
import threading
import time

import pytest

from paddock.engine.system.frames import FrameHead
from paddock.engine.workers.worker_main import (
    LONG_CHARACTERS,
    _LongRequests,
    _n_characters,
    widen_pipe,
)


def test_a_long_request_is_done_in_a_thread_of_its_own_and_can_be_cancelled() -> None:
    started, gate, done = threading.Event(), threading.Event(), list[tuple[str, int, bytes]]()

    def act(head: FrameHead, body: bytes) -> None:
        if head["op"] == "chat":
            started.set()
            gate.wait(120)
        done.append((head["op"], head["id"], body))

    long_ones = _LongRequests(act)
    for number in (1, 2):
        head: FrameHead = {"op": "chat", "id": number}
        long_ones.add(head, b"image")  # returns at once, though nothing goes on
    assert started.wait(120)
    assert long_ones.cancel(2), "it has not begun"
    assert not long_ones.cancel(3), "it is none of these"
    assert long_ones.cancel(1), "it is being tokenised"
    assert done == []
    gate.set()
    until = time.monotonic() + 120
    while len(done) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert done == [("chat", 1, b"image"), ("cancel", 1, b"")]


def test_texts_are_measured_wherever_they_stand_in_a_request() -> None:
    messages = [{"role": "user", "content": "x" * LONG_CHARACTERS}]
    assert _n_characters({"op": "chat", "request": {"messages": messages}}) > LONG_CHARACTERS
    assert _n_characters({"op": "count_texts", "texts": ["ab", "c"], "id": 7}) == 14


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a pipe is Linux's to set")
def test_a_second_of_64_answers_is_written_although_no_one_reads() -> None:
    reading, writing = os.pipe()
    widen_pipe(writing)
    os.set_blocking(writing, False)
    for _ in range(100):  # turns of a second, each with 100 bytes of every answer
        assert os.write(writing, bytes(6400)) == 6400
    os.close(reading)
    os.close(writing)
