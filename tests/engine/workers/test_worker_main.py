"""The pipe of a worker, through which its answers go."""

import os
import sys

import pytest

from paddock.engine.workers.worker_main import widen_pipe


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a pipe is Linux's to set")
def test_a_second_of_64_answers_is_written_although_no_one_reads() -> None:
    reading, writing = os.pipe()
    widen_pipe(writing)
    os.set_blocking(writing, False)
    for _ in range(100):  # turns of a second, each with 100 bytes of every answer
        assert os.write(writing, bytes(6400)) == 6400
    os.close(reading)
    os.close(writing)
