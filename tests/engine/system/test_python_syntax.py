"""Threads parse Python at the same time, as calls of tools and filters of searches do."""

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from paddock.engine.system.python_syntax import parse_expression

CALLS = "[" + ", ".join(f"f(x={i}, y=[{i}, (1 + 2) * 3])" for i in range(60)) + "]"


class Garbage:
    """Runs code, and so lets other threads run, where a tree is made and the collector begins."""

    def __init__(self) -> None:
        self.cycle = self

    def __del__(self) -> None:
        sum(range(3))


@pytest.fixture(autouse=True)
def busy() -> Iterator[None]:
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(5)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)


def test_what_several_threads_parse_is_not_mixed_up() -> None:
    def parse(_: int) -> str:
        Garbage()
        return type(parse_expression(CALLS)).__name__

    with ThreadPoolExecutor(4) as threads:
        assert {*threads.map(parse, range(200))} == {"List"}
